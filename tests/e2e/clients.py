"""Real clients: grpcio for the calls, http.client for the endpoints."""

import contextlib
import http.client
import json
import re
import socket
import threading

import cache_pb2_grpc
import grpc
import pytest
from server import wait_until

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


def fetch(address, path, method="GET", headers=None, timeout=10, connect=socket.create_connection):
    connection = http.client.HTTPConnection(address, timeout=timeout)
    connection.sock = connect((connection.host, connection.port), timeout)
    try:
        connection.request(method, path, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def metrics_of(address):
    """The samples of /metrics by name, those without labels only."""
    text = fetch(address, "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


class Load:
    """Clients that call without a pause while something happens to the server.

    Each has a thread and runs what `session` makes for it; it ends with its first error, which is kept.
    """

    def __init__(self, session, clients=8):
        self._stopped = threading.Event()
        self.done = [0] * clients
        self.errors = []
        self._threads = [threading.Thread(target=self._work, args=(session, n)) for n in range(clients)]

    def _work(self, session, number):
        try:
            with session() as call:
                while not self._stopped.is_set():
                    call()
                    self.done[number] += 1
        except Exception as error:  # Whatever it is, the test is to see it.
            self.errors.append(error)

    def wait_for_more(self, calls=20):
        """Returns once every client has made this many more calls."""
        goals = [done + calls for done in self.done]
        reached = lambda: self.errors or all(done >= goal for done, goal in zip(self.done, goals))
        wait_until(reached, "the clients go on", timeout=30)
        assert not self.errors, self.errors

    def stop(self):
        """Lets each client end after the call in hand."""
        self._stopped.set()
        self.join()

    def join(self):
        """Waits until each client has ended by an error."""
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_):
        self.stop()
