"""Attacks on the wire, a table of them: what clients do that mean no good, and the server that they do it to."""

import contextlib
import gzip
import os
import socket
import ssl
import struct
import time

import bystander
import cache_pb2 as pb
import h2.exceptions
import h2.settings
import zstandard
from certificates import Files
from clients import connect
from http2 import Http2, address_of, frame
from server import Server

KIB, MIB = 1 << 10, 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4

# Between the steps of an attack, which is bounded by it.
PAUSE_SECONDS = 0.002

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


def memory_bound(connections):
    """What docs/operations.md says that the process takes at most."""
    return (
        LIMITS["max_memory"] * 1.1
        + 32 * MIB
        + 2 * LIMITS["max_in_flight_bytes"]
        + 16 * MIB
        + 2 * LIMITS["max_in_flight"] * 24 * KIB
        + LIMITS["max_in_flight_bytes"] / 4
        + connections * 256 * KIB
    )


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
    """What attacks are made of: connections that are all closed in the end."""

    def __init__(self, grpc, http, tls, stack):
        self.grpc, self.http, self.tls = grpc, http, tls
        self._stack = stack
        self.connections = 0

    def raw(self, data=HELLO, port=None, receive_buffer=None):
        self.connections += 1
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(address_of(port or self.grpc))
        self._stack.callback(client.close)
        client.sendall(data)
        client.setblocking(False)
        return client

    def http2(self, **settings):
        self.connections += 1
        client = self._stack.enter_context(Http2(self.grpc))
        if settings:
            client.h2.update_settings({getattr(h2.settings.SettingCodes, name): value for name, value in settings.items()})
            client.flush()
        return client


def say(client, data):
    """Sends what fits; whether the server still listens."""
    try:
        client.send(data)
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


def hear(client):
    """Takes what is there; whether the server still speaks."""
    try:
        return client.recv(1 << 18) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def again_and_again(data, reads=True, port="grpc", hello=HELLO):
    """An attack that repeats the same bytes, on a new connection whenever the last one was closed."""

    def attack(attacker):
        clients = []

        def step():
            if not clients:
                clients.append(attacker.raw(hello, port=getattr(attacker, port)))
            if not say(clients[0], data) or reads and not hear(clients[0]):
                clients.pop().close()

        return step

    return attack


def streams_of(make):
    """Bytes of many streams, numbered on."""

    def attack(attacker):
        state = {}

        def step():
            if not state:
                state.update(client=attacker.raw(), next=1)
            data = b"".join(make(stream) for stream in range(state["next"], state["next"] + 100, 2))
            state["next"] += 100
            if not say(state["client"], data) or not hear(state["client"]):
                state["client"].close()
                state.clear()

        return step

    return attack


def bomb(encoding, pack):
    message = pb.CacheItem(key="bomb", value=bytes(64 * MIB)).SerializeToString()
    packed = frame(pack(message), compressed=1)

    def attack(attacker):
        client = attacker.http2()

        def step():
            answer = client.call("Set", packed, [("grpc-encoding", encoding)])
            assert answer.status == 8 and "too large" in answer.message, (answer.status, answer.message)
            time.sleep(0.05)

        return step

    return attack


def zstd_bomb(message):
    return zstandard.ZstdCompressor(level=1).compress(message)


def wrong_content_types(attacker):
    client = attacker.http2()

    def step():
        for kind in ("text/plain", "application/json", "", "application/grpc-web"):
            stream = client.h2.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "http"), (":path", "/cache.CacheService/Get"), (":authority", "x")]
            client.h2.send_headers(stream, [*head, ("content-type", kind)], end_stream=True)
            client.flush()
            assert client.answer(stream).headers[":status"] == "415"

    return step


def large_heads(attacker):
    def step():
        client = attacker.http2()
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            for size in (20_000, 100_000):
                answer = client.answer(client.open(headers=[("x-large", "x" * size)], end=True))
                refused = client.closed or answer.reset is not None or answer.headers[":status"] == "431" or answer.status == 8
                assert refused, answer.headers
        client.close()

    return step


def many_fields(attacker):
    client = attacker.http2()
    fields = [(f"x-{number}", "") for number in range(600)]

    def step():
        time.sleep(0.02)
        answer = client.answer(client.open(headers=fields, end=True))
        assert answer.status == 8 and "metadata too large" in answer.message

    return step


def put_large(attacker, count=8, size=MIB):
    with connect(attacker.grpc) as stub:
        for number in range(count):
            stub.Set(pb.CacheItem(key=f"large-{number}", value=bytes(size)))


def slow_readers(window, connections, streams, size):
    """Asks for values and never reads one. `window`: what the client pretends to take of each."""

    def attack(attacker):
        put_large(attacker, size=size)
        left = [connections]
        settings = http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window))
        wide = http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))

        def step():
            if not left[0]:
                return
            left[0] -= 1
            time.sleep(0.04)
            client = attacker.raw(PREFACE + settings + wide, receive_buffer=4096)
            body = frame(pb.CacheKey(key=f"large-{left[0] % 8}").SerializeToString())
            for stream in range(1, 2 * streams, 2):
                head = http2_frame(HEADERS, END_HEADERS, stream, HEAD)
                say(client, head + http2_frame(DATA, END_STREAM, stream, body))

        return step

    return attack


def old_versions(attacker):
    """Asks for a large value that is replaced before it is read, so that each answer holds one that the cache has no more."""
    held = attacker.http2(INITIAL_WINDOW_SIZE=0)
    stub = attacker._stack.enter_context(connect(attacker.grpc))
    get = frame(pb.CacheKey(key="large").SerializeToString())

    def step():
        for _ in range(10):
            stub.Set(pb.CacheItem(key="large", value=bytes(MIB)))
            held.send(held.open(), get)

    return step


def multi_get_of_one_key(attacker):
    put_large(attacker, count=1, size=100 * KIB)
    client = attacker.http2()
    request = frame(pb.MultiCacheKeyRequest(keys=["large-0"] * 20_000).SerializeToString())

    def step():
        time.sleep(0.05)
        answer = client.call("MultiGet", request)
        assert answer.status == 8 and "in flight" in answer.message, (answer.status, answer.message)

    return step


def largest_batches(attacker):
    client = attacker.http2()
    request = frame(pb.MultiCacheKeyRequest(keys=[f"{number:x}" for number in range(LIMITS["max_batch"])]).SerializeToString())

    def step():
        for method in ("MultiGet", "MultiDelete"):
            time.sleep(0.02)
            answer = client.call(method, request)
            assert answer.status == 0, (answer.status, answer.message)

    return step


def all_at_once(method, item, count, connections=20, streams=2):
    """Batches that lack their last byte, until they get it all at the same time; nobody takes the answers."""
    request = frame(item * count)

    def attack(attacker):
        clients = []
        with connect(attacker.grpc) as stub:
            stub.Set(pb.CacheItem(key="k", value=bytes(KIB)))

        def step():
            if len(clients) < connections:
                client = attacker.http2(INITIAL_WINDOW_SIZE=0)
                client.pump()
                begun = [client.open(method) for _ in range(streams)]
                for stream in begun:
                    with contextlib.suppress(h2.exceptions.ProtocolError):
                        client.send(stream, request[:-1], end=False)
                clients.append((client, begun))
                return
            while clients:
                client, begun = clients.pop()
                for stream in begun:
                    with contextlib.suppress(h2.exceptions.ProtocolError):
                        client.send(stream, request[-1:])
            time.sleep(0.1)

        return step

    return attack


def many_items(attacker):
    client = attacker.http2()

    def step():
        for method in ("MultiGet", "MultiSet", "MultiDelete"):
            time.sleep(0.02)
            answer = client.call(method, frame(b"\x0a\x00" * 200_000))
            assert answer.status == 8 and "batch too large" in answer.message, (answer.status, answer.message)

    return step


def slow_writers(attacker):
    """Bodies that come a byte at a time and never end."""
    clients = []

    def step():
        if len(clients) < 20:
            client = attacker.http2()
            clients.append((client, [client.open("Set") for _ in range(100)]))
            for stream in clients[-1][1]:
                client.send(stream, frame(length=2 * MIB), end=False)
        client, streams = clients[int(time.monotonic() * 1000) % len(clients)]
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            for stream in streams[:10]:
                client.send(stream, b"x", end=False)

    return step


def unfinished_bodies(path):
    """Many large messages, each of which lacks its last byte."""
    begun = http2_frame(SETTINGS, 1, 0)
    for stream in (1, 3, 5, 7):
        begun += http2_frame(HEADERS, END_HEADERS, stream, head(path)) + http2_frame(DATA, 0, stream, frame(length=2 * MIB))
        begun += http2_frame(DATA, 0, stream, bytes(16 * KIB)) * 60

    def attack(attacker):
        def step():
            if attacker.connections < 40:
                client = attacker.raw()
                client.settimeout(2)
                # The windows are wide once they are known.
                client.recv(4096)
                with contextlib.suppress(OSError):
                    client.sendall(begun)
                time.sleep(0.005)

        return step

    return attack


def untaken_reflection(attacker):
    """Streams of reflection on which more is asked than may be, and no answer is taken."""
    path = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    host, symbol = b"h" * 3900, b"cache.CacheService"
    asked = frame(b"\x0a\xbc\x1e" + host + b"\x22" + bytes([len(symbol)]) + symbol) * 40
    opened = b"".join(
        http2_frame(HEADERS, END_HEADERS, stream, head(path)) + http2_frame(DATA, 0, stream, asked) for stream in range(1, 401, 2)
    )

    def step():
        if attacker.connections < 20:
            client = attacker.raw(PREFACE + http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
            client.settimeout(2)
            # The windows are wide once they are known.
            client.recv(4096)
            with contextlib.suppress(OSError):
                client.sendall(opened)

    return step


def odd_windows(attacker):
    """A value through a window that opens by one byte at a time."""
    put_large(attacker, count=1)
    client = attacker.raw(PREFACE + http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    body = frame(pb.CacheKey(key="large-0").SerializeToString())
    for stream in range(1, 101, 2):
        say(client, http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(DATA, END_STREAM, stream, body))
    updates = b"".join(http2_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1)) for stream in range(1, 101, 2))

    def step():
        say(client, updates)
        hear(client)

    return step


def silent_connections(attacker):
    def step():
        for said in (b"", PREFACE[:10], HELLO, HELLO + http2_frame(HEADERS, 0, 1, HEAD)):
            if attacker.connections < 400:
                attacker.raw(said)

    return step


def vanishing(attacker):
    """Half-open: the client is gone without a word, again and again."""

    def step():
        for said in (b"", HELLO, HELLO + http2_frame(HEADERS, END_HEADERS, 1, HEAD)):
            client = attacker.raw(said)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

    return step


def scrapes_nobody_reads(attacker):
    def step():
        if attacker.connections < 200:
            time.sleep(0.01)
            attacker.raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 3, port=attacker.http, receive_buffer=4096)

    return step


def endless_http1_heads(attacker):
    def step():
        if attacker.connections < 100:
            attacker.raw(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 50_000, port=attacker.http)

    return step


def tls_garbage(attacker):
    def step():
        for said in (os.urandom(500), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(508), HELLO, b"\x15\x03\x03\x00\x02\x02\x28"):
            client = attacker.raw(said, port=attacker.tls)
            client.close()
        # A handshake that is fine, and then frames that are none.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(OSError), socket.create_connection(address_of(attacker.tls), 5) as client:
            with context.wrap_socket(client) as secured:
                secured.sendall(os.urandom(1000))

    return step


GET = http2_frame(DATA, END_STREAM, 1, frame(pb.CacheKey(key="k").SerializeToString()))
ATTACKS = {
    "truncated frames": again_and_again(http2_frame(HEADERS, END_HEADERS, 1, HEAD, length=16_000)),
    "oversize frames": again_and_again(http2_frame(DATA, 0, 1, bytes(16_000), length=2**24 - 1)),
    "wrong content types": wrong_content_types,
    "gzip bombs": bomb("gzip", gzip.compress),
    "zstd bombs": bomb("zstd", zstd_bomb),
    "large heads": large_heads,
    "many header fields": many_fields,
    "continuations without end": again_and_again(
        http2_frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 1000) * 10, hello=HELLO + http2_frame(HEADERS, 0, 1, HEAD)
    ),
    "empty continuations without end": again_and_again(
        http2_frame(CONTINUATION, 0, 1) * 1000, hello=HELLO + http2_frame(HEADERS, 0, 1, HEAD)
    ),
    "rapid resets": streams_of(
        lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(RST_STREAM, 0, stream, bytes(4))
    ),
    "streams without end": streams_of(lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD)),
    "streams in error": streams_of(
        lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 2**31 - 1))
    ),
    "settings": again_and_again(http2_frame(SETTINGS, 0, 0) * 200),
    "settings, unread": again_and_again(http2_frame(SETTINGS, 0, 0) * 200, reads=False),
    "settings of many streams": again_and_again(
        (http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1)) + http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2))) * 100,
        hello=HELLO + b"".join(http2_frame(HEADERS, END_HEADERS, stream, HEAD) for stream in range(1, 1001, 2)),
    ),
    "pings": again_and_again(http2_frame(PING, 0, 0, bytes(8)) * 200),
    "pings, unread": again_and_again(http2_frame(PING, 0, 0, bytes(8)) * 200, reads=False),
    "empty data": again_and_again(http2_frame(DATA, 0, 1) * 500, hello=HELLO + http2_frame(HEADERS, END_HEADERS, 1, HEAD)),
    "window of single bytes": odd_windows,
    "window updates": again_and_again(http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 500),
    "window beyond its limit": again_and_again(http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 2),
    "unread large values": slow_readers(2**31 - 1, connections=20, streams=50, size=MIB),
    "unread small values": slow_readers(2**31 - 1, connections=20, streams=1000, size=4000),
    "small values through a window of one byte": slow_readers(1, connections=20, streams=1000, size=4000),
    "unread middling values": slow_readers(2**31 - 1, connections=20, streams=300, size=12 * KIB),
    "untaken values": slow_readers(0, connections=20, streams=300, size=12 * KIB),
    "values through a window of one byte": slow_readers(1, connections=20, streams=100, size=12 * KIB),
    "old versions of a value": old_versions,
    "one key many times": multi_get_of_one_key,
    "as many items as may be": largest_batches,
    "too many items": many_items,
    "many answers made at once": all_at_once("MultiGet", b"\x0a\x01k", 7 * KIB, streams=1),
    "many batches at once": all_at_once("MultiDelete", b"\x0a\x01k", LIMITS["max_batch"]),
    "many batches of no keys at once": all_at_once("MultiSet", b"\x0a\x00", LIMITS["max_batch"]),
    "bodies byte by byte": slow_writers,
    "bodies never finished": unfinished_bodies(b"/cache.CacheService/Get"),
    "health checks never finished": unfinished_bodies(b"/grpc.health.v1.Health/Check"),
    "reflection never finished": unfinished_bodies(b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    "reflection never taken": untaken_reflection,
    "silence": silent_connections,
    "clients that vanish": vanishing,
    "unread scrapes": scrapes_nobody_reads,
    "heads never finished over HTTP/1": endless_http1_heads,
    "TLS garbage": tls_garbage,
    "HTTP/1 on the gRPC port": again_and_again(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n", hello=b""),
    "HTTP/2 on the HTTP port": again_and_again(HELLO + http2_frame(HEADERS, END_HEADERS, 1, HEAD) + GET, port="http", hello=b""),
    "TLS on the gRPC port": again_and_again(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508), hello=b""),
}


def play(name, attacker, seconds, pause=PAUSE_SECONDS):
    """Makes an attack go on for so long; when it began and ended."""
    begin = time.monotonic()
    step = ATTACKS[name](attacker)
    while time.monotonic() < begin + seconds:
        step()
        time.sleep(pause)
    return begin, time.monotonic()
