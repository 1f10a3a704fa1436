"""SIGTERM under load, over every kind of socket: whoever was let in is answered, and nobody else is let in."""

import contextlib
import http.client
import signal
import socket

import cache_pb2 as pb
import grpc
import pytest
from clients import Load, connect
from http2 import address_of
from server import Server

# By itself grpcio sends the socket's path as authority, which is none, and h2 refuses it (hyperium/h2#487).
UNIX = [("grpc.default_authority", "localhost")]


class Connection(http.client.HTTPConnection):
    """Over TCP or a Unix socket."""

    def __init__(self, address):
        super().__init__("localhost", timeout=10)
        self._address = address

    def connect(self):
        if self._address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(10)
            self.sock.connect(self._address.removeprefix("unix:"))
        else:
            self.sock = socket.create_connection(address_of(self._address), 10)


def ask(connection):
    connection.request("GET", "/stats")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read(), answer.status


def listening(kind, folder):
    if kind == "unix":
        return ["--listen", f"unix:{folder}/grpc.sock", "--http-listen", f"unix:{folder}/http.sock"]
    return ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]


def stop_under(load, server):
    with load:
        server.signal(signal.SIGTERM)
        load.join()
    assert server.wait(timeout=10) == 0
    assert server.wait_for_line("stopped")["aborted_connections"] == 0


def stop_until_nobody_is_let_in(session, server):
    """Each client goes on until it is not let in, and nothing else goes wrong."""
    load = Load(session, clients=8)
    stop_under(load, server)
    assert len(load.errors) == 8
    assert all(isinstance(error, (ConnectionRefusedError, FileNotFoundError)) for error in load.errors), load.errors


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_stop_answers_each_http_request_whose_connection_was_let_in(tmp_path, kind):
    @contextlib.contextmanager
    def session():
        def call():
            with contextlib.closing(Connection(server.http)) as connection:
                connection.connect()
                try:
                    ask(connection)
                except OSError as error:
                    raise AssertionError(f"let in, and not answered: {error!r}") from error

        yield call

    with Server(*listening(kind, tmp_path), listen=False) as server:
        stop_until_nobody_is_let_in(session, server)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_stop_cuts_no_answer_of_http_connections_that_are_kept(tmp_path, kind):
    @contextlib.contextmanager
    def session():
        with contextlib.closing(Connection(server.http)) as connection:

            def call():
                try:
                    ask(connection)
                except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                    # It was closed for being idle when the question came. Every client knows that, and asks anew.
                    connection.close()
                    ask(connection)

            yield call

    with Server(*listening(kind, tmp_path), listen=False) as server:
        stop_until_nobody_is_let_in(session, server)


def test_a_stop_takes_no_grpc_request_of_a_unix_socket_that_it_does_not_answer(tmp_path):
    @contextlib.contextmanager
    def session():
        with connect(server.grpc, options=UNIX) as stub:
            yield lambda: stub.Set(pb.CacheItem(key="k", value=b"v" * 100))

    with Server(*listening("unix", tmp_path), listen=False) as server:
        load = Load(session, clients=16)
        stop_under(load, server)
    assert len(load.errors) == 16
    for error in load.errors:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert any(text in error.details() for text in ("Connection refused", "No such file")), error
