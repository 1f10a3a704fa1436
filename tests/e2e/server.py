"""The real server, started for a test and stopped with it."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The release build is what users run; another one may be named while working on the server.
BINARY = pathlib.Path(os.environ.get("TINY_CACHE_BINARY", ROOT / "target" / "release" / "tiny-cache"))


def wait_until(condition, what, timeout=10):
    """Asks again and again until `condition` gives something true, and returns it."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain: {what}"
        time.sleep(0.01)
    return value


# Sockets that hold ports, until this process ends.
_holders = []


def free_port():
    """A port that is given to nobody else, whether somebody listens there or not: who binds to it by its number may do so,
    as the socket that holds it does not listen."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _holders.append(holder)
    return holder.getsockname()[1]


def clean_environment(environment=None):
    """The environment of this process without what configures a server, and with `environment`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHE_", "OTEL_", "TINY_"))}
    return kept | {"NO_PROXY": "*"} | (environment or {})


def run(*arguments, environment=None, timeout=30, **options):
    """Runs the binary to its end."""
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


class Server:
    """A running server on free ports; as a context manager it is drained, and must exit with 0 and without a panic.

    Ports that are `kept` are given to nobody else when it is gone. `enter` is what stands before its command, to start it elsewhere.
    """

    def __init__(self, *flags, environment=None, listen=True, kept=False, log_format="json", enter=(), **options):
        port = free_port if kept else lambda: 0
        ports = ["--listen", f"127.0.0.1:{port()}", "--http-listen", f"127.0.0.1:{port()}"] if listen else []
        formats = ["--log-format", log_format] if log_format else []
        self.process = subprocess.Popen(
            [*enter, BINARY, "serve", *ports, *formats, *map(str, flags)],
            env=clean_environment(environment),
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.log = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.started = self.wait_for_line("serving")
        except BaseException:
            self.stop()
            raise
        self.grpc, self.http = self.started.get("grpc"), self.started.get("http")

    def _read(self):
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"message": text.rstrip("\n")}
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def lines(self, message):
        """All log lines so far whose message contains `message`."""
        with self._changed:
            return [line for line in self.log if message in line.get("message", "")]

    def wait_for_line(self, message, timeout=10, count=1):
        """The `count`th log line whose message contains `message`, as soon as it is there."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [line for line in self.log if message in line.get("message", "")]
                if len(found) >= count:
                    return found[count - 1]
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no log line with {message!r} in {self.log}")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=40):
        """The exit code, once the server has ended by itself and its log is read to the end."""
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(timeout=10)
            with contextlib.suppress(OSError):
                self.process.stderr.close()

    def stop(self, timeout=40):
        """Drains the server; its exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        code = self.stop()
        if kind is None:
            assert code == 0, f"exit code {code}: {self.log}"
            panics = [line for line in self.log if "panic" in json.dumps(line)]
            assert not panics, panics
