"""Answers that nobody takes, on as many streams and connections as there may be: what is held for them has a limit over all connections,
the server stays ready, and who takes what it asked for is served."""

import contextlib
import pathlib
import selectors
import socket
import struct
import time

import cache_pb2 as pb
import pytest
from attacker import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, KIB, MIB, PREFACE, SETTINGS, WINDOW_UPDATE, head, http2_frame
from clients import fetch
from http2 import Http2, frame
from server import Server, wait_until
from test_limits import metric, refused

pytestmark = pytest.mark.alone

CONNECTIONS, STREAMS = 200, 1000
WIDE = 2**31 - 1
# What the socket takes before it is full, and how many of the largest answers that are not charged fill it.
SMALL, FILLING = 4000, 100
LIMITS = {"max_memory": 16 * MIB, "max_in_flight_bytes": 64 * MIB, "max_in_flight": 1000}
CONFIG = f"""
[store]
max_memory = {LIMITS["max_memory"]}
max_value = {MIB}
[[transport]]
kind = "grpc"
listen = "unix:{{path}}"
max_in_flight = {LIMITS["max_in_flight"]}
max_in_flight_bytes = {LIMITS["max_in_flight_bytes"]}
[[transport]]
kind = "http"
listen = "127.0.0.1:0"
"""
# What docs/operations.md says that it comes to beside what the process held before: what is untaken, the requests that wait, and the
# connections.
GROWTH = LIMITS["max_in_flight_bytes"] / 4 + 24 * KIB * LIMITS["max_in_flight"] + 256 * KIB * CONNECTIONS
# And what it grows by as it is used.
TOLERATED = 32 * MIB


def get(stream):
    body = frame(pb.CacheKey(key="k").SerializeToString())
    return http2_frame(HEADERS, END_HEADERS, stream, HEAD) + http2_frame(DATA, END_STREAM, stream, body)


def refusal(stream):
    return http2_frame(HEADERS, END_HEADERS | END_STREAM, stream, head(b"/cache.CacheService/None"))


# The window of each stream, whether what comes is read, what is asked for once the socket is full, and whether connections are closed
# for it. Where it is not read, what it says is not either, so closing them may have time (`None`); those that wait for a window to
# open have places of their own.
ATTACKS = {
    "values, nothing is read": (WIDE, False, get, None),
    "refusals, nothing is read": (WIDE, False, refusal, None),
    "values, windows of a byte": (1, True, get, True),
    "values, windows that are shut": (0, True, get, False),
}


@pytest.fixture
def unix(tmp_path):
    """A server on a Unix socket, whose room does not grow as a TCP connection's does."""
    path = tmp_path / "cache.sock"
    config = tmp_path / "cache.toml"
    config.write_text(CONFIG.format(path=path))
    with Server("--config", config, listen=False) as server:
        server.path = str(path)
        yield server


def connected(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


def client_of(server):
    return Http2("unix:0", connect=lambda address, timeout: connected(server.path))


def resident(server, what):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * KIB


class Attackers:
    """Connections that send what there is to send, and read or not."""

    def __init__(self, stack, reads):
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.stack, self.reads = stack, reads

    def add(self, path, data):
        client = self.stack.enter_context(connected(path))
        client.setblocking(False)
        self.selector.register(client, self._events(data), [data])

    def _events(self, data):
        return (selectors.EVENT_READ if self.reads else 0) | (selectors.EVENT_WRITE if data else 0) or selectors.EVENT_WRITE

    def run(self, seconds):
        """Goes on until nothing moves any more for so long, or all has been said."""
        quiet = time.monotonic() + seconds
        while time.monotonic() < quiet and (ready := self.selector.select(seconds)):
            for key, events in ready:
                if self._step(key, events):
                    quiet = time.monotonic() + seconds

    def _step(self, key, events):
        client, left = key.fileobj, key.data
        moved = False
        try:
            if events & selectors.EVENT_READ:
                if not client.recv(1 << 18):
                    self.selector.unregister(client)
                    return True
                moved = True
            if events & selectors.EVENT_WRITE and left[0]:
                left[0] = left[0][client.send(left[0]) :]
                moved = True
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(client)
            return True
        if not left[0]:
            if self.reads:
                self.selector.modify(client, selectors.EVENT_READ, left)
            else:
                self.selector.unregister(client)
        return moved


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_nobody_takes_has_a_limit_over_all_connections(unix, name):
    window, reads, ask, closes = ATTACKS[name]
    settings = http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window))
    wide = http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE - 65535))
    streams = range(1, 2 * STREAMS, 2)
    asked = b"".join(get(stream) if stream < 2 * FILLING else ask(stream) for stream in streams)
    taken = []
    with contextlib.ExitStack() as stack, client_of(unix) as reader:
        stored = reader.call("Set", frame(pb.CacheItem(key="k", value=bytes(SMALL)).SerializeToString()))
        assert stored.status == 0
        before = resident(unix, "VmRSS")
        attackers = Attackers(stack, reads)
        for _ in range(CONNECTIONS // 20):
            for _ in range(20):
                attackers.add(unix.path, PREFACE + settings + wide + asked)
            attackers.run(0.1)
            began = time.monotonic()
            answer = reader.call("Get", frame(pb.CacheKey(key="k").SerializeToString()))
            taken.append(time.monotonic() - began)
            assert answer.status == 0 and len(answer.data) > SMALL
            assert fetch(unix.http, "/ready").status == 200
        grown = resident(unix, "VmHWM") - before
        print(f"{name}: {grown / MIB:.0f} of {(GROWTH + TOLERATED) / MIB:.0f} MiB, {max(taken):.3f} s")
        assert grown <= GROWTH + TOLERATED
        untaken = metric(unix, "tiny_cache_requests_untaken_bytes", transport="grpc")
        closed = refused(unix, "too_many_untaken")
        print(f"{untaken / MIB:.1f} MiB untaken, {closed:.0f} closed")
        assert untaken <= LIMITS["max_in_flight_bytes"] / 4
        assert closes in (closed > 0, None)
        # Nobody who is served waits for them.
        assert max(taken) < 1
    wait_until(lambda: metric(unix, "tiny_cache_requests_untaken_bytes", transport="grpc") == 0, "all of it is given back")


def test_who_reads_is_served_however_many_streams_it_has(unix):
    """As many at once as there may be, on many connections, beside each other: nothing is refused, and none is closed."""
    streams = [2 * number + 1 for number in range(STREAMS)]
    asked = b"".join(get(stream) for stream in streams)
    wide = http2_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WIDE)) + http2_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE - 65535))
    with client_of(unix) as client:
        assert client.call("Set", frame(pb.CacheItem(key="k", value=bytes(SMALL)).SerializeToString())).status == 0
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(connected(unix.path)) for _ in range(30)]
        left = {reader: [PREFACE + wide + asked, b"", 0] for reader in readers}
        selector = stack.enter_context(selectors.DefaultSelector())
        for reader in readers:
            reader.setblocking(False)
            selector.register(reader, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while left:
            ready = selector.select(20)
            assert ready, "nothing moves"
            for key, events in ready:
                reader, state = key.fileobj, left[key.fileobj]
                if events & selectors.EVENT_WRITE:
                    with contextlib.suppress(BlockingIOError):
                        state[0] = state[0][reader.send(state[0]) :]
                    if not state[0]:
                        selector.modify(reader, selectors.EVENT_READ)
                if events & selectors.EVENT_READ:
                    said = reader.recv(1 << 16)
                    assert said, "closed"
                    state[1] += said
                    at = 0
                    while len(state[1]) >= at + 9 and len(state[1]) >= (end := at + 9 + int.from_bytes(state[1][at : at + 3], "big")):
                        kind, flags = state[1][at + 3], state[1][at + 4]
                        assert kind not in (3, 7), "reset or gone"
                        state[2] += kind in (DATA, HEADERS) and flags & END_STREAM
                        at = end
                    state[1] = state[1][at:]
                    if state[2] == STREAMS:
                        selector.unregister(reader)
                        del left[reader]
    assert refused(unix, "too_many_untaken") == 0
