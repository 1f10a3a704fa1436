"""Metadata: request ids, namespaces, deadlines and compression."""

import gzip
import re
import zlib

import cache_pb2 as pb
import grpc
import pytest
import zstandard
from clients import assert_refused, connect, error_of
from grpc import StatusCode
from http2 import Http2, frame
from server import Server

NAMESPACE = "x-cache-namespace"
REQUEST_ID = "x-request-id"


def get(key):
    return pb.CacheKey(key=key)


@pytest.mark.parametrize("key", ["fine", ""], ids=["successful", "failed"])
def test_the_callers_request_id_comes_back_in_the_initial_metadata(stub, key):
    future = stub.Get.future(get(key), metadata=[(REQUEST_ID, "mine-1")])
    assert dict(future.initial_metadata())[REQUEST_ID] == "mine-1"
    assert future.code() == (StatusCode.OK if key else StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("key", ["fine", ""], ids=["successful", "failed"])
@pytest.mark.parametrize("given", [None, "", "  "], ids=["missing", "empty", "blank"])
def test_the_server_makes_a_request_id_where_there_is_none(stub, key, given):
    metadata = [] if given is None else [(REQUEST_ID, given)]
    made = [dict(stub.Get.future(get(key), metadata=metadata).initial_metadata())[REQUEST_ID] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in made) and made[0] != made[1]


def test_every_call_has_a_request_id(server, stub):
    requests = {
        "Get": get("k"),
        "MultiGet": pb.MultiCacheKeyRequest(keys=["k"]),
        "Set": pb.CacheItem(key="k"),
        "SetIfAbsent": pb.CacheItem(key="k"),
        "CompareAndSet": pb.CompareAndSetRequest(key="k"),
        "MultiSet": pb.MultiCacheItemRequest(items=[pb.CacheItem(key="k")]),
        "Delete": get("k"),
        "MultiDelete": pb.MultiCacheKeyRequest(keys=["k"]),
        "Stats": pb.Empty(),
    }
    for method, request in requests.items():
        future = getattr(stub, method).future(request, metadata=[(REQUEST_ID, method)])
        assert dict(future.initial_metadata())[REQUEST_ID] == method
        assert future.code() == StatusCode.OK


def test_namespaces_isolate_keys(stub):
    within = lambda name: [(NAMESPACE, name)]
    spaces = {None: b"shared", "a": b"1", "team-a": b"2", "n" * 64: b"3", "0.x_y-z": b"4"}
    for name, value in spaces.items():
        stub.Set(pb.CacheItem(key="k", value=value), metadata=within(name) if name else [])
    for name, value in spaces.items():
        assert stub.Get(get("k"), metadata=within(name) if name else []).value == value
    # Empty and blank are the shared keyspace, and blanks around a name do not count.
    for name, value in (("", b"shared"), ("   ", b"shared"), ("  team-a  ", b"2")):
        assert stub.Get(get("k"), metadata=within(name)).value == value
    # What the original stores under is nobody's key here.
    for prefixed in ("6:team-a:k", "team-a:k", "1:a:k"):
        assert not stub.Get(get(prefixed)).found
    assert stub.Delete(get("k"), metadata=within("a")).status == pb.OK
    assert not stub.Get(get("k"), metadata=within("a")).found
    assert stub.Get(get("k")).found


def test_a_namespace_holds_for_every_call(stub):
    within = [(NAMESPACE, "ns")]
    items = pb.MultiCacheItemRequest(items=[pb.CacheItem(key="m", value=b"1")])
    keys = pb.MultiCacheKeyRequest(keys=["m"])
    swap = pb.CompareAndSetRequest(key="m", expected_value=b"1", value=b"2")
    stub.MultiSet(items, metadata=within)
    assert not stub.MultiGet(keys).items[0].found
    assert stub.CompareAndSet(swap).status == pb.NOT_FOUND
    assert stub.SetIfAbsent(pb.CacheItem(key="m", value=b"9")).status == pb.STORED
    assert stub.SetIfAbsent(pb.CacheItem(key="m", value=b"9"), metadata=within).status == pb.EXISTS
    assert stub.CompareAndSet(swap, metadata=within).status == pb.STORED
    stub.MultiDelete(keys)
    assert stub.MultiGet(keys, metadata=within).items[0].value == b"2"


@pytest.mark.parametrize("name", [".a", "-a", "_a", "a b", "a:b", "a/b", "n" * 65])
def test_a_bad_namespace_fails_the_call_as_a_whole(stub, name):
    options = {"metadata": [(NAMESPACE, name)]}
    for call in (
        lambda: stub.Get(get("k"), **options),
        lambda: stub.Set(pb.CacheItem(key="k"), **options),
        lambda: stub.Delete(get("k"), **options),
        lambda: stub.MultiGet(pb.MultiCacheKeyRequest(keys=["k"]), **options),
        lambda: stub.MultiSet(pb.MultiCacheItemRequest(items=[pb.CacheItem(key="k")]), **options),
        lambda: stub.MultiDelete(pb.MultiCacheKeyRequest(keys=["k"]), **options),
    ):
        assert_refused(call, StatusCode.INVALID_ARGUMENT, "namespace")


@pytest.mark.parametrize(("namespace", "longest"), [("a", 252), ("n" * 9, 244), ("n" * 10, 242), ("n" * 64, 188)])
def test_the_prefixed_key_must_fit_the_originals_limit(stub, namespace, longest):
    within = [(NAMESPACE, namespace)]
    assert not stub.Get(get("é" * longest), metadata=within).found
    assert_refused(lambda: stub.Get(get("é" * (longest + 1)), metadata=within), StatusCode.INVALID_ARGUMENT, "key")


def test_a_deadline_ends_a_call_that_waits(server):
    with Http2(server.grpc) as client:
        waiting = client.open(headers=[("grpc-timeout", "50m")])
        answer = client.answer(waiting)
        assert answer.status == StatusCode.DEADLINE_EXCEEDED.value[0]
        assert answer.headers[REQUEST_ID]
        # The connection goes on, and a deadline that is kept changes nothing.
        assert client.call("Get", frame(get("k").SerializeToString()), [("grpc-timeout", "10S")]).status == 0
        # Where the time is over already nothing is done.
        late = client.call("Set", frame(pb.CacheItem(key="k").SerializeToString()), [("grpc-timeout", "0n")])
        assert late.status == StatusCode.DEADLINE_EXCEEDED.value[0]
    with connect(server.grpc) as stub:
        assert not stub.Get(get("k"), timeout=5).found


COMPRESSED = {
    "gzip": (gzip.compress, StatusCode.OK),
    "zstd": (zstandard.compress, StatusCode.OK),
    "identity": (bytes, StatusCode.OK),
    "deflate": (zlib.compress, StatusCode.UNIMPLEMENTED),
    "snappy": (bytes, StatusCode.UNIMPLEMENTED),
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_compressed_messages(server, encoding):
    compress, expected = COMPRESSED[encoding]
    message = pb.CacheItem(key="k", value=b"squeeze me " * 1000).SerializeToString()
    with Http2(server.grpc) as client:
        body = frame(compress(message), compressed=int(encoding != "identity"))
        answer = client.call("Set", body, [("grpc-encoding", encoding)])
        assert answer.status == expected.value[0], answer.message
        if expected == StatusCode.UNIMPLEMENTED:
            assert {"gzip", "zstd"} <= set(answer.headers["grpc-accept-encoding"].split(","))
        stored = client.call("Get", frame(get("k").SerializeToString()))
        assert (stored.data[7:] != b"") == (expected == StatusCode.OK)


def test_a_client_that_compresses_is_understood(server):
    with connect(server.grpc, compression=grpc.Compression.Gzip) as stub:
        stub.Set(pb.CacheItem(key="k", value=b"0123456789" * 1000))
        assert stub.Get(get("k")).value == b"0123456789" * 1000


def test_what_unpacks_to_more_than_a_message_may_hold_is_refused():
    bomb = pb.CacheItem(key="k", value=bytes(64 << 20)).SerializeToString()
    with Server(environment={"CACHE_MAX_VALUE_BYTES": "1000"}) as server, Http2(server.grpc) as client:
        for encoding, compress in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
            answer = client.call("Set", frame(compress(bomb), compressed=1), [("grpc-encoding", encoding)])
            assert answer.status == StatusCode.RESOURCE_EXHAUSTED.value[0]


def test_a_failure_tells_its_request_id_in_both_places(stub):
    """Some clients show a failed call's trailing metadata only."""
    error = error_of(lambda: stub.Get(get(""), metadata=[(REQUEST_ID, "mine-2")]))
    assert dict(error.trailing_metadata())[REQUEST_ID] == "mine-2"
