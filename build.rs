//! Compiles the API definition: Rust code for client and server, and the descriptor set that
//! reflection serves. No protoc needs to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    tell_the_build();
    let descriptors = protox::compile(["cache.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("cache.descriptor.bin"), descriptors.encode_to_vec())?;
    // tonic as it comes, for the peer in the benchmarks.
    let stock = out.join("stock");
    std::fs::create_dir_all(&stock)?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .out_dir(stock)
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(descriptors)?;
    Ok(())
}

/// How this is built, for a metric: compiler, target, profile, and the commit where it is known. It is told by whoever
/// builds from sources without their history (`TINY_CACHE_COMMIT`); a release build asks git otherwise, and other
/// builds do not, since they would have to be made anew after each commit.
fn tell_the_build() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let unknown = || "unknown".to_owned();
    println!("cargo:rerun-if-env-changed=TINY_CACHE_COMMIT");
    let profile = variable("PROFILE").unwrap_or_else(unknown);
    let commit = variable("TINY_CACHE_COMMIT").or_else(|| {
        (profile == "release").then(|| {
            // Reflogs are written to whenever the commit changes; a path that is not there makes every build a new one.
            if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"])
                && std::fs::exists(&log).unwrap_or(false)
            {
                println!("cargo:rerun-if-changed={log}");
            }
            output("git", &["rev-parse", "--short=12", "HEAD"])
        })?
    });
    let rustc = output(&variable("RUSTC").unwrap_or_else(|| "rustc".to_owned()), &["--version"]);
    // "rustc 1.95.0 (0123456789 2026-01-01)"
    let rustc = rustc.and_then(|version| version.split(' ').nth(1).map(str::to_owned));
    for (name, value) in
        [("COMMIT", commit), ("RUSTC", rustc), ("TARGET", variable("TARGET")), ("PROFILE", Some(profile))]
    {
        // Not under the prefix of our settings: `cargo run` hands them to the server, too, which would warn of them.
        println!("cargo:rustc-env=BUILD_{name}={}", value.unwrap_or_else(unknown));
    }
}

/// The first line that a program says, where it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}
