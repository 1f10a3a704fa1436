"""grpc.health.v1 while the server serves and while it drains."""

import signal
import threading

import grpc
import pytest
from clients import error_of, open_channel
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from http2 import Http2, frame
from server import Server

SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    pb.HealthCheckResponse.SERVING,
    pb.HealthCheckResponse.NOT_SERVING,
    pb.HealthCheckResponse.SERVICE_UNKNOWN,
)
NAMES = ["", "cache.CacheService"]


@pytest.fixture
def health(server):
    with open_channel(server.grpc) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", NAMES)
def test_it_serves(health, name):
    assert health.Check(pb.HealthCheckRequest(service=name)).status == SERVING
    watch = health.Watch(pb.HealthCheckRequest(service=name))
    assert next(watch).status == SERVING
    watch.cancel()


def test_a_name_that_nobody_knows(health):
    unknown = pb.HealthCheckRequest(service="cache.NoSuchService")
    assert error_of(lambda: health.Check(unknown)).code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(unknown)
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()


def test_watchers_hear_of_a_shutdown_and_do_not_hold_it_up():
    with Server() as server, open_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(pb.HealthCheckRequest(service=name)) for name in [*NAMES, "unknown"]]
        assert [next(watch).status for watch in watches] == [SERVING, SERVING, SERVICE_UNKNOWN]
        told = []
        readers = [
            threading.Thread(target=lambda watch=watch: told.append([event.status for event in watch]))
            for watch in watches
        ]
        for reader in readers:
            reader.start()
        server.signal(signal.SIGTERM)
        for reader in readers:
            reader.join(timeout=10)
        assert sorted(told) == [[], [NOT_SERVING], [NOT_SERVING]]
        assert server.wait(timeout=10) == 0


def test_a_check_during_the_drain_says_not_serving():
    request = frame(pb.HealthCheckRequest().SerializeToString())
    with Server() as server, Http2(server.grpc) as client:
        # Both calls begin before the shutdown; what the second one says comes after it.
        held = client.open("Get")
        check = client.open("Check", service="/grpc.health.v1.Health/")
        client.call("Stats", frame())
        server.signal(signal.SIGTERM)
        client.pump_until(lambda: client.goaway)
        client.send(check, request)
        assert client.answer(check).data == frame(pb.HealthCheckResponse(status=NOT_SERVING).SerializeToString())
        client.send(held, frame(b"\x0a\x01k"))
        assert client.answer(held).status == 0
        assert server.wait(timeout=10) == 0
