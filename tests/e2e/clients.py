"""Real clients: grpcio for the calls, http.client for the endpoints."""

import contextlib
import http.client
import json
import re

import cache_pb2_grpc
import grpc
import pytest

# A channel of its own for every `connect`, and values of any size.
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def open_channel(target, credentials=None, options=(), **arguments):
    options = [*OPTIONS, *options]
    if credentials:
        return grpc.secure_channel(target, credentials, options=options, **arguments)
    return grpc.insecure_channel(target, options=options, **arguments)


@contextlib.contextmanager
def connect(target, credentials=None, **arguments):
    """A stub of the cache over a connection of its own."""
    with open_channel(target, credentials, **arguments) as channel:
        yield cache_pb2_grpc.CacheServiceStub(channel)


def error_of(call):
    """The error that a call must end with."""
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value


def assert_refused(call, code, details=""):
    """A call must end with this code, and with this in the details."""
    error = error_of(call)
    assert (error.code(), details in error.details()) == (code, True), error


class Answer:
    """What an HTTP endpoint said."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


def fetch(address, path, method="GET", headers=None, timeout=10):
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def metrics_of(address):
    """The samples of /metrics by name, those without labels only."""
    text = fetch(address, "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
