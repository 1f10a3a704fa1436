"""The real server, started for a test and stopped with it."""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "release" / "tiny-cache"


class Server:
    """A running server on free ports; as a context manager it is drained and must exit with 0."""

    def __init__(self, *flags, environment=None, listen=True):
        ports = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"] if listen else []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CACHE_", "TINY_"))}
        self.process = subprocess.Popen(
            [BINARY, "serve", *ports, "--log-format", "json", *flags],
            env=clean | (environment or {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        line = self.wait_for_line("serving")
        self.grpc, self.http = line["grpc"], line["http"]
        self.started = line

    def _read(self):
        for text in self.process.stderr:
            with self._changed:
                self.log.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self.log.append({"message": "log ended"})
            self._changed.notify_all()

    def wait_for_line(self, message, timeout=10):
        """The first log line with this message."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.log:
                    if message in line.get("message", ""):
                        return line
                ended = any(line.get("message") == "log ended" for line in self.log)
                if ended or not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no log line with {message!r} in {self.log}")

    def stop(self, timeout=40):
        """Drains the server; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        code = self.stop()
        if kind is None:
            assert code == 0, f"exit code {code}: {self.log}"
