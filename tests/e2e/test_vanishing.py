"""Clients whose machine is gone from one moment to the next: no FIN, no RST, and nobody there to answer a packet."""

import contextlib
import functools
import pathlib
import re
import signal
import ssl
import time

import cache_pb2 as pb
import pytest
from certificates import Files, trusting
from clients import Load, fetch
from http2 import Http2, address_of, frame
from network import joined, vanish
from server import Server, wait_until

# Its clients have to answer pings within moments, and are made of Python.
pytestmark = pytest.mark.alone

SERVES, STAYS, VANISHES = "192.0.2.1", "192.0.2.2", "192.0.2.3"
GET = frame(pb.CacheKey(key="k").SerializeToString())
GET_LARGE = frame(pb.CacheKey(key="large").SerializeToString())
LARGE = frame(pb.CacheItem(key="large", value=bytes(16 << 20)).SerializeToString())
SCRAPE = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"

TRANSPORT = """
[[transport]]
kind = "{kind}"
listen = "192.0.2.1:0"
handshake_timeout = "3s"
request_timeout = "3s"
"""
GRPC = TRANSPORT.format(kind="grpc") + """
keepalive_interval = {keepalive_interval}
keepalive_timeout = "1500ms"
"""
TLS = """
[transport.tls]
cert = "{cert}"
key = "{key}"
"""
CONFIG = GRPC + GRPC + TLS + TRANSPORT.format(kind="http")
# What each of the guards above lets go within, and what a busy machine may add. They leave it the time to make all connections.
WITHIN_SECONDS = 3 + 3


class Clients:
    """Connections in every state that a machine may leave one in."""

    def __init__(self, server, connect):
        self._server, self._connect = server, connect

    def http2(self, tls=False, receive_buffer=None):
        wrap = trusting().wrap_socket if tls else lambda plain: plain
        connect = functools.partial(self._connect, receive_buffer=receive_buffer)
        return Http2(self._server.tls if tls else self._server.grpc, wrap=wrap, connect=connect)

    def silent(self):
        return self._connect(address_of(self._server.grpc))

    def idle(self, tls=False):
        client = self.http2(tls)
        assert client.call("Get", GET).status == 0
        return client.socket

    def hello(self, length=None):
        """A TLS handshake that goes no further than its first message, or as much of it."""
        plain, sent = self._connect(address_of(self._server.tls)), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            trusting().wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
        plain.sendall(sent.read()[:length])
        if length is None:
            assert plain.recv(1) == b"\x16"
        return plain

    def large_answer(self, tls=False):
        """Some of it has been read."""
        client = self.http2(tls, receive_buffer=1 << 16)
        client.h2.increment_flow_control_window(1 << 30)
        client.h2.update_settings({4: 1 << 30})
        client.flush()
        stream = client.open()
        client.send(stream, GET_LARGE)
        client.pump_until(lambda: client.streams[stream].data)
        return client.socket

    def asking(self):
        """The server is not yet to know what it is asked."""
        client = self.http2()
        assert client.call("Get", GET).status == 0
        self._server.signal(signal.SIGSTOP)
        threads = list(pathlib.Path(f"/proc/{self._server.process.pid}/task").iterdir())
        is_stopped = lambda thread: (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
        wait_until(lambda: all(map(is_stopped, threads)), "every thread has stopped")
        client.send(client.open(), GET)
        return client.socket

    def half_a_message(self):
        client = self.http2()
        client.send(client.open("Set"), LARGE[: 1 << 18], end=False)
        return client.socket

    def watch(self):
        client = self.http2()
        stream = client.open("Watch", service="/grpc.health.v1.Health/")
        client.send(stream, frame())
        client.pump_until(lambda: client.streams[stream].data)
        return client.socket

    def http1(self, said, receive_buffer=None):
        client = self._connect(address_of(self._server.http), receive_buffer=receive_buffer)
        client.sendall(said)
        return client

    def http1_idle(self):
        client = self.http1(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        return client

    def http1_unread(self):
        client = self.http1(SCRAPE * 1000, receive_buffer=4096)
        assert client.recv(1)
        return client

    def all(self):
        return {
            "silent": self.silent(),
            "gRPC, idle": self.idle(),
            "gRPC, idle, TLS": self.idle(tls=True),
            "gRPC, half a message": self.half_a_message(),
            "gRPC, large answer": self.large_answer(),
            "gRPC, large answer, TLS": self.large_answer(tls=True),
            "gRPC, watching": self.watch(),
            "TLS, half a hello": self.hello(100),
            "TLS, hello": self.hello(),
            "HTTP/1, idle": self.http1_idle(),
            "HTTP/1, half a head": self.http1(SCRAPE[:-2]),
            "HTTP/1, answers unread": self.http1_unread(),
        }


@pytest.fixture
def machines():
    with joined(SERVES, STAYS, VANISHES) as both:
        yield both


@contextlib.contextmanager
def started(tmp_path, authority, machine, **options):
    files = Files(tmp_path, authority)
    config = tmp_path / "cache.toml"
    config.write_text(CONFIG.format(cert=files.cert, key=files.key, **options))
    with Server("--config", config, listen=False, enter=machine.enter) as server:
        server.grpc, server.tls = server.grpc.split(", ")
        yield server


def sockets_to_vanished(server):
    """Of each: the port at the vanished machine, the bytes that it has not acknowledged, and whether it is still the server's (or the
    kernel's alone, which goes on trying to send what is left of one that was closed)."""
    lines = pathlib.Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    vanished = "".join(f"{int(number):02X}" for number in reversed(VANISHES.split(".")))
    sockets = [line.split() for line in lines]
    return [
        (int(port, 16), int(queues.split(":")[0], 16), inode != "0")
        for _, _, remote, _, queues, _, _, _, _, inode, *_ in sockets
        for address, _, port in [remote.partition(":")]
        if address == vanished
    ]


def peers_of(server):
    return {port for port, _, is_open in sockets_to_vanished(server) if is_open}


def told(server, connect, names):
    text = fetch(server.http, "/metrics", connect=connect).body.decode()
    return {name: float(value) for name, value in re.findall(rf"^((?:{names})\S*) (\S+)$", text, re.MULTILINE)}


def held(server, connect):
    """What /metrics tells of connections, requests and descriptors, the scrape's own among them, and of the runtime's tasks."""
    names = "connections_open|requests_in_flight|requests_held_bytes|runtime_tasks"
    return told(server, connect, f"tiny_cache_(?:{names})|process_open_fds")


def seconds_held(server, clients, within):
    """How long the server keeps its end of each connection, or `None` where it still does after so many seconds."""
    ports = {client.getsockname()[1]: name for name, client in clients.items()}
    began, let_go = time.monotonic(), dict.fromkeys(clients)
    while None in let_go.values() and (passed := time.monotonic() - began) < within:
        left = peers_of(server)
        let_go |= {name: passed for port, name in ports.items() if port not in left and let_go[name] is None}
        time.sleep(0.02)
    return let_go


def test_connections_of_a_machine_that_vanished_are_let_go_whatever_they_were_in_the_middle_of(tmp_path, authority, machines):
    server_machine, clients_machine = machines
    stays = functools.partial(clients_machine.connect, source=STAYS)
    with started(tmp_path, authority, server_machine, keepalive_interval='"1500ms"') as server:
        with Http2(server.grpc, connect=stays) as setter:
            assert setter.call("Set", LARGE).status == 0

        def answered(client):
            assert client.call("Get", GET).status == 0

        @contextlib.contextmanager
        def session():
            with Http2(server.grpc, timeout=2, connect=stays) as client:
                yield lambda: answered(client)

        with Load(session, clients=2) as others:
            # The others may have a call in flight, whose parts come and go one after another.
            at_rest = [held(server, stays) for _ in range(20)]
            clients = Clients(server, functools.partial(clients_machine.connect, source=VANISHES)).all()
            assert peers_of(server) == {client.getsockname()[1] for client in clients.values()}
            vanish(clients_machine, VANISHES)
            seconds = seconds_held(server, clients, WITHIN_SECONDS)
            assert None not in seconds.values(), seconds
            others.wait_for_more()
            wait_until(lambda: held(server, stays) in at_rest, f"everything is as it was, {at_rest}")
            unsent = lambda: sum(unsent for _, unsent, _ in sockets_to_vanished(server))
            wait_until(lambda: unsent() < 1000, "the kernel holds none of the answers either", WITHIN_SECONDS)
        for client in clients.values():
            client.close()


def test_what_was_sent_and_never_acknowledged_ends_a_connection_without_pings(tmp_path, authority, machines):
    server_machine, clients_machine = machines
    with started(tmp_path, authority, server_machine, keepalive_interval='"off"') as server:
        stays = functools.partial(clients_machine.connect, source=STAYS)
        with Http2(server.grpc, connect=stays) as setter:
            assert setter.call("Set", LARGE).status == 0
        all_of_them = Clients(server, functools.partial(clients_machine.connect, source=VANISHES))
        idle = {"gRPC, idle": all_of_them.idle(), "gRPC, watching": all_of_them.watch()}
        owed = {"gRPC, large answer": all_of_them.large_answer(), "gRPC, asking": all_of_them.asking()}
        # They are to be owed nothing, and a machine takes its time to acknowledge what it got.
        ports = {client.getsockname()[1] for client in idle.values()}
        wait_until(lambda: not any(unsent for port, unsent, _ in sockets_to_vanished(server) if port in ports), "all is acknowledged")
        vanish(clients_machine, VANISHES)
        server.signal(signal.SIGCONT)
        seconds = seconds_held(server, owed, WITHIN_SECONDS)
        assert None not in seconds.values(), seconds
        refused = told(server, stays, "tiny_cache_requests_refused_total")
        assert {name: count for name, count in refused.items() if count} == {
            'tiny_cache_requests_refused_total{reason="not_taken",transport="grpc"}': len(owed)
        }
        # Nothing is there that could tell them from clients that have nothing to say.
        assert peers_of(server) == ports
        for client in (idle | owed).values():
            client.close()
