"""Attacks over HTTP/2, a table of them."""

import contextlib
import gzip
import socket
import struct
import time

import cache_pb2 as pb
import h2.exceptions
import zstandard
from attacker import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    HELLO,
    KIB,
    LIMITS,
    MIB,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    again_and_again,
    head,
    hear,
    http2_frame,
    say,
    streams_of,
)
from clients import connect
from http2 import frame


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
    stub = attacker.stack.enter_context(connect(attacker.grpc))
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
                with contextlib.suppress(OSError):
                    client.recv(4096)
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
            with contextlib.suppress(OSError):
                client.recv(4096)
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
    "HTTP/1 on the gRPC port": again_and_again(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n", hello=b""),
    "HTTP/2 on the HTTP port": again_and_again(HELLO + http2_frame(HEADERS, END_HEADERS, 1, HEAD) + GET, port="http", hello=b""),
    "TLS on the gRPC port": again_and_again(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508), hello=b""),
}
