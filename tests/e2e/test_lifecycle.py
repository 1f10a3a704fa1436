"""The life of the process: it starts or says why not, is told to stop, and loses nobody's request."""

import contextlib
import signal
import socket
import time

import cache_pb2 as pb
import grpc
import pytest
from clients import Load, connect, fetch
from http2 import Http2, address_of, frame
from server import Server, run, wait_until

# By itself grpcio sends the socket's path as authority, which is none, and h2 refuses it (hyperium/h2#487).
UNIX = [("grpc.default_authority", "localhost")]

GET = frame(pb.CacheKey(key="k").SerializeToString())


def test_the_start_up_line_names_listeners_policy_and_limits():
    with Server("--policy", "sieve", "--max-items", "5", "--max-memory", "2MiB") as server:
        line = server.started
        for name in ("grpc", "http"):
            host, port = address_of(line[name])
            assert host == "127.0.0.1" and port > 0
        told = (line["policy"], line["max_items"], line["max_memory_bytes"], line["max_value_bytes"])
        assert told == ("sieve", 5, 2 << 20, 2 << 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_zero(number):
    with Server() as server:
        server.signal(number)
        assert server.wait(timeout=10) == 0
    assert server.wait_for_line("stopped")["aborted_connections"] == 0


@pytest.mark.parametrize("taken", ["grpc", "http"])
def test_a_port_in_use_is_one_line_and_no_half_start(server, taken):
    flags = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"} | {taken: getattr(server, taken)}
    ended = run("serve", "--listen", flags["grpc"], "--http-listen", flags["http"])
    assert ended.returncode not in (0, None)
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "already in use" in ended.stderr and getattr(server, taken) in ended.stderr


def test_an_address_of_another_machine_is_one_line():
    ended = run("serve", "--listen", "192.0.2.1:0", "--http-listen", "127.0.0.1:0")
    assert ended.returncode != 0 and len(ended.stderr.splitlines()) == 1 and "192.0.2.1" in ended.stderr


def test_no_request_that_was_accepted_fails_when_the_server_stops_under_load():
    @contextlib.contextmanager
    def session():
        with connect(server.grpc) as stub:
            yield lambda: stub.Set(pb.CacheItem(key="k", value=b"v" * 100))

    with Server(kept=True) as server:
        with Load(session, clients=16) as load:
            server.signal(signal.SIGTERM)
            load.join()
        assert server.wait(timeout=10) == 0
    # Each client went on until it found nobody to connect to, and none was turned away before.
    assert len(load.errors) == 16
    for error in load.errors:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert "Connection refused" in error.details(), error


def test_every_request_before_the_last_word_is_answered():
    """GOAWAY names the last request that the server takes: that and all before must be answered."""
    with Server() as server, Http2(server.grpc) as client:
        opened = []
        while not client.goaway:
            if len(opened) == 200:
                server.signal(signal.SIGTERM)
            stream = client.open()
            client.send(stream, GET)
            opened.append(stream)
            if len(opened) >= 200 or len(opened) - sum(client.streams[s].done for s in opened) > 50:
                client.pump()
        # The first GOAWAY is a warning; the last one, before the connection ends, is what counts.
        client.pump_until(lambda: client.closed)
        taken = [stream for stream in opened if stream <= client.goaway.last_stream_id]
        assert len(taken) >= 200
        assert all(client.streams[stream].status == 0 for stream in taken)
        assert server.wait(timeout=10) == 0


def is_refused(address):
    try:
        socket.create_connection(address_of(address), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_request_in_flight_is_waited_for_while_nobody_new_is_let_in():
    with Server(kept=True) as server, Http2(server.grpc) as client:
        held = client.open("Set")
        client.call("Stats", frame())
        server.signal(signal.SIGTERM)
        client.pump_until(lambda: client.goaway)
        # Who is connected may hear of it a moment before the port is closed.
        wait_until(lambda: is_refused(server.grpc), "nobody new is let in")
        assert server.process.poll() is None
        client.send(held, frame(pb.CacheItem(key="k", value=b"v").SerializeToString()))
        assert client.answer(held).status == 0
        assert server.wait(timeout=10) == 0
    assert server.wait_for_line("stopped")["aborted_connections"] == 0


def test_one_that_takes_longer_than_the_grace_is_cut_off(tmp_path):
    config = tmp_path / "cache.toml"
    config.write_text('[server]\nshutdown_grace = "200ms"\n')
    with Server("--config", config) as server, Http2(server.grpc) as client:
        client.open("Set")
        client.call("Stats", frame())
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
        assert time.monotonic() - began >= 0.2
    assert server.wait_for_line("stopped")["aborted_connections"] == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(second):
    server = Server()
    try:
        with Http2(server.grpc) as client:
            client.open("Set")
            client.call("Stats", frame())
            server.signal(signal.SIGTERM)
            server.wait_for_line("stopping")
            server.signal(second)
            assert server.wait(timeout=5) == 128 + second
    finally:
        server.stop()


def test_the_service_manager_is_told(tmp_path):
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(10)
        with Server(environment={"NOTIFY_SOCKET": name}) as server:
            assert manager.recv(1024).split() == [b"READY=1"]
            assert fetch(server.http, "/ready").status == 200
            with Http2(server.grpc) as client:
                held = client.open()
                client.call("Stats", frame())
                server.signal(signal.SIGTERM)
                # It is told at once, not when all is over.
                assert manager.recv(1024).split() == [b"STOPPING=1"]
                assert server.process.poll() is None
                client.send(held, GET)
                assert client.answer(held).status == 0
            assert server.wait(timeout=10) == 0


def test_a_service_manager_that_is_gone_hurts_nobody(tmp_path):
    with Server(environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as server:
        assert fetch(server.http, "/ready").status == 200
        assert server.wait_for_line("cannot notify")["level"] == "WARN"


def test_a_unix_socket_serves_and_goes_with_the_server(tmp_path):
    path = tmp_path / "cache.sock"
    listen = ["--listen", f"unix:{path}", "--http-listen", "127.0.0.1:0"]
    with Server(*listen, listen=False) as server:
        assert server.grpc == f"unix:{path}" and path.is_socket()
        with connect(f"unix:{path}", options=UNIX) as stub:
            stub.Set(pb.CacheItem(key="k", value=b"v"))
            assert stub.Get(pb.CacheKey(key="k")).value == b"v"
        assert fetch(server.http, "/").json()["grpc_port"] is None
        # Another server does not take it away.
        ended = run("serve", *listen)
        assert ended.returncode != 0 and str(path) in ended.stderr and "in use" in ended.stderr
        assert path.is_socket()
    assert not path.exists()


def test_a_socket_that_was_left_behind_is_replaced_and_any_other_file_is_not(tmp_path):
    path = tmp_path / "cache.sock"
    server = Server("--listen", f"unix:{path}", "--http-listen", "127.0.0.1:0", listen=False)
    server.signal(signal.SIGKILL)
    server.wait()
    assert path.is_socket()
    with Server("--listen", f"unix:{path}", "--http-listen", "127.0.0.1:0", listen=False):
        with connect(f"unix:{path}", options=UNIX) as stub:
            assert stub.Stats(pb.Empty()).size == 0
    path.write_text("precious")
    ended = run("serve", "--listen", f"unix:{path}", "--http-listen", "127.0.0.1:0")
    assert ended.returncode != 0 and "not a socket" in ended.stderr
    assert path.read_text() == "precious"
    ended = run("serve", "--listen", f"unix:{tmp_path}/none/cache.sock", "--http-listen", "127.0.0.1:0")
    assert ended.returncode != 0 and "does not exist" in ended.stderr


def test_a_second_server_starts_where_the_first_one_was():
    with Server(kept=True) as first:
        pass
    with Server("--listen", first.grpc, "--http-listen", first.http, listen=False) as second:
        assert second.grpc == first.grpc
        wait_until(lambda: fetch(second.http, "/ready").status == 200, "ready")
