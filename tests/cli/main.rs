//! The real binary as its user runs it: exit codes, standard output and standard error, against a real
//! server where a command needs one.

mod configuration;
mod connection;
mod replay;
mod texts;
mod values;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// The binary with nothing in its environment that it would listen to.
fn tiny_cache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiny-cache"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CACHE_") || name.to_string_lossy().starts_with("TINY_CACHE_") {
            command.env_remove(name);
        }
    }
    command
}

/// How a command ended.
struct Ended {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("standard output is text")
    }

    fn json(&self) -> Value {
        assert_eq!(self.text().lines().count(), 1, "JSON is one line: {}", self.text());
        serde_json::from_str(self.text()).expect("standard output is JSON")
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stderr, String::from_utf8_lossy(&self.stdout));
        self
    }

    /// The one line on standard error.
    #[track_caller]
    fn complaint(&self) -> &str {
        let mut lines = self.stderr.lines();
        let line = lines.next().expect("something on standard error");
        assert_eq!(lines.next(), None, "one line: {}", self.stderr);
        line.strip_prefix("tiny-cache: ").expect("the line begins with the program's name")
    }
}

fn end_of(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = read_to_end(child.stdout.take().expect("piped"));
    let stderr = read_to_end(child.stderr.take().expect("piped"));
    // A command that does not read its input closes it, which is its right.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let Ok(stdout) = stdout.recv_timeout(PATIENCE) else {
        // Whether it can still be killed or not, the test has failed.
        let _ = child.kill();
        panic!("{command:?} does not end");
    };
    let stderr = stderr.recv().expect("both are closed at the end");
    let status = child.wait().expect("the binary ends");
    let stderr = String::from_utf8(stderr).expect("standard error is text");
    Ended { code: status.code().expect("no signal"), stdout, stderr }
}

/// All that comes, once it has come to its end.
fn read_to_end(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, all) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        // Nobody listens any more where the test has given up.
        let _ = send.send(bytes);
    });
    all
}

fn run(arguments: &[&str]) -> Ended {
    let mut command = tiny_cache();
    command.args(arguments);
    end_of(command, b"")
}

/// A server on free ports; killed when dropped.
struct Server {
    child: Child,
    grpc: String,
    log: Receiver<Value>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::spawn(&[&["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"], arguments].concat())
    }

    fn spawn(arguments: &[&str]) -> Self {
        let mut command = tiny_cache();
        command.arg("serve").args(["--log-format", "json"]).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let (send, log) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more once the test is over.
                let _ = send.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let mut server = Self { child, grpc: String::new(), log };
        let started = server.wait_for(|line| line["message"] == "serving");
        started["grpc"].as_str().expect("an address").clone_into(&mut server.grpc);
        server
    }

    /// The first line of the log from here on that is the one.
    fn wait_for(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(rest) {
                Ok(line) if is_it(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{error}: not in the log: {seen:?}"),
            }
        }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut command = tiny_cache();
        command.args(arguments).env("TINY_CACHE_TARGET", &self.grpc);
        end_of(command, input)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
