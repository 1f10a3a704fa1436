"""Who floods a connection is sent away, and it shows why: table of what is sent without end, and of what comes of it."""

import select
import socket
import struct
import time

import cache_pb2 as pb
import h2.errors
import pytest
from attacker import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, HELLO, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, http2_frame
from attacks_hpack import LARGEST, NEWEST
from clients import connect
from http2 import Http2, address_of, frame
from server import Server, wait_until
from test_limits import metric, refused

PRIORITY, GOAWAY = 2, 7
MIB = 1 << 20
CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
REFUSED_STREAM = h2.errors.ErrorCodes.REFUSED_STREAM
OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 0, 8, 12
SECONDS = 20


def streams(make):
    """Bytes of a hundred streams at a time, numbered on."""
    for first in range(1, 2**30, 200):
        yield b"".join(make(stream) for stream in range(first, first + 200, 2))


def forever(data):
    while True:
        yield data


OPEN = http2_frame(HEADERS, END_HEADERS, 1, HEAD)
# What is sent, and the GOAWAY that ends it; None where the connection is closed without one.
FLOODS = {
    "resets": (
        lambda: streams(
            lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(RST_STREAM, 0, stream, bytes(4))
        ),
        None,
    ),
    # What the server itself resets a stream for is its work as well ("MadeYouReset", CVE-2025-8671).
    "streams in error": (
        lambda: streams(
            lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 2**31 - 1))
        ),
        CALM,
    ),
    "continuations": (
        lambda: forever(http2_frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 1000)),
        CALM,
    ),
    "empty continuations": (lambda: forever(http2_frame(CONTINUATION, 0, 1) * 1000), CALM),
    "an entry of the table named without end": (
        lambda: streams(lambda stream: http2_frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, HEAD + NEWEST * 1000)),
        CALM,
    ),
    "empty data": (lambda: forever(http2_frame(DATA, 0, 1) * 500), CALM),
    "pings": (lambda: forever(http2_frame(PING, 0, 0, bytes(8)) * 200), None),
    "answers to pings": (lambda: forever(http2_frame(PING, 1, 0, bytes(8)) * 200), None),
    "settings": (lambda: forever(http2_frame(SETTINGS, 0, 0) * 200), None),
    "priorities": (lambda: forever(http2_frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 9)) * 200), None),
    "unknown frames": (lambda: forever(http2_frame(99, 0, 0, b"x") * 200), None),
}
BEGINNINGS = {
    "continuations": HELLO + http2_frame(HEADERS, 0, 1, HEAD),
    "empty continuations": HELLO + http2_frame(HEADERS, 0, 1, HEAD),
    "an entry of the table named without end": HELLO + http2_frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD + LARGEST),
    "empty data": HELLO + OPEN,
}


def goaways(heard):
    """The errors of all GOAWAY frames among these bytes."""
    found, at = [], 0
    while at + 9 <= len(heard):
        size = int.from_bytes(heard[at : at + 3], "big")
        if heard[at + 3] == GOAWAY and at + 17 <= len(heard):
            found.append(int.from_bytes(heard[at + 13 : at + 17], "big"))
        at += 9 + size
    return found


def flood(server, beginning, data):
    """Sends until the server ends it; what it said meanwhile."""
    heard = b""
    with socket.create_connection(address_of(server.grpc), SECONDS) as client:
        client.sendall(beginning)
        client.setblocking(False)
        deadline = time.monotonic() + SECONDS
        left = b""
        while time.monotonic() < deadline:
            left = left or next(data)
            readable, writable, _ = select.select([client], [client], [], SECONDS)
            try:
                if readable:
                    said = client.recv(1 << 20)
                    if not said:
                        return heard
                    heard += said
                elif writable:
                    left = left[client.send(left) :]
            except ConnectionError:
                return heard
    raise AssertionError("nobody put an end to it")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_ended_and_counted(server, name):
    data, reason = FLOODS[name]
    # What a client had not taken when it was cut off may be lost, the last words too.
    for tries in range(1, 11):
        told = goaways(flood(server, BEGINNINGS.get(name, HELLO), data()))
        wait_until(lambda: refused(server, "flood") == tries, "it is counted")
        assert told in ([], [reason])
        if reason is None or told:
            break
    assert reason is None or told == [reason], "it is told why"
    assert all(line["target"].startswith("tiny_cache") for line in server.log), "strangers write nothing to the log"
    with connect(server.grpc) as stub:
        stub.Set(pb.CacheItem(key="k", value=b"v"))


def test_a_client_that_pings_as_it_is_answered_is_none(server):
    """As gRPC clients do that measure how much a connection takes."""
    ping = http2_frame(PING, 0, 0, bytes(8))
    get = lambda stream: http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(DATA, END_STREAM, stream, frame(b"\x0a\x01k"))
    with socket.create_connection(address_of(server.grpc), SECONDS) as client:
        client.sendall(HELLO + http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30)))
        heard = b""
        for number, data in zip(range(150), streams(lambda stream: get(stream) + ping)):
            client.sendall(data)
            # It waits for its answers: the end of the last stream's.
            end = struct.pack(">BBI", HEADERS, END_STREAM | END_HEADERS, 200 * number + 199)
            while end not in heard:
                said = client.recv(1 << 20)
                assert said, "it is served"
                heard += said
        assert not goaways(heard)
    assert refused(server, "flood") == 0


def test_one_stream_more_than_there_may_be_is_refused(tmp_path):
    config = tmp_path / "cache.toml"
    config.write_text('[[transport]]\nkind = "grpc"\nmax_concurrent_streams = 3\n[[transport]]\nkind = "http"\n')
    with Server("--config", config) as server, Http2(server.grpc) as client:
        held = [client.open("Set") for _ in range(3)]
        # A client that has not heard of the limit yet, or does not care.
        client.h2.remote_settings.max_concurrent_streams = 100
        client.h2.remote_settings.acknowledge()
        one_more = client.open("Set")
        assert client.answer(one_more).reset == REFUSED_STREAM
        for stream in held:
            client.send(stream, frame(pb.CacheItem(key="k", value=b"v").SerializeToString()))
            assert client.answer(stream).status == OK
        assert client.call("Get", frame(pb.CacheKey(key="k").SerializeToString())).data.endswith(b"v")


def test_what_is_too_large_or_not_there_is_counted(tmp_path):
    config = tmp_path / "cache.toml"
    config.write_text('[[transport]]\nkind = "grpc"\nmax_message = "1MiB"\n[[transport]]\nkind = "http"\n')
    with Server("--config", config) as server, Http2(server.grpc) as client:
        large = pb.CacheItem(key="k", value=bytes(MIB)).SerializeToString()
        for expected, headers, method, body, service in (
            (RESOURCE_EXHAUSTED, [], "Set", frame(large), None),
            (RESOURCE_EXHAUSTED, [("grpc-encoding", "gzip")], "Set", frame(large, compressed=1), None),
            (UNIMPLEMENTED, [], "Increment", frame(), None),
            (UNIMPLEMENTED, [], "Get", frame(), "/cache.Other/"),
            (UNIMPLEMENTED, [("grpc-encoding", "snappy")], "Get", frame(b"x", compressed=1), None),
        ):
            stream = client.open(method, headers, **({"service": service} if service else {}))
            client.send(stream, body[: 16 << 10], end=len(body) <= 16 << 10)
            assert client.answer(stream).status == expected, (method, headers)
        assert refused(server, "message_too_large") == 2
        assert refused(server, "unimplemented") == 3
        rejected = metric(server, "tiny_cache_requests_refused_total", reason="flood", transport="grpc")
        assert rejected == 0
