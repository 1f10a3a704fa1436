"""The compatibility contract through a real Python client."""

import json
import re
import subprocess
import urllib.request

import cache_pb2 as pb
import grpc
import pytest


def code_of(call):
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value.code()


def test_every_call_answers_as_the_contract_says(stub):
    assert not stub.Get(pb.CacheKey(key="k")).found
    assert stub.Set(pb.CacheItem(key="k", value=b"1")).status == pb.OK
    assert stub.Get(pb.CacheKey(key="k")).value == b"1"
    assert stub.SetIfAbsent(pb.CacheItem(key="k", value=b"2")).status == pb.EXISTS
    assert stub.SetIfAbsent(pb.CacheItem(key="n", value=b"2")).status == pb.STORED
    swap = lambda key, old: stub.CompareAndSet(pb.CompareAndSetRequest(key=key, expected_value=old, value=b"3"))
    assert swap("missing", b"").status == pb.NOT_FOUND
    assert swap("k", b"x").status == pb.MISMATCH
    assert swap("k", b"1").status == pb.STORED
    items = [pb.CacheItem(key="a", value=b"1"), pb.CacheItem(key="", value=b""), pb.CacheItem(key="a", value=b"2")]
    results = stub.MultiSet(pb.MultiCacheItemRequest(items=items)).items
    assert [result.status for result in results] == [pb.OK, pb.ERROR, pb.OK]
    assert results[1].error and not results[0].error
    found = stub.MultiGet(pb.MultiCacheKeyRequest(keys=["a", "", "zz", "a"])).items
    assert [(item.key, item.found, item.value, bool(item.error)) for item in found] == [
        ("a", True, b"2", False), ("", False, b"", True), ("zz", False, b"", False), ("a", True, b"2", False),
    ]
    assert [r.status for r in stub.MultiDelete(pb.MultiCacheKeyRequest(keys=["a", "a"])).items] == [pb.OK, pb.OK]
    assert stub.Delete(pb.CacheKey(key="never")).status == pb.OK
    stats = stub.Stats(pb.Empty())
    assert (stats.size, stats.max_items, stats.policy) == (2, 1000, "lru")
    assert stats.hits == stats.hits_total and 0 < stats.hit_rate < 1


def test_keys_are_counted_in_code_points(stub):
    assert code_of(lambda: stub.Get(pb.CacheKey(key=""))) == grpc.StatusCode.INVALID_ARGUMENT
    assert not stub.Get(pb.CacheKey(key="\N{GRINNING FACE}" * 256)).found
    assert code_of(lambda: stub.Get(pb.CacheKey(key="k" * 257))) == grpc.StatusCode.INVALID_ARGUMENT


def test_namespaces_isolate_keys_and_bad_ones_are_refused(stub):
    within = [("x-cache-namespace", " team-a ")]
    stub.Set(pb.CacheItem(key="k", value=b"shared"))
    stub.Set(pb.CacheItem(key="k", value=b"own"), metadata=within)
    assert stub.Get(pb.CacheKey(key="k")).value == b"shared"
    assert stub.Get(pb.CacheKey(key="k"), metadata=within).value == b"own"
    assert not stub.Get(pb.CacheKey(key="6:team-a:k")).found
    for bad in (".a", "a b", "n" * 65):
        call = lambda: stub.MultiGet(pb.MultiCacheKeyRequest(keys=["k"]), metadata=[("x-cache-namespace", bad)])
        assert code_of(call) == grpc.StatusCode.INVALID_ARGUMENT


def test_every_response_carries_the_request_id(stub):
    _, call = stub.Get.with_call(pb.CacheKey(key="k"), metadata=[("x-request-id", "mine-1")])
    assert dict(call.initial_metadata())["x-request-id"] == "mine-1"
    with pytest.raises(grpc.RpcError) as failure:
        stub.Get(pb.CacheKey(key=""))
    made = {**dict(failure.value.initial_metadata()), **dict(failure.value.trailing_metadata())}
    assert re.fullmatch("[0-9a-f]{32}", made["x-request-id"])


def test_metrics_and_health_over_http(server, stub):
    stub.Set(pb.CacheItem(key="k", value=b"1"))
    stub.Get(pb.CacheKey(key="k"))
    get = lambda path: urllib.request.urlopen(f"http://{server.http}{path}", timeout=5)
    assert json.load(get("/health"))["cache_size"] == 1
    with get("/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "\ntiny_cache_hits_total 1\n" in answer.read().decode()


def test_grpcurl_finds_everything_through_reflection(server):
    run = lambda *words: subprocess.run(
        ["grpcurl", "-plaintext", *words], capture_output=True, text=True, timeout=20, check=True
    ).stdout
    assert "cache.CacheService" in run(server.grpc, "list")
    assert "rpc CompareAndSet" in run(server.grpc, "describe", "cache.CacheService")
    run("-d", '{"key":"k","value":"aGk="}', server.grpc, "cache.CacheService/Set")
    assert json.loads(run("-d", '{"key":"k"}', server.grpc, "cache.CacheService/Get")) == {"found": True, "value": "aGk="}
