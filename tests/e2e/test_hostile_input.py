"""Hostile input gets a clear error or a closed connection; everybody else is served as before."""

import contextlib
import random
import re
import socket
import struct

import cache_pb2 as pb
import pytest
from clients import connect, fetch
from grpc import StatusCode
from http2 import Http2, address_of, frame
from server import Server

SEED = random.randrange(2**32)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KEY_METHODS = ["Get", "Set", "SetIfAbsent", "CompareAndSet", "Delete"]
METHODS = [*KEY_METHODS, "MultiGet", "MultiSet", "MultiDelete", "Stats"]
INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL, RESOURCE_EXHAUSTED = (
    code.value[0]
    for code in (
        StatusCode.INVALID_ARGUMENT,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.RESOURCE_EXHAUSTED,
    )
)


@pytest.fixture(scope="module")
def running():
    """One server for all of it: what one attack breaks, the next test sees."""
    print(f"seed {SEED}")
    with Server("--log-level", "debug", environment={"CACHE_MAX_VALUE_BYTES": "100000"}) as server:
        yield server


@pytest.fixture
def victim(running):
    """The server, which must serve a bystander before and after, and stay ready."""
    with connect(running.grpc) as bystander:
        item = pb.CacheItem(key="bystander", value=b"safe")
        assert bystander.Set(item).status == pb.OK
        yield running
        assert bystander.Get(pb.CacheKey(key="bystander")).value == b"safe"
    assert fetch(running.http, "/ready").status == 200
    assert running.process.poll() is None


def say(address, data, end=True):
    """Sends raw bytes; everything that comes back until the server closes or has nothing more to say."""
    with socket.create_connection(address_of(address), 10) as client:
        answer = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
            if end:
                # The server may have closed already.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            while received := client.recv(1 << 16):
                answer += received
        return answer


@pytest.mark.parametrize("key", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"ok\x80", b"\xf8\x88\x80\x80\x80"])
def test_a_key_that_is_not_utf8_is_the_callers_mistake(victim, key):
    field = b"\x0a" + bytes([len(key)]) + key
    with Http2(victim.grpc) as client:
        for method in KEY_METHODS + ["MultiGet", "MultiDelete"]:
            answer = client.call(method, frame(field))
            assert answer.status == INVALID_ARGUMENT, (method, answer.message)
        item = b"\x0a" + bytes([len(field)]) + field
        assert client.call("MultiSet", frame(item)).status == INVALID_ARGUMENT


def test_bytes_that_are_no_message_are_the_callers_mistake(victim):
    random_bytes = random.Random(SEED)
    with Http2(victim.grpc) as client:
        for message in (b"\x0a", b"\x0a\xff", b"\x0a\x05abc", b"\xff" * 11, b"\x00", b"\x0b\x0b\x0b", b"\x0d\x01"):
            for method in METHODS:
                answer = client.call(method, frame(message))
                assert answer.status == INVALID_ARGUMENT, (method, message, answer.message)
        for _ in range(100):
            message = random_bytes.randbytes(random_bytes.randrange(60))
            answer = client.call(random_bytes.choice(METHODS), frame(message))
            assert answer.status in (0, INVALID_ARGUMENT), (message, answer.message)


def test_frames_that_lie_are_told_with_the_request_id(victim):
    message = pb.CacheKey(key="k").SerializeToString()
    bodies = {
        "nothing": (b"", INTERNAL),
        "half a head": (frame(message)[:3], INTERNAL),
        "a head alone": (frame(length=10), INTERNAL),
        "a message cut short": (frame(message)[:-1], INTERNAL),
        "an unknown flag": (frame(message, compressed=7), INTERNAL),
        "packed, but nobody said how": (frame(message, compressed=1), INTERNAL),
        "four gigabytes": (frame(message, length=2**32 - 1), RESOURCE_EXHAUSTED),
    }
    with Http2(victim.grpc) as client:
        for name, (body, expected) in bodies.items():
            stream = client.open("Get", [("x-request-id", "liar")])
            client.send(stream, body)
            answer = client.answer(stream)
            assert answer.status == expected, (name, answer.message)
            assert answer.headers["x-request-id"] == "liar"
            if expected == INTERNAL:
                assert "request_id=liar" in answer.message, (name, answer.message)
        not_packed = client.call("Get", frame(b"not gzip", compressed=1), [("grpc-encoding", "gzip")])
        assert not_packed.status == INTERNAL and "request_id=" in not_packed.message
        assert client.call("Get", frame(message)).status == 0


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("/cache.CacheService/", "NoSuchMethod"),
        ("/cache.CacheService/", ""),
        ("/cache.CacheService/", "get"),
        ("/cache.CacheService", ""),
        ("/cache.NoSuchService/", "Get"),
        ("/grpc.health.v1.Health/", "NoSuchMethod"),
        ("/", ""),
        ("/Get", ""),
        ("/../../etc/passwd", ""),
        ("/cache.CacheService/Get/", "more"),
        ("/%00/", "%ff"),
    ],
)
def test_unknown_methods_are_unimplemented(victim, service, method):
    with Http2(victim.grpc) as client:
        answer = client.answer(client.open(method, service=service, end=True))
        assert answer.status == UNIMPLEMENTED
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_http2_requests_that_are_no_grpc_are_answered(victim):
    with Http2(victim.grpc) as client:
        for verb in ("GET", "PUT", "OPTIONS"):
            stream = client.open("Get", verb=verb, end=True)
            assert client.answer(stream).done


def garbage():
    """Beginnings that no port of ours speaks, by name."""
    random_bytes = random.Random(SEED)
    return {
        "zeros": bytes(4096),
        "random": random_bytes.randbytes(4096),
        "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random_bytes.randbytes(508),
        "text": b"hello?\r\n\r\n",
        "redis": b"*1\r\n$4\r\nPING\r\n",
        "endless line": b"G" * 100_000,
        "binary after a good start": b"GET / HTTP/1.1\r\n\x00\xff: \x01\r\n\r\n",
    }


@pytest.mark.parametrize("port", ["grpc", "http"])
@pytest.mark.parametrize("name", garbage())
def test_garbage_on_either_port(victim, port, name):
    answer = say(getattr(victim, port), garbage()[name])
    if port == "http":
        # An answer may get lost where the rest of the bytes meets a closed socket.
        lost = name == "endless line" and answer == b""
        assert lost or re.match(rb"HTTP/1\.1 (400|414|431) ", answer), answer


def test_random_bytes_again_and_again(victim):
    random_bytes = random.Random(SEED)
    for _ in range(100):
        say(victim.grpc, random_bytes.randbytes(random_bytes.randrange(1, 200)))
        say(victim.http, random_bytes.randbytes(random_bytes.randrange(1, 200)))
        say(victim.grpc, PREFACE + random_bytes.randbytes(random_bytes.randrange(1, 200)))


def test_each_ports_language_on_the_other_port(victim):
    request = b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert b"200 OK" not in say(victim.grpc, request, end=False)
    assert b"200 OK" not in say(victim.grpc, b"POST /cache.CacheService/Get HTTP/1.1\r\nhost: x\r\n\r\n", end=False)
    answer = say(victim.http, PREFACE + h2_frame(4, 0, 0, b""))
    assert re.match(rb"HTTP/1\.1 (400|505) ", answer) or answer == b"", answer


def h2_frame(kind, flags, stream, payload, length=None):
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


SETTINGS = h2_frame(4, 0, 0, b"")
DATA, HEADERS, PRIORITY, RST_STREAM, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 5, 6, 7, 8, 9
BROKEN_FRAMES = {
    "data on no stream": h2_frame(DATA, 0, 0, b"x"),
    "data on an idle stream": h2_frame(DATA, 0, 1, b"x"),
    "a frame over the size limit": h2_frame(DATA, 0, 1, bytes(20_000)),
    "a frame that never ends": h2_frame(HEADERS, 4, 1, b"", length=16_000),
    "headers that are no hpack": h2_frame(HEADERS, 4, 1, b"\xff" * 50),
    "an even stream": h2_frame(HEADERS, 4, 2, b"\x82"),
    "a push from a client": h2_frame(PUSH, 4, 1, bytes(4)),
    "a ping of the wrong size": h2_frame(PING, 0, 0, b"1234"),
    "an empty window update": h2_frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window beyond its limit": h2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 2,
    "a continuation of nothing": h2_frame(CONTINUATION, 4, 1, b""),
    "headers that go on and on": h2_frame(HEADERS, 0, 1, b"") + h2_frame(CONTINUATION, 0, 1, bytes(16_000)) * 100,
    "a bad setting": h2_frame(4, 0, 0, struct.pack(">HI", 4, 2**31)),
    "an unknown frame": h2_frame(200, 255, 1, b"whatever"),
    "farewell": h2_frame(GOAWAY, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("name", BROKEN_FRAMES)
def test_frames_that_break_the_rules_of_http2(victim, name):
    answer = say(victim.grpc, PREFACE + SETTINGS + BROKEN_FRAMES[name])
    # Whoever is still sending when the server closes may lose all of it with the connection (a TCP reset).
    cut_off = name == "headers that go on and on" and not answer
    assert cut_off or answer.startswith(b"\x00\x00"), "the server's own settings come first"


def test_floods_are_survived(victim):
    flood = {
        "pings": h2_frame(PING, 0, 0, bytes(8)) * 20_000,
        "settings": SETTINGS * 20_000,
    }
    for frames in flood.values():
        say(victim.grpc, PREFACE + SETTINGS + frames)
    # Streams that are opened and cancelled at once, as fast as one client can.
    with Http2(victim.grpc) as client, contextlib.suppress(OSError):
        for _ in range(2000):
            client.h2.reset_stream(client.open())
            client.flush()


def test_metadata_beyond_all_bounds_is_refused(victim):
    with Http2(victim.grpc) as client:
        answer = client.answer(client.open(headers=[("x-large", "x" * 100_000)]))
        # By HTTP/2 itself, before it is a call.
        assert client.closed or client.goaway or answer.headers[":status"] == "431", answer.headers
    for head in (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n"):
        # Whoever is still sending when the server closes may lose the answer with the connection (a TCP reset).
        assert re.match(rb"(HTTP/1\.1 (414|431) .*)?$", say(victim.http, head), re.DOTALL), head[:20]


@pytest.mark.parametrize("id", ["x" * 1000, "two words", "tab\there", "caf\u00e9"])
def test_a_request_id_that_would_spoil_the_log_is_replaced(victim, id):
    with Http2(victim.grpc) as client:
        answer = client.call("Get", frame(b"\x0a\x01k"), [("x-request-id", id)])
        assert answer.status == 0
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_namespace_that_is_no_text_is_the_callers_mistake(victim):
    with Http2(victim.grpc) as client:
        for name in ("caf\u00e9", "a\tb", "\u00ff"):
            answer = client.call("Get", frame(b"\x0a\x01k"), [("x-cache-namespace", name)])
            assert answer.status == INVALID_ARGUMENT, name


def test_a_deadline_that_is_nonsense_is_no_deadline(victim):
    with Http2(victim.grpc) as client:
        for timeout in ("", "soon", "5", "-1S", "999999999S", "1s"):
            assert client.call("Get", frame(b"\x0a\x01k"), [("grpc-timeout", timeout)]).status == 0
