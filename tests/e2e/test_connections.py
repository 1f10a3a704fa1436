"""Connections: many at once, old ones, silent ones, and clients that vanish."""

import contextlib
import os
import socket
import struct
import time

import cache_pb2 as pb
import pytest
from clients import Load, connect, fetch, metrics_of
from http2 import Http2, address_of, frame
from server import Server, wait_until
from test_limits import metric

GET = frame(pb.CacheKey(key="k").SerializeToString())
VALUE = b"v" * 100


@pytest.fixture
def configured(tmp_path):
    """Starts a server whose both transports have these keys."""

    @contextlib.contextmanager
    def start(keys):
        config = tmp_path / "cache.toml"
        config.write_text(f'[[transport]]\nkind = "grpc"\n{keys}\n[[transport]]\nkind = "http"\n{keys}\n')
        with Server("--config", config) as server:
            yield server

    return start


def in_flight(server):
    return fetch(server.http, "/health").json()["active_requests"]


def vanish(client):
    """Closes a socket by a reset, as a client does that dies."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_thousand_connections_at_once_are_all_answered(many_files):
    count = 1000
    with Server() as server, contextlib.ExitStack() as stack:
        with connect(server.grpc) as stub:
            stub.Set(pb.CacheItem(key="k", value=VALUE))
        clients = [stack.enter_context(Http2(server.grpc)) for _ in range(count)]
        others = [stack.enter_context(socket.create_connection(address_of(server.http), 10)) for _ in range(100)]
        # Every request is on its way before the first answer is read.
        streams = [client.open() for client in clients]
        for client, stream in zip(clients, streams):
            client.send(stream, GET)
        for other in others:
            other.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        expected = frame(pb.CacheValue(found=True, value=VALUE).SerializeToString())
        for client, stream in zip(clients, streams):
            answer = client.answer(stream)
            assert (answer.status, answer.data) == (0, expected)
        for other in others:
            assert other.recv(15) == b"HTTP/1.1 200 OK"
        # They are all still there, at the same time.
        assert len(os.listdir(f"/proc/{server.process.pid}/fd")) > count + len(others)
        for client in clients:
            assert client.call("Get", GET).data == expected


def test_one_connection_more_than_allowed_is_closed_at_once(configured):
    with configured("max_connections = 3") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Http2(server.grpc)) for _ in range(3)]
        assert all(client.call("Get", GET).status == 0 for client in clients)
        with socket.create_connection(address_of(server.grpc), 10) as refused:
            assert refused.recv(1) == b""
        assert all(client.call("Get", GET).status == 0 for client in clients)
        total = lambda transport: metric(server, "tiny_cache_connections_refused_total", reason="too_many", transport=transport)
        assert (total("grpc"), total("http")) == (1, 0)
        clients[0].close()

        def finds_a_place():
            with contextlib.suppress(OSError), Http2(server.grpc) as client:
                return client.call("Get", GET).headers is not None
            return False

        wait_until(finds_a_place, "the place is free again")


def test_no_more_calls_at_once_than_a_connection_may_have(configured):
    with configured("max_concurrent_streams = 7") as server, Http2(server.grpc) as client:
        client.call("Get", GET)
        assert client.h2.remote_settings.max_concurrent_streams == 7


def test_an_old_connection_is_asked_to_go_and_nobody_notices(configured):
    @contextlib.contextmanager
    def session():
        with connect(server.grpc) as stub:
            yield lambda: stub.Get(pb.CacheKey(key="k"))

    with configured('max_connection_age = "1s"\nmax_connection_age_grace = "10s"') as server:
        began = time.monotonic()
        with Http2(server.grpc) as client, Load(session, clients=4) as load:
            held = client.open()
            client.pump_until(lambda: client.goaway)
            assert 0.9 <= time.monotonic() - began < 5
            # What is in flight has its time.
            assert client.goaway.error_code == 0
            client.send(held, GET)
            assert client.answer(held).status == 0
            client.pump_until(lambda: client.closed)
            # Theirs began after ours, and are older than allowed by now.
            with Http2(server.grpc) as other:
                other.pump_until(lambda: other.goaway)
            load.wait_for_more()
        assert not load.errors


def test_what_an_old_connection_has_in_flight_ends_with_the_grace(configured):
    with configured('max_connection_age = "1s"\nmax_connection_age_grace = "100ms"') as server:
        with Http2(server.grpc) as client:
            client.open()
            client.pump_until(lambda: client.closed)
            assert client.goaway
        wait_until(lambda: in_flight(server) == 0, "the request is forgotten")


@pytest.mark.parametrize(
    ("port", "said"),
    [("grpc", b""), ("grpc", b"PRI * HT"), ("http", b""), ("http", b"PRI * HT"), ("http", b"GET /live HTTP/1.1\r\nhost: x\r\n")],
)
def test_a_client_that_never_finishes_its_first_words_is_closed(configured, port, said):
    with configured('handshake_timeout = "300ms"') as server:
        with socket.create_connection(address_of(getattr(server, port)), 10) as silent:
            silent.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                while silent.recv(4096):
                    pass
        assert fetch(server.http, "/ready").status == 200


def test_a_peer_that_does_not_answer_pings_is_closed(configured):
    with configured('keepalive_interval = "100ms"\nkeepalive_timeout = "100ms"') as server:
        with Http2(server.grpc) as dead:
            dead.open()
            # The dead one reads what comes and says nothing more, until it is cut off.
            with contextlib.suppress(ConnectionResetError):
                while dead.socket.recv(4096):
                    pass
        wait_until(lambda: in_flight(server) == 0, "the request is forgotten")


def test_clients_that_vanish_in_the_middle_leave_nothing_behind(server):
    large = pb.CacheItem(key="large", value=bytes(8 << 20)).SerializeToString()
    tasks = lambda: metrics_of(server.http)["tiny_cache_runtime_tasks"]
    at_rest = tasks()
    with connect(server.grpc) as stub:
        stub.Set(pb.CacheItem.FromString(large))
    ways = {
        "after the head": lambda client: client.open("Set"),
        "within the frame's head": lambda client: client.send(client.open("Set"), frame(large)[:3], end=False),
        "within the message": lambda client: client.send(client.open("Set"), frame(large)[:1000], end=False),
        "before the answer": lambda client: client.send(client.open("Get"), GET),
        "without reading a large answer": lambda client: client.send(client.open("Get"), frame(b"\x0a\x05large")),
        "by cancelling": lambda client: client.h2.reset_stream(client.open("Set")) or client.flush(),
    }
    for way, go in ways.items():
        for _ in range(10):
            client = Http2(server.grpc)
            go(client)
            vanish(client.socket)
    for _ in range(10):
        client = socket.create_connection(address_of(server.http), 10)
        client.sendall(b"GET /metrics HTTP/1.1\r\nhost:")
        vanish(client)
    wait_until(lambda: in_flight(server) == 0, "the requests are forgotten")
    # Half a message is no message.
    with connect(server.grpc) as stub:
        assert stub.Stats(pb.Empty()).size == 1
        assert stub.Get(pb.CacheKey(key="large")).found
    files = f"/proc/{server.process.pid}/fd"
    wait_until(lambda: len(os.listdir(files)) < 60, "their sockets are closed")
    wait_until(lambda: tasks() <= at_rest, "their tasks have ended")
    with contextlib.ExitStack() as open_ones:
        for _ in range(10):
            open_ones.enter_context(socket.create_connection(address_of(server.grpc), 10))
        wait_until(lambda: tasks() >= at_rest + 10, "each connection has a task")


def test_a_client_that_half_closes_still_gets_its_answer(server):
    with socket.create_connection(address_of(server.http), 10) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 OK")
