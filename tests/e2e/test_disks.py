"""Logs whose place fails while the server runs: read-only, full, or nobody listens."""

import contextlib
import json
import os
import signal
import subprocess

import cache_pb2 as pb
import pytest
from clients import connect, fetch
from server import BINARY, Server, clean_environment, wait_until
from test_faults import dropped, free_port, logging, small_disk

KEY = pb.CacheKey(key="k")


@contextlib.contextmanager
def read_only(folder):
    """An empty file system, read-only, over what is in a folder."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True)
    assert mounted.returncode == 0, f"mounting takes root's rights: {mounted.stderr.decode()}"
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("by", ["itself", "signal"])
def test_an_access_log_whose_disk_becomes_read_only_is_opened_anew_once_it_is_not(tmp_path, by):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.jsonl"
    with Server(*logging(tmp_path, path)) as server, connect(server.grpc) as stub:
        stub.Get(KEY)
        wait_until(lambda: path.exists() and path.read_text(), "a line")
        with read_only(folder):
            if by == "signal":
                server.signal(signal.SIGHUP)
            line = server.wait_for_line("cannot be opened anew")
            assert line["level"] == "WARN" and "Read-only file system" in line["error"]
            for _ in range(200):
                assert not stub.Get(KEY).found
            assert fetch(server.http, "/ready").status == 200
        server.wait_for_line("file opened anew")
        stub.Get(KEY)
        # The file before stayed in use meanwhile, so that no line is lost.
        wait_until(lambda: len([json.loads(line) for line in path.read_text().splitlines()]) + dropped(server) == 202, "all lines")
        assert len(server.lines("cannot be opened anew")) == 1


def started(flags, **streams):
    """A server whose log nobody reads, at free ports; its process and addresses."""
    grpc_address, http_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = [*flags, "--listen", grpc_address, "--http-listen", http_address]
    process = subprocess.Popen([BINARY, "serve", *map(str, flags)], env=clean_environment(), **streams)

    def is_ready():
        assert process.poll() is None, f"it ended: {process.returncode}"
        with contextlib.suppress(ConnectionRefusedError):
            return fetch(http_address, "/ready").status == 200

    wait_until(is_ready, "ready")
    return process, grpc_address, http_address


def test_a_log_goes_on_once_its_disk_has_room_again(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk) as remount, contextlib.ExitStack() as stack:
        path = disk / "server.log"
        log = stack.enter_context(open(path, "ab"))
        process, grpc_address, _ = started(["--log-level", "debug", "--log-format", "json"], stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        with connect(grpc_address) as stub:

            def grown():
                before = path.stat().st_size
                for _ in range(50):
                    stub.Get(KEY)
                return path.stat().st_size > before

            wait_until(lambda: not grown(), "the disk is full")
            remount("size=4m")
            wait_until(grown, "lines again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert '"message":"stopped"' in path.read_text(errors="replace")


@pytest.mark.parametrize("place", ["full disk", "closed pipe"])
def test_an_access_log_on_a_standard_output_that_takes_nothing_stops_nothing(tmp_path, place):
    if place == "full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    try:
        with Server(*logging(tmp_path, "-"), stdout=stdout) as server, connect(server.grpc) as stub:
            many = pb.MultiCacheKeyRequest(keys=[f"k{number}" for number in range(90)])

            def lost():
                stub.MultiGet(many)
                return dropped(server)

            wait_until(lost, "lines are counted as lost")
            line = server.wait_for_line("cannot be written")
            told = {"full disk": "No space left", "closed pipe": "Broken pipe"}[place]
            assert line["level"] == "WARN" and told in line["error"]
            assert len(server.lines("cannot be written")) == 1
            assert fetch(server.http, "/ready").status == 200
    finally:
        os.close(stdout)
