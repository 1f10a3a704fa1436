"""What befalls a server from outside: killed, told to stop, no disk, no file descriptors, another time of day."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time

import cache_pb2 as pb
import cache_pb2_grpc
import grpc
import pytest
from certificates import Files
from clients import Load, connect, fetch, open_channel
from http2 import Http2, address_of, frame
from server import BINARY, ROOT, Server, clean_environment, free_port, run, wait_until

# By itself grpcio sends the socket's path as authority, which is none, and h2 refuses it (hyperium/h2#487).
UNIX = ("grpc.default_authority", "localhost")
IMPATIENT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
FAKETIME = ROOT / "target" / "tools" / "libfaketime.so.1"


def listening(kind, folder):
    grpc_address = f"unix:{folder}/cache.sock" if kind == "unix" else f"127.0.0.1:{free_port()}"
    return ["--listen", grpc_address, "--http-listen", f"127.0.0.1:{free_port()}"]


@contextlib.contextmanager
def idle_client(address):
    """A connection that is established, with nothing on its way."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(address.removeprefix("unix:"))
    else:
        client = socket.create_connection(address_of(address), 10)
    with client:
        client.settimeout(10)
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0")
        settings = 0
        while settings < 2:
            size = int.from_bytes(client.recv(3, socket.MSG_WAITALL), "big")
            kind = client.recv(6 + size, socket.MSG_WAITALL)[0]
            settings += kind == 4
        yield client


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_clients_of_a_killed_server_find_the_next_one_at_the_same_place(tmp_path, kind):
    first = Server(*listening(kind, tmp_path), listen=False)
    options = [*IMPATIENT, UNIX] if kind == "unix" else IMPATIENT
    failures = []

    @contextlib.contextmanager
    def session():
        with open_channel(first.grpc, options=options) as channel:
            stub = cache_pb2_grpc.CacheServiceStub(channel)

            def call():
                try:
                    stub.Set(pb.CacheItem(key="k", value=b"v"), timeout=20, wait_for_ready=True)
                except grpc.RpcError as error:
                    failures.append(error)

            yield call

    try:
        with Load(session, clients=8) as load, idle_client(first.grpc) as idle:
            first.signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
            # The kernel remembers a connection whose server went first: without that being allowed for, the port is taken.
            while idle.recv(1 << 12):
                pass
            idle.close()
            # The port is free at once, and a socket that was left behind is replaced.
            again = ["--listen", first.grpc, "--http-listen", first.http]
            with Server(*again, listen=False) as second:
                assert second.grpc == first.grpc
                load.wait_for_more()
                lost = list(failures)
                load.wait_for_more()
                with connect(second.grpc, options=options) as stub:
                    assert stub.Get(pb.CacheKey(key="k")).value == b"v"
                load.stop()
    finally:
        first.stop()
    # What was in flight is lost, also over a connection that had been made and not been accepted; nothing after that.
    assert len(lost) <= 24 and {error.code() for error in lost} <= {grpc.StatusCode.UNAVAILABLE}, lost
    assert failures == lost


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_stop_loses_no_accepted_request_of_connections_that_many_calls_share(tmp_path, authority, tls):
    environment = Files(tmp_path, authority).environment() if tls else None
    credentials = authority.credentials() if tls else None
    with Server(environment=environment, kept=True) as server, contextlib.ExitStack() as stack:
        stubs = [stack.enter_context(connect(server.grpc, credentials)) for _ in range(4)]
        place = iter(range(32))
        value = b"v" * 10_000

        @contextlib.contextmanager
        def session():
            stub = stubs[next(place) % 4]
            yield lambda: stub.MultiSet(pb.MultiCacheItemRequest(items=[pb.CacheItem(key="k", value=value)] * 3))

        with Load(session, clients=32) as load:
            server.signal(signal.SIGTERM)
            load.join()
        assert server.wait(timeout=10) == 0
        assert server.wait_for_line("stopped")["aborted_connections"] == 0
    # Each went on until there was nobody to connect to.
    assert len(load.errors) == 32
    for error in load.errors:
        assert (error.code(), "failed to connect" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True), error


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("place", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, place, log_format):
    if place == "full disk":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    grpc_address, http_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = ["--listen", grpc_address, "--http-listen", http_address]
    flags += ["--log-format", log_format, "--log-level", "debug"]
    process = subprocess.Popen([BINARY, "serve", *flags], env=clean_environment(), stderr=stderr)
    os.close(stderr)

    def is_ready():
        assert process.poll() is None, f"it ended: {process.returncode}"
        with contextlib.suppress(ConnectionRefusedError):
            return fetch(http_address, "/ready").status == 200

    try:
        wait_until(is_ready, "ready")
        with connect(grpc_address) as stub:
            for _ in range(50):
                stub.Set(pb.CacheItem(key="k", value=b"v"))
                assert stub.Get(pb.CacheKey(key="k")).value == b"v"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


class Unread(Server):
    """A server whose log nobody reads, from the moment it serves until that is asked for."""

    def __init__(self, *flags):
        self.read_on = threading.Event()
        super().__init__(*flags)

    def _read(self):
        line = json.loads(self.process.stderr.readline())
        while line["message"] != "serving":
            line = json.loads(self.process.stderr.readline())
        with self._changed:
            self.log.append(line)
            self._changed.notify_all()
        self.read_on.wait()
        super()._read()

    def lost(self):
        metrics = fetch(self.http, "/metrics").body.decode()
        return float(re.search(r'^tiny_cache_telemetry_dropped_total\{signal="standard_error"\} (\S+)$', metrics, re.MULTILINE)[1])

    def say_too_much(self):
        """Has more lines logged than anybody has room for."""
        with connect(self.grpc) as stub:
            assert self.lost() == 0

            def is_over():
                for _ in range(50):
                    # Whoever waited for the reader would never answer.
                    assert not stub.Get(pb.CacheKey(key="k"), timeout=10).found
                return self.lost() > 0

            wait_until(is_over, "lines are lost", timeout=40)


def test_a_log_that_nobody_reads_holds_nobody_up_and_goes_on_once_it_is_read():
    with Unread("--log-level", "debug") as server:
        server.say_too_much()
        server.read_on.set()
        line = server.wait_for_line("log: lines were lost")
        assert (line["level"], line["lost_lines"] > 0) == ("WARN", True), line
        wait_until(lambda: fetch(server.http, "/live").status == 200, "it serves")
        server.stop()
        # The end is whole, whatever was lost before.
        assert server.log[-1]["message"] == "stopped", server.log[-1]


def test_a_log_that_nobody_reads_does_not_hold_up_the_end():
    server = Unread("--log-level", "debug")
    try:
        server.say_too_much()
        server.signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
    finally:
        server.read_on.set()
        server.process.kill()
        server.wait()


def logging(folder, path):
    config = folder / "cache.toml"
    lines = ["[telemetry.access_log]", f"path = {json.dumps(str(path))}", 'flush_interval = "10ms"', "queue = 100"]
    config.write_text("\n".join(lines) + "\n")
    return ["--config", config]


def dropped(server):
    metric = 'tiny_cache_telemetry_dropped_total{signal="access_log"} '
    lines = fetch(server.http, "/metrics").body.decode().splitlines()
    return next(int(line.removeprefix(metric)) for line in lines if line.startswith(metric))


@contextlib.contextmanager
def small_disk(folder):
    """A file system with room for 64 KiB; yields what mounts it anew with other options."""
    mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    mounted = mount("size=64k")
    assert mounted.returncode == 0, f"mounting takes root's rights: {mounted.stderr.decode()}"
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_an_access_log_goes_on_once_its_disk_has_room_again(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk) as remount:
        path = disk / "access.jsonl"
        with Server(*logging(tmp_path, path)) as server, connect(server.grpc) as stub:
            many = pb.MultiCacheKeyRequest(keys=[f"k{number}" for number in range(90)])
            sent = 0

            def get():
                nonlocal sent
                stub.MultiGet(many)
                sent += len(many.keys)

            def goes_on_until(message):
                def happened():
                    get()
                    return server.lines(message)

                wait_until(happened, message)

            goes_on_until("cannot be written")
            assert "No space left" in server.wait_for_line("cannot be written")["error"]
            goes_on_until("lines are lost")
            remount("size=1m")
            goes_on_until("written again")
            # Every line is whole, also at the seam, and those that are not there are counted.
            written = lambda: len([json.loads(line) for line in path.read_text().splitlines()])
            wait_until(lambda: written() + dropped(server) == sent, "all lines")


def test_an_access_log_on_a_disk_that_is_read_only_ends_the_start_with_a_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk) as remount:
        remount("ro")
        flags = logging(tmp_path, disk / "access.jsonl")
        ended = run("serve", *flags, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
        assert ended.returncode == 2
        [line] = [line for line in ended.stderr.splitlines() if "access_log" in line]
        assert "Read-only file system" in line and str(disk) in line


def test_an_access_log_whose_directory_is_gone_is_opened_anew_once_it_is_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.jsonl"
    with Server(*logging(tmp_path, path)) as server, connect(server.grpc) as stub:
        stub.Get(pb.CacheKey(key="before"))
        wait_until(lambda: path.read_text(), "a line")
        folder.rename(tmp_path / "elsewhere")
        server.wait_for_line("cannot be opened anew")
        for _ in range(200):
            assert not stub.Get(pb.CacheKey(key="k")).found
        folder.mkdir()
        server.wait_for_line("file opened anew")
        stub.Get(pb.CacheKey(key="after"))
        wait_until(lambda: path.read_text(), "a line")
        assert len(server.lines("cannot be opened anew")) == 1


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_without_file_descriptors_it_waits_for_some_and_serves_whom_it_has(port):
    with Server() as server, connect(server.grpc) as stub, contextlib.ExitStack() as stack:
        stub.Set(pb.CacheItem(key="k", value=b"v"))
        probe = http.client.HTTPConnection(server.http, timeout=10)
        stack.callback(probe.close)

        def ask(path):
            probe.request("GET", path)
            answer = probe.getresponse()
            return answer.status, answer.read().decode()

        assert ask("/live")[0] == 200
        refused = f'tiny_cache_connections_refused_total{{reason="accept_failed",transport="{port}"}} '
        lines = lambda: ask("/metrics")[1].splitlines()
        failed = lambda: next(int(line.removeprefix(refused)) for line in lines() if line.startswith(refused))
        # Few are left: those of what it has open, and five.
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 5, before[1]))
        clients = [stack.enter_context(socket.create_connection(address_of(getattr(server, port)), 10)) for _ in range(30)]
        wait_until(lambda: failed() > 0, "accept fails")
        tries, began = failed(), time.monotonic()
        for path in ("/live", "/ready", "/metrics"):
            assert ask(path)[0] == 200, path
        assert stub.Get(pb.CacheKey(key="k")).value == b"v"
        wait_until(lambda: failed() > tries + 5, "it tries again")
        # A loop that spins tries many thousand times a second.
        assert failed() - tries <= 50 * (time.monotonic() - began) + 10
        assert len(server.lines("accepting a connection failed")) <= 2
        for client in clients:
            client.close()
        with Http2(server.grpc) as client:
            assert client.call("Get", frame(pb.CacheKey(key="k").SerializeToString())).status == 0
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert fetch(server.http, "/ready").status == 200


def test_as_many_files_may_be_open_as_the_system_allows():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Server(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))) as server:
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_entries_live_as_long_as_they_are_to_whatever_the_clock_on_the_wall_says(tmp_path):
    assert FAKETIME.exists(), "libfaketime is not there: scripts/test e2e unpacks it"
    clock = tmp_path / "clock"
    step = lambda offset: (tmp_path / "new").write_text(offset) and (tmp_path / "new").rename(clock)
    step("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    # The kernel's other clock does not step.
    fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with Server(environment=fake) as server, connect(server.grpc) as stub:
        told = lambda: fetch(server.http, "/live").json()["timestamp"]
        assert abs(told() - time.time()) < 60
        began = time.monotonic()
        stub.Set(pb.CacheItem(key="short", value=b"v", ttl=2))
        stub.Set(pb.CacheItem(key="long", value=b"v", ttl=1000))
        for offset, days in (("+10d", 10), ("-10d", -10)):
            step(offset)
            assert abs(told() - time.time() - days * 86400) < 60
            assert stub.Get(pb.CacheKey(key="long")).found
            if time.monotonic() - began < 2:
                found = stub.Get(pb.CacheKey(key="short")).found
                assert found or time.monotonic() - began >= 2
        # Ten days ago: it ends all the same when its time is over.
        wait_until(lambda: not stub.Get(pb.CacheKey(key="short")).found, "its end")
        assert 2 <= time.monotonic() - began < 9
        assert stub.Get(pb.CacheKey(key="long")).found
        assert stub.Stats(pb.Empty()).size == 1
        assert fetch(server.http, "/ready").json()["uptime_seconds"] < 60
        assert fetch(server.http, "/metrics").status == 200
        assert fetch(server.http, "/history").status == 200
