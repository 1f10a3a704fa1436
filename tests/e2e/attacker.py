"""What attacks are made of: bytes that no client of good will sends, connections to send them on, and the server that it is done to."""

import contextlib
import socket
import ssl
import struct

import bystander
import cache_pb2 as pb
import h2.settings
from certificates import Files, trusting
from clients import connect
from http2 import Http2, address_of
from server import Server

KIB, MIB = 1 << 10, 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4

LIMITS = {"max_memory": 16 * MIB, "max_in_flight_bytes": 8 * MIB, "max_in_flight": 500, "max_message": 3 * MIB, "max_batch": 25_000}
CONFIG = f"""
[store]
max_items = "unlimited"
max_memory = {LIMITS["max_memory"]}
max_value = {MIB}
[[transport]]
kind = "grpc"
listen = "127.0.0.1:0"
max_in_flight = {LIMITS["max_in_flight"]}
max_in_flight_bytes = {LIMITS["max_in_flight_bytes"]}
max_batch = {LIMITS["max_batch"]}
[[transport]]
kind = "http"
listen = "127.0.0.1:0"
"""
TLS = """
[[transport]]
kind = "grpc"
listen = "127.0.0.1:0"
[transport.tls]
cert = "{cert}"
key = "{key}"
"""


def http2_frame(kind, flags, stream, payload=b"", length=None):
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


HELLO = PREFACE + http2_frame(SETTINGS, 0, 0)


def head(path):
    """A call's head, without a table of names to keep."""
    fields = [(b":path", path), (b":authority", b"x"), (b"content-type", b"application/grpc")]
    return b"\x83\x86" + b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields
    )


HEAD = head(b"/cache.CacheService/Get")


@contextlib.contextmanager
def victim(folder, authority, **options):
    """A server with a plain port, one for HTTP and one with TLS, and with a value for a bystander to read."""
    files = Files(folder, authority)
    config = folder / "cache.toml"
    config.write_text(CONFIG + TLS.format(cert=files.cert, key=files.key))
    with Server("--config", config, listen=False, **options) as server:
        server.grpc, server.tls = server.grpc.split(", ")
        with connect(server.grpc) as stub:
            stub.Set(pb.CacheItem(key=bystander.KEY, value=bystander.VALUE))
        yield server


class Attacker:
    """Who attacks, and on what: connections that are all closed in the end."""

    def __init__(self, grpc, http, tls, stack):
        self.grpc, self.http, self.tls = grpc, http, tls
        self.stack = stack
        self.connections = 0
        self._secures = False

    def through_tls(self):
        """From now on what is raw goes through TLS."""
        self._secures = True

    def raw(self, data=HELLO, port=None, receive_buffer=None):
        self.connections += 1
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.stack.callback(client.close)
        client.connect(address_of(port or (self.tls if self._secures else self.grpc)))
        if self._secures:
            client = trusting().wrap_socket(client)
            self.stack.callback(client.close)
        client.sendall(data)
        client.setblocking(False)
        return client

    def http2(self, **settings):
        self.connections += 1
        client = self.stack.enter_context(Http2(self.grpc))
        if settings:
            client.h2.update_settings({getattr(h2.settings.SettingCodes, name): value for name, value in settings.items()})
            client.flush()
        return client


def say(client, data):
    """Sends what fits; whether the server still listens."""
    try:
        client.send(data)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    except OSError:
        return False
    return True


def hear(client):
    """Takes what is there; whether the server still speaks."""
    try:
        return client.recv(1 << 18) != b""
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    except OSError:
        return False


def again_and_again(data, reads=True, port=None, hello=HELLO):
    """An attack that repeats the same bytes, on a new connection whenever the last one was closed."""

    def attack(attacker):
        clients = []

        def step():
            if not clients:
                clients.append(attacker.raw(hello, port=port and getattr(attacker, port)))
            if not say(clients[0], data) or reads and not hear(clients[0]):
                clients.pop().close()

        return step

    return attack


def streams_of(make, hello=HELLO, first=1, at_a_time=50):
    """Bytes of many streams, numbered on."""

    def attack(attacker):
        state = {}

        def step():
            if not state:
                state.update(client=attacker.raw(hello), next=first)
            end = state["next"] + 2 * at_a_time
            data = b"".join(make(stream) for stream in range(state["next"], end, 2))
            state["next"] = end
            if not say(state["client"], data) or not hear(state["client"]):
                state["client"].close()
                state.clear()

        return step

    return attack
