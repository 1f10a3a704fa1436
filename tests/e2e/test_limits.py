"""Limits on what requests hold: whoever is over one hears so at once, it is counted, and there is room again afterwards."""

import contextlib
import pathlib
import re
import socket

import cache_pb2 as pb
import pytest
from attacker import END_HEADERS, HEAD, HEADERS, HELLO, SETTINGS, http2_frame
from attacks_hpack import MANY_NAMES
from clients import connect, fetch
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from http2 import Http2, address_of, frame
from server import Server, wait_until

KIB, MIB = 1 << 10, 1 << 20
GET = frame(pb.CacheKey(key="k").SerializeToString())
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE = (
    code.value[0]
    for code in (
        StatusCode.OK,
        StatusCode.INVALID_ARGUMENT,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.NOT_FOUND,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.UNAVAILABLE,
    )
)


@pytest.fixture
def limited(tmp_path):
    """Starts a server whose gRPC transport has these keys."""

    @contextlib.contextmanager
    def start(keys, http=""):
        config = tmp_path / "cache.toml"
        config.write_text(f'[[transport]]\nkind = "grpc"\n{keys}\n[[transport]]\nkind = "http"\n{http}\n')
        with Server("--config", config) as server:
            yield server

    return start


def metric(server, name, **labels):
    labels = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    text = fetch(server.http, "/metrics").body.decode()
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if found and ",".join(sorted(found[1].split(","))) == labels:
            return float(found[2])
    raise AssertionError(f"no {name}{{{labels}}}")


def refused(server, reason, transport="grpc"):
    return metric(server, "tiny_cache_requests_refused_total", reason=reason, transport=transport)


def waiting(server):
    return metric(server, "tiny_cache_requests_in_flight", transport="grpc")


def charged(server):
    return metric(server, "tiny_cache_requests_held_bytes", transport="grpc")


def put(server, key, value):
    with connect(server.grpc) as stub:
        stub.Set(pb.CacheItem(key=key, value=value))


def test_one_request_more_than_may_wait_is_refused_at_once(limited):
    with limited("max_in_flight = 10") as server, Http2(server.grpc) as client, Http2(server.grpc) as other:
        held = [client.open() for _ in range(5)]
        wait_until(lambda: waiting(server) == 5, "five wait")
        turned_away = client.answer(client.open())
        assert (turned_away.status, "at most 10" in turned_away.message) == (UNAVAILABLE, True)
        # What need not wait does not notice.
        assert other.call("Get", GET).status == OK
        assert refused(server, "too_many_in_flight") == 1
        client.send(held[0], GET)
        assert client.answer(held[0]).status == OK
        wait_until(lambda: waiting(server) == 4, "a place is free")
        # A connection gets as much as it leaves to others, who find a place.
        stream = other.open()
        wait_until(lambda: waiting(server) == 5, "it is taken")
        other.send(stream, GET)
        assert other.answer(stream).status == OK
        assert refused(server, "too_many_in_flight") == 1


def test_a_request_that_waits_keeps_of_a_head_of_many_names_what_it_needs(limited):
    """A name takes a hundred bytes, of which five have come and 35 are counted."""
    connections, calls = 8, 125
    head = http2_frame(SETTINGS, 1, 0) + b"".join(
        http2_frame(HEADERS, END_HEADERS, 2 * number + 1, HEAD + MANY_NAMES) for number in range(calls)
    )
    with limited('max_in_flight = 4000\nmax_in_flight_bytes = "256MiB"') as server, contextlib.ExitStack() as stack:
        resident = lambda: int(pathlib.Path(f"/proc/{server.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]) * KIB
        before = resident()
        for _ in range(connections):
            client = stack.enter_context(socket.create_connection(address_of(server.grpc), 10))
            client.sendall(HELLO + head)
        wait_until(lambda: waiting(server) == connections * calls, "all wait", timeout=30)
        # As docs/operations.md has it, and what the process takes beside it.
        assert resident() - before <= connections * (calls * 24 + 256) * KIB + 8 * MIB


def test_bytes_of_unfinished_requests_have_a_limit(limited):
    with limited('max_in_flight_bytes = "1MiB"') as server, contextlib.ExitStack() as stack:
        put(server, "k", b"v")
        half = frame(pb.CacheItem(key="big", value=bytes(2 * MIB)).SerializeToString())[: 500 * KIB]
        first, second = (stack.enter_context(Http2(server.grpc)) for _ in range(2))
        first.send(first.open("Set"), half, end=False)
        wait_until(lambda: charged(server) >= 480 * KIB, "the first is charged")
        stream = second.open("Set")
        with contextlib.suppress(Exception):
            second.send(stream, half, end=False)
        answer = second.answer(stream)
        assert (answer.status, "in flight" in answer.message) == (RESOURCE_EXHAUSTED, True)
        assert second.call("Get", GET).status == OK
        assert refused(server, "too_many_bytes") == 1
        first.close()
        wait_until(lambda: charged(server) == 0, "what the first held is free")


@pytest.mark.parametrize("window", [0, 1])
def test_bytes_of_answers_that_nobody_takes_have_a_limit(limited, window):
    with limited('max_in_flight_bytes = "1MiB"\nrequest_timeout = "300ms"') as server:
        put(server, "k", bytes(300 * KIB))
        with Http2(server.grpc) as lazy, Http2(server.grpc) as eager:
            settings = lazy.h2.local_settings
            lazy.h2.update_settings({4: window})
            lazy.flush()
            for _ in range(5):
                lazy.send(lazy.open(), GET)
            # Two fit, and those are given up on in time. Who holds nothing gets what is left.
            wait_until(lambda: refused(server, "too_many_bytes") == 3, "three are refused")
            assert eager.call("Get", GET).status == OK
            wait_until(lambda: charged(server) <= MIB / 2, "the client is not waited for")
            assert refused(server, "not_taken") >= 1
            assert eager.call("Get", GET).status == OK
            assert settings is not None


def test_an_answer_has_to_fit(limited):
    with limited('max_in_flight_bytes = "1MiB"') as server, Http2(server.grpc) as client:
        put(server, "k", bytes(100 * KIB))
        for count, expected in ((10, OK), (11, RESOURCE_EXHAUSTED), (100, RESOURCE_EXHAUSTED), (10_000, RESOURCE_EXHAUSTED)):
            request = frame(pb.MultiCacheKeyRequest(keys=["k"] * count).SerializeToString())
            assert client.call("MultiGet", request).status == expected, count
        assert refused(server, "too_many_bytes") == 3
        wait_until(lambda: charged(server) == 0, "nothing is held")


def test_a_batch_may_have_so_many_items_and_no_more(limited):
    with limited("max_batch = 300") as server, Http2(server.grpc) as client:
        item = b"\x0a\x03\x0a\x01k"
        for method, one in (("MultiGet", b"\x0a\x01k"), ("MultiSet", item), ("MultiDelete", b"\x0a\x01k")):
            assert client.call(method, frame(one * 300)).status == OK
            answer = client.call(method, frame(one * 301))
            assert (answer.status, "at most 300 items" in answer.message) == (RESOURCE_EXHAUSTED, True)
        assert refused(server, "batch_too_large") == 3
        with connect(server.grpc) as stub:
            # Slices of a batch come back as one, in order, with bad items in their places.
            keys = [f"key-{number}" if number % 7 else "" for number in range(300)]
            items = [pb.CacheItem(key=key, value=key.encode()) for key in keys]
            stored = stub.MultiSet(pb.MultiCacheItemRequest(items=items)).items
            found = stub.MultiGet(pb.MultiCacheKeyRequest(keys=keys)).items
            assert [answer.key for answer in found] == keys == [answer.key for answer in stored]
            assert all(answer.value == key.encode() and bool(answer.error) == (not key) for answer, key in zip(found, keys))
            deleted = stub.MultiDelete(pb.MultiCacheKeyRequest(keys=keys)).items
            assert [bool(answer.error) for answer in deleted] == [not key for key in keys]


def test_large_batches_that_are_worked_on_have_room_for_their_items(limited):
    with limited('max_in_flight_bytes = "1MiB"') as server, Http2(server.grpc) as client:
        for method in ("MultiGet", "MultiSet", "MultiDelete"):
            for count, expected in ((256, OK), (3_000, OK), (9_000, RESOURCE_EXHAUSTED)):
                answer = client.call(method, frame(b"\x0a\x00" * count))
                assert (answer.status, "in flight" in answer.message) == (expected, expected != OK), (method, count)
        assert refused(server, "too_many_bytes") == 3
        wait_until(lambda: charged(server) == 0, "nothing is held")


def test_who_asks_for_health_has_little_to_say(limited):
    with limited("") as server, Http2(server.grpc) as client:
        for size, expected in ((4000, NOT_FOUND), (5000, RESOURCE_EXHAUSTED)):
            stream = client.open("Check", service="/grpc.health.v1.Health/")
            client.send(stream, frame(HealthCheckRequest(service="x" * size).SerializeToString()))
            answer = client.answer(stream)
            assert (answer.status, "message too large" in answer.message) == (expected, expected != NOT_FOUND)
        assert refused(server, "message_too_large") == 1


def test_metadata_beyond_its_limit_is_told_and_counted(limited):
    with limited('max_metadata = "8KiB"') as server, Http2(server.grpc) as client:
        assert client.call("Get", GET, [("x-some", "x" * 7000)]).status == OK
        for headers in ([("x-large", "x" * 9000)], [(f"x-{number}", "") for number in range(230)]):
            answer = client.call("Get", GET, headers)
            assert (answer.status, "metadata too large" in answer.message) == (RESOURCE_EXHAUSTED, True)
        # What is no metadata counts as well.
        for method in ("Get?" + "x" * 9000, "x" * 9000):
            answer = client.call(method, GET)
            assert (answer.status, "metadata too large" in answer.message) == (RESOURCE_EXHAUSTED, True)
        assert refused(server, "head_too_large") == 4


def test_metadata_far_beyond_its_limit_is_answered_by_http2_and_counted_whatever_lies_between(limited):
    far_beyond = [("x-large", "x" * 3000)] * 10
    with limited('max_metadata = "8KiB"') as server, Http2(server.grpc) as client:
        expected = 0
        # Ids of requests push what the first 431 has put into the table of fields out of it again, after some fifty of them.
        for calls in (0, 1, 0, 10, 45, 50, 60, 0, 150):
            for ends in (True, False):
                answer = client.answer(client.open(headers=far_beyond, end=ends))
                assert answer.headers == {":status": "431"}
                expected += 1
            for _ in range(calls):
                assert client.call("Get", GET).status == OK
            assert refused(server, "head_too_large") == expected, calls
        # More than sixteen times as much ends the connection.
        client.open(headers=far_beyond * 16)
        client.pump_until(lambda: client.closed or client.goaway)
        # The client hears of it before it is counted.
        wait_until(lambda: refused(server, "flood"), "it is counted")
        assert (refused(server, "flood"), refused(server, "head_too_large")) == (1, expected)


def test_a_head_beyond_its_limit_is_refused_and_counted_over_http_too(limited):
    with limited("", 'max_metadata = "8KiB"') as server, socket.create_connection(address_of(server.http), 10) as client:
        assert fetch(server.http, "/live", headers={"x-some": "x" * 7000}).status == 200
        client.sendall(b"GET /live HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * 9000)
        assert client.recv(13) == b"HTTP/1.1 431 "
        wait_until(lambda: refused(server, "head_too_large", "http") == 1, "it is counted")


@pytest.mark.parametrize(
    "said", [b"", frame(length=100_000), frame(length=100_000) + bytes(50_000)], ids=["nothing", "a head", "a half"]
)
def test_a_request_has_to_be_there_in_time(limited, said):
    with limited('request_timeout = "200ms"') as server, Http2(server.grpc) as client:
        stream = client.open("Set")
        client.send(stream, said, end=False)
        answer = client.answer(stream)
        assert (answer.status, "200ms" in answer.message) == (DEADLINE_EXCEEDED, True)
        assert refused(server, "timed_out") == 1
        # The caller's own deadline is told apart.
        answer = client.answer(client.open("Set", [("grpc-timeout", "50m")]))
        assert answer.status == DEADLINE_EXCEEDED
        assert (refused(server, "timed_out"), refused(server, "deadline_exceeded")) == (1, 1)
        wait_until(lambda: (waiting(server), charged(server)) == (0, 0), "nothing is held")


def test_keys_and_namespaces_that_are_none_are_told_and_counted(limited):
    def rejected(reason):
        return metric(server, "tiny_cache_rejected_keys_total", reason=reason)

    with limited("") as server, Http2(server.grpc) as client:
        key = lambda name: frame(pb.CacheKey(key=name).SerializeToString())
        assert client.call("Get", key("k" * 256)).status == OK
        assert (client.call("Get", key("k" * 257)).status, client.call("Delete", key("")).status) == (INVALID_ARGUMENT,) * 2
        # In a batch each is counted, and the others are served.
        items = [pb.CacheItem(key=name) for name in ("k", "k" * 300, "", "k" * 257)]
        assert client.call("MultiSet", frame(pb.MultiCacheItemRequest(items=items).SerializeToString())).status == OK
        keys = frame(pb.MultiCacheKeyRequest(keys=["k" * 257, "k"]).SerializeToString())
        assert (client.call("MultiGet", keys).status, client.call("MultiDelete", keys).status) == (OK, OK)
        assert (rejected("too_long"), rejected("empty")) == (5, 2)
        assert refused(server, "invalid_namespace") == 0
        for namespace in ("n" * 65, "a b", "-a", "na\u00efve"):
            assert client.call("Get", GET, [("x-cache-namespace", namespace)]).status == INVALID_ARGUMENT
        assert client.call("Get", GET, [("x-cache-namespace", "n" * 64)]).status == OK
        assert refused(server, "invalid_namespace") == 4
        assert (rejected("too_long"), rejected("empty")) == (5, 2)


def test_a_value_over_its_limit_is_refused_and_counted(limited):
    def rejected():
        text = fetch(server.http, "/metrics").body.decode()
        return float(re.search(r"^tiny_cache_rejected_oversize_total (\S+)$", text, re.MULTILINE)[1])

    with limited('[store]\nmax_value = "1KiB"') as server, Http2(server.grpc) as client:
        item = lambda size: pb.CacheItem(key="k", value=bytes(size))
        assert client.call("Set", frame(item(KIB).SerializeToString())).status == OK
        answer = client.call("Set", frame(item(KIB + 1).SerializeToString()))
        assert (answer.status, "value too large" in answer.message) == (RESOURCE_EXHAUSTED, True)
        items = pb.MultiCacheItemRequest(items=[item(KIB), item(KIB + 1)])
        assert client.call("MultiSet", frame(items.SerializeToString())).status == OK
        assert rejected() == 2


def test_a_request_id_that_is_not_taken_over_is_counted(limited):
    def replaced(transport):
        return metric(server, "tiny_cache_request_ids_replaced_total", transport=transport)

    ids = ["mine", "x" * 128, "x" * 129, "two words", ""]
    with limited("") as server, Http2(server.grpc) as client:
        for id in ids:
            answer = client.call("Get", GET, [("x-request-id", id)])
            assert (answer.headers["x-request-id"] == id) == (id in ids[:2]), id
            answer = fetch(server.http, "/live", headers={"x-request-id": id})
            assert (answer.headers["x-request-id"] == id) == (id in ids[:2]), id
        assert client.call("Get", GET).status == OK
        assert (replaced("grpc"), replaced("http")) == (3, 3)


def test_a_stream_over_the_limit_is_refused_by_http2_at_once_and_the_others_go_on(limited):
    with limited("max_concurrent_streams = 7") as server, Http2(server.grpc) as client:
        held = [client.open() for _ in range(7)]
        client.pump_until(lambda: client.h2.remote_settings.max_concurrent_streams == 7)
        # A client that does not care for what it was told.
        client.h2.remote_settings[3] = 100
        client.h2.remote_settings.acknowledge()
        assert refused(server, "too_many_streams") == 0
        turned_away = [client.answer(client.open(end=True)) for _ in range(3)]
        assert [stream.reset for stream in turned_away] == [7] * 3
        for stream in held:
            client.send(stream, GET)
            assert client.answer(stream).status == OK
        assert client.call("Get", GET).status == OK
        # What is reset for another reason is none of them.
        gone = client.open()
        client.h2.reset_stream(gone)
        client.flush()
        assert client.call("Get", GET).status == OK
        assert refused(server, "too_many_streams") == 3


def test_health_may_be_watched_for_longer_than_requests_take(limited):
    with limited('request_timeout = "400ms"') as server, Http2(server.grpc) as client:
        watch = client.open("Watch", service="/grpc.health.v1.Health/")
        client.send(watch, frame())
        client.pump_until(lambda: client.streams[watch].data)
        # It began before these, each of which takes as long as it may.
        for _ in range(2):
            assert client.answer(client.open("Set")).status == DEADLINE_EXCEEDED
        assert client.call("Get", GET).status == OK
        assert not client.streams[watch].done


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_a_connection_that_takes_nothing_is_closed(limited, port):
    keys = 'request_timeout = "300ms"\nmax_in_flight = 1000'
    with limited(keys, keys) as server:
        put(server, "k", bytes(MIB))
        if port == "http":
            with socket.socket() as lazy:
                lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                lazy.connect(address_of(server.http))
                lazy.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 300)
                wait_until(lambda: refused(server, "not_taken", "http") == 1, "it is given up")
        else:
            with Http2(server.grpc) as lazy:
                lazy.h2.update_settings({4: 2**31 - 1})
                lazy.h2.increment_flow_control_window(2**30)
                lazy.flush()
                for _ in range(20):
                    lazy.send(lazy.open(), GET)
                wait_until(lambda: refused(server, "not_taken") >= 1, "it is given up")
                wait_until(lambda: metric(server, "tiny_cache_connections_open", transport="grpc") == 0, "it is closed")


def test_http_works_on_so_many_requests_at_a_time_but_always_on_probes(limited):
    # A scrape has no place where there is none; the limit is at least one, so it takes two.
    with limited("", "max_in_flight = 1") as server:
        answers = []
        import threading

        def scrape():
            for _ in range(20):
                answers.append(fetch(server.http, "/metrics").status)

        threads = [threading.Thread(target=scrape) for _ in range(8)]
        for thread in threads:
            thread.start()
        probes = [fetch(server.http, path).status for path in ("/live", "/ready", "/health") * 10]
        for thread in threads:
            thread.join()
        assert set(probes) == {200}
        assert set(answers) == {200, 503}
        assert refused(server, "too_many_in_flight", "http") == answers.count(503)
