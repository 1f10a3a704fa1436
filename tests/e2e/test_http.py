"""The HTTP endpoints: probes, dashboards and people."""

import re
import signal
import socket
import time

import cache_pb2 as pb
import pytest
from clients import connect, error_of, fetch, metrics_of
from http2 import Http2, address_of, frame
from server import Server

ENDPOINTS = ["/", "/health", "/ready", "/live", "/metrics", "/stats", "/history"]

COUNTERS = [
    "tiny_cache_hits_total",
    "tiny_cache_misses_total",
    "tiny_cache_evictions_total",
    "tiny_cache_lru_evictions_total",
    "tiny_cache_expired_removals_total",
    "tiny_cache_rejected_oversize_total",
    "tiny_cache_rejected_capacity_total",
]
GAUGES = [
    "tiny_cache_entries",
    "tiny_cache_memory_usage_bytes",
    "tiny_cache_capacity_max_items",
    "tiny_cache_capacity_max_memory_bytes",
    "tiny_cache_capacity_max_value_bytes",
    "tiny_cache_capacity_item_saturation_ratio",
    "tiny_cache_capacity_memory_saturation_ratio",
    "tiny_cache_active_requests",
    "tiny_cache_uptime_seconds",
]


@pytest.fixture
def used():
    """A server to which each thing that is counted has happened, each a different number of times."""
    environment = {"CACHE_MAX_VALUE_BYTES": "1000", "CACHE_MAX_ITEMS": "10", "CACHE_MAX_MEMORY_MB": "1"}
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        for number in range(15):
            stub.Set(pb.CacheItem(key=f"k{number}", value=b"x" * 100))
        for _ in range(3):
            stub.Get(pb.CacheKey(key="k14"))
        stub.Get(pb.CacheKey(key="k0"))
        for _ in range(2):
            error_of(lambda: stub.Set(pb.CacheItem(key="k", value=b"x" * 1001)))
        yield server


def assert_fields(body, types):
    assert list(body) == list(types)
    for name, expected in types.items():
        assert type(body[name]) is expected, f"{name}: {body[name]!r}"


def assert_now(body):
    assert abs(body["timestamp"] - time.time()) < 60
    assert 0 < body["uptime_seconds"] < 60


def test_the_index_names_the_endpoints_and_the_grpc_port(server):
    answer = fetch(server.http, "/")
    assert answer.status == 200
    body = answer.json()
    assert_fields(body, {"service": str, "endpoints": list, "grpc_port": int})
    assert body["service"] == "tiny-cache"
    assert body["grpc_port"] == address_of(server.grpc)[1]
    assert set(ENDPOINTS) - {"/"} <= set(body["endpoints"])
    for path in body["endpoints"]:
        assert fetch(server.http, path).status == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_and_readiness(used, path):
    answer = fetch(used.http, path)
    assert answer.status == 200
    body = answer.json()
    types = {"status": str, "uptime_seconds": float, "cache_size": int, "cache_hits": int, "cache_misses": int}
    assert_fields(body, types | {"active_requests": int, "timestamp": float})
    assert_now(body)
    told = (body["status"], body["cache_size"], body["cache_hits"], body["cache_misses"], body["active_requests"])
    assert told == ("healthy", 10, 3, 1, 0)


def test_liveness(server):
    answer = fetch(server.http, "/live")
    assert answer.status == 200
    body = answer.json()
    assert_fields(body, {"status": str, "uptime_seconds": float, "timestamp": float})
    assert_now(body)
    assert body["status"] == "alive"


def test_statistics_are_those_of_the_grpc_call(used):
    answer = fetch(used.http, "/stats")
    assert answer.status == 200
    body = answer.json()
    assert_now(body)
    with connect(used.grpc) as stub:
        stats = stub.Stats(pb.Empty())
    for field in stats.DESCRIPTOR.fields:
        assert body[field.name] == getattr(stats, field.name), field.name
    told = ("size", "hits", "misses", "evictions", "rejected_oversize", "max_items", "active_requests")
    assert [body[name] for name in told] == [10, 3, 1, 5, 2, 10, 0]
    assert body["max_memory_mb"] == 1.0
    assert body["memory_usage_mb"] == round(stats.memory_usage_bytes / 2**20, 2)


def test_every_metric_is_there_once_without_labels_and_of_its_type(used):
    answer = fetch(used.http, "/metrics")
    assert answer.status == 200
    assert re.match(r"text/plain; version=0\.0\.4(;|$)", answer.headers["content-type"])
    text = answer.body.decode()
    for kind, names in (("counter", COUNTERS), ("gauge", GAUGES)):
        for name in names:
            samples = re.findall(rf"^{name}\b.*$", text, re.MULTILINE)
            assert len(samples) == 1 and re.fullmatch(rf"{name} [0-9.e+-]+", samples[0]), samples
            assert re.findall(rf"^# TYPE {name} (\w+)$", text, re.MULTILINE) == [kind]
            assert len(re.findall(rf"^# HELP {name} .+$", text, re.MULTILINE)) == 1
    assert text.endswith("\n")


def test_metrics_tell_what_happened(used):
    metrics = metrics_of(used.http)
    with connect(used.grpc) as stub:
        stats = stub.Stats(pb.Empty())
    assert [metrics[name] for name in COUNTERS] == [3, 1, 5, 5, 0, 2, 0]
    assert metrics["tiny_cache_entries"] == 10
    assert metrics["tiny_cache_memory_usage_bytes"] == stats.memory_usage_bytes
    assert metrics["tiny_cache_capacity_max_items"] == 10
    assert metrics["tiny_cache_capacity_max_memory_bytes"] == 1 << 20
    assert metrics["tiny_cache_capacity_max_value_bytes"] == 1000
    assert metrics["tiny_cache_capacity_item_saturation_ratio"] == 1.0
    ratio = stats.memory_usage_bytes / (1 << 20)
    assert metrics["tiny_cache_capacity_memory_saturation_ratio"] == pytest.approx(ratio)
    assert 0 < metrics["tiny_cache_uptime_seconds"] < 60


def test_requests_in_flight_are_counted_everywhere(server):
    with Http2(server.grpc) as client:
        held = [client.open() for _ in range(3)]
        # Answered after the others have arrived, as one connection's frames come in order.
        client.call("Stats", frame())
        assert fetch(server.http, "/health").json()["active_requests"] == 3
        assert fetch(server.http, "/stats").json()["active_requests"] == 3
        assert metrics_of(server.http)["tiny_cache_active_requests"] == 3
        for stream in held:
            client.send(stream, frame(b"\x0a\x01k"))
            assert client.answer(stream).status == 0
    assert fetch(server.http, "/health").json()["active_requests"] == 0


@pytest.mark.parametrize("path", [*ENDPOINTS, "/nowhere"])
def test_every_answer_carries_a_request_id(server, path):
    assert fetch(server.http, path, headers={"x-request-id": "mine-3"}).headers["x-request-id"] == "mine-3"
    for headers in ({}, {"x-request-id": ""}):
        assert re.fullmatch("[0-9a-f]{32}", fetch(server.http, path, headers=headers).headers["x-request-id"])


def test_unknown_paths_and_methods_are_told_so(server):
    for path in ("/nowhere", "/health/", "/stats/x", "//", "/%00"):
        answer = fetch(server.http, path)
        assert (answer.status, answer.json()["status"]) == (404, "error")
    for path in ENDPOINTS:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = fetch(server.http, path, method=method)
            assert (answer.status, answer.json()["status"]) == (405, "error")
            assert "GET" in answer.headers["allow"]
        head = fetch(server.http, path, method="HEAD")
        assert (head.status, head.body) == (200, b"")
    assert fetch(server.http, "/health?verbose=1").status == 200


def test_one_connection_serves_many_requests(server):
    with socket.create_connection(address_of(server.http), 10) as client:
        reader = client.makefile("rb")
        for _ in range(3):
            client.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
            length = None
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            assert b'"alive"' in reader.read(length)


def test_a_shutdown_turns_readiness_at_once_and_liveness_stays():
    with Server() as server, Http2(server.grpc) as client:
        held = client.open()
        client.call("Stats", frame())
        server.signal(signal.SIGTERM)
        # gRPC's GOAWAY says that the shutdown has begun.
        client.pump_until(lambda: client.goaway)
        ready = fetch(server.http, "/ready")
        assert (ready.status, ready.json()["status"]) == (503, "error")
        assert ready.headers["x-request-id"]
        assert fetch(server.http, "/live").status == 200
        assert fetch(server.http, "/health").status == 200
        assert fetch(server.http, "/metrics").status == 200
        client.send(held, frame(b"\x0a\x01k"))
        assert client.answer(held).status == 0
        assert server.wait(timeout=10) == 0
