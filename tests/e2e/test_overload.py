"""More than the server can do: who asks how it is hears of it all the same, and soon after it is as before.

How much is served under twice the load that can be, and in which time, is measured by scripts/bench-overload.
"""

import contextlib
import statistics
import threading
import time
from concurrent import futures

import cache_pb2 as pb
import pytest
from clients import fetch
from http2 import Http2, frame
from server import Server, wait_until

pytestmark = pytest.mark.alone

CONNECTIONS, CALLS, KEYS = 16, 64, 3000
WINDOW = 1 << 30
HEALTH = "/grpc.health.v1.Health/"
PROBES = ("/live", "/ready", "/metrics", "gRPC health")
# How much longer a probe may take than one of a server that has nothing to do, asked at the same moment: what probes are promised.
LONGEST_SECONDS = 0.1


class Backlog:
    """A connection that asks for as much as its streams allow at once, and takes whatever comes."""

    def __init__(self, address, body):
        self.client = client = Http2(address, timeout=50)
        client.h2.update_settings({4: (1 << 31) - 1})
        client.h2.increment_flow_control_window(WINDOW)
        self.ended = 0
        frames = b""
        for _ in range(CALLS):
            stream = client.h2.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "http"), (":path", "/cache.CacheService/MultiGet")]
            head += [(":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]
            client.h2.send_headers(stream, head)
            frames += client.h2.data_to_send()
            for begin in range(0, len(body), 1 << 14):
                part = body[begin : begin + (1 << 14)]
                flags = begin + len(part) == len(body)
                frames += len(part).to_bytes(3, "big") + bytes([0, flags]) + stream.to_bytes(4, "big") + part
        sender = threading.Thread(target=client.socket.sendall, args=(frames,))
        self._threads = [sender, threading.Thread(target=self._read)]

    def _read(self):
        """Counts the streams that end, which is all that matters here."""
        data = b""
        while self.ended < CALLS:
            received = self.client.socket.recv(1 << 20)
            assert received, "closed"
            data += received
            while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
                kind, flags = data[3], data[4]
                self.ended += kind in (0, 1) and flags & 1
                assert kind not in (3, 7), "reset or gone"
                data = data[end:]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join(timeout=50)
        self.client.close()


def health(server):
    with Http2(server.grpc) as client:
        stream = client.open("Check", service=HEALTH)
        client.send(stream, frame())
        assert client.answer(stream).status == 0


def multi_get(server, body):
    with Http2(server.grpc) as client:
        stream = client.open("MultiGet")
        client.send(stream, body)
        assert client.answer(stream).status == 0


def seconds(ask, *arguments):
    """How long it took."""
    began = time.monotonic()
    ask(*arguments)
    return time.monotonic() - began


def probe(server, name):
    health(server) if name == "gRPC health" else fetch(server.http, name)


def test_probes_do_not_wait_for_those_who_ask_for_too_much(tmp_path):
    # Room for all, who would hear RESOURCE_EXHAUSTED otherwise: a batch is charged 128 bytes an item.
    config = tmp_path / "cache.toml"
    config.write_text('[[transport]]\nkind = "grpc"\nmax_in_flight_bytes = "1GiB"\n[[transport]]\nkind = "http"\n')
    # No key is there: answers are small, so that all the work is the server's.
    keys = pb.MultiCacheKeyRequest(keys=[f"k{number}" for number in range(KEYS)])
    body = frame(keys.SerializeToString())
    alone = lambda: seconds(multi_get, server, body)
    with Server("--config", config) as server, Server() as idle, contextlib.ExitStack() as stack:
        pool = stack.enter_context(futures.ThreadPoolExecutor(2))
        quiet = min(alone() for _ in range(5))
        backlogs = [Backlog(server.grpc, body) for _ in range(CONNECTIONS)]
        began = time.monotonic()
        for backlog in backlogs:
            stack.enter_context(backlog)
        ended = lambda: sum(backlog.ended for backlog in backlogs)
        wait_until(lambda: ended() > 0, "the first answer")
        probes = {}
        for name in PROBES * 3:
            # What one of them takes that has nothing to do is the machine's, and this process's own.
            asked = [pool.submit(seconds, probe, asked, name) for asked in (server, idle)]
            probes.setdefault(name, []).append([asked.result() for asked in asked])
        assert ended() < CONNECTIONS * CALLS, "the load was over too soon to tell anything"
        wait_until(lambda: ended() == CONNECTIONS * CALLS, "all answers", timeout=50)
        # Behind all that was asked for before, a probe would have waited for most of it.
        whole = time.monotonic() - began
        # Each time, so medians will do: a single one may tell of the machine.
        longest = max(statistics.median(taken - by_idle for taken, by_idle in pairs) for pairs in probes.values())
        assert longest < LONGEST_SECONDS, (probes, whole)
        wait_until(lambda: fetch(server.http, "/health").json()["active_requests"] == 0, "nothing in hand", timeout=5)
        wait_until(lambda: alone() < max(3 * quiet, 0.02), f"a lone call as before, {quiet} s", timeout=5)
