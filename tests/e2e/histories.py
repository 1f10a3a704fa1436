"""Hostile histories of writes, and a watch on what memory a server holds while they are played.

Each history writes a multiple of the server's memory limit, in batches. What is counted as written is about what the cache is
charged: keys, values and some 30 bytes for each entry.
"""

import pathlib
import random
import re
import threading
import time

import cache_pb2 as pb
from clients import connect, fetch
from server import Server, wait_until

MIB = 1 << 20
# The bytes of a batch, as far as its last value lets.
BATCH_BYTES = MIB // 2
BATCH_ITEMS = 2000
LARGEST = MIB
SMALLEST = 16
# What an entry is charged beside key and value, about.
OVERHEAD = 30
PAYLOAD = random.Random(1).randbytes(2 * LARGEST)


class Writer:
    """Writes batches, and deletes, and counts the bytes."""

    def __init__(self, stub, rng):
        self.stub, self.rng = stub, rng
        self.written = 0
        self._keys = 0
        self._items, self._bytes = [], 0

    def new_key(self):
        self._keys += 1
        return f"key-{self._keys:012d}"

    def set(self, key, size, ttl=0):
        begin = self.rng.randrange(LARGEST)
        self._items.append(pb.CacheItem(key=key, value=PAYLOAD[begin : begin + size], ttl=ttl))
        self._bytes += len(key) + size + OVERHEAD
        if self._bytes >= BATCH_BYTES or len(self._items) >= BATCH_ITEMS:
            self.flush()

    def delete(self, keys):
        self.flush()
        self.stub.MultiDelete(pb.MultiCacheKeyRequest(keys=keys))

    def flush(self):
        if not self._items:
            return
        answers = self.stub.MultiSet(pb.MultiCacheItemRequest(items=self._items)).items
        assert all(answer.status == pb.OK for answer in answers)
        self.written += self._bytes
        self._items, self._bytes = [], 0

    def log_uniform(self, smallest, largest):
        return int(smallest * (largest / smallest) ** self.rng.random())


def growing(writer, total):
    while writer.written < total:
        typical = SMALLEST * (LARGEST / SMALLEST) ** (writer.written / total)
        writer.set(writer.new_key(), min(LARGEST, int(typical * writer.rng.uniform(0.7, 1.4))))


def shrinking(writer, total):
    while writer.written < total:
        typical = LARGEST / (LARGEST / SMALLEST) ** (writer.written / total)
        writer.set(writer.new_key(), min(LARGEST, int(typical * writer.rng.uniform(0.7, 1.4))))


def ttl_storms(writer, total):
    """Everything expires in the same second, and the cache is filled again with other sizes."""
    storms = 5
    for storm in range(storms):
        largest = (1024, 64 * 1024, 256, 16 * 1024, 4096)[storm]
        ends = time.time() + 8 if total > 1 << 30 else time.time() + 3
        while writer.written < total * (storm + 1) / storms:
            ttl = max(1, round(ends - time.time()))
            writer.set(writer.new_key(), writer.log_uniform(SMALLEST, largest), ttl)
        writer.flush()
        wait_until(lambda: writer.stub.Stats(pb.Empty()).size == 0, "everything expires", timeout=30)


def replaced(writer, total):
    """The same keys again and again, each time with values of another size."""
    sizes = (100, 5000, 300, 20_000, 1000, 40, 100_000, 2500)
    turn = 0
    while writer.written < total:
        size = sizes[turn % len(sizes)]
        for number in range(int(total / 12 / (size + 16))):
            writer.set(f"key-{number:012d}", int(size * writer.rng.uniform(0.5, 1.5)))
        turn += 1


def tiny_and_huge(writer, total):
    """Values of 16 bytes and of a MiB in turns: long turns, and then one huge value among some tiny ones."""
    phases = 16
    while writer.written < total / 2:
        if int(writer.written * phases / total) % 2 == 0:
            writer.set(writer.new_key(), SMALLEST)
        else:
            writer.set(writer.new_key(), LARGEST)
    while writer.written < total:
        writer.set(writer.new_key(), LARGEST)
        for _ in range(200):
            writer.set(writer.new_key(), SMALLEST)


def mixed(writer, total):
    """Sizes of any order of magnitude under few keys, in any order, a quarter of them deleted."""
    keys = total // 10 // 4096
    while writer.written < total:
        writer.set(f"key-{writer.rng.randrange(keys):012d}", writer.log_uniform(SMALLEST, LARGEST))
        if writer.rng.random() < 0.02:
            writer.delete([f"key-{writer.rng.randrange(keys):012d}" for _ in range(15)])


HISTORIES = [growing, shrinking, ttl_storms, replaced, tiny_and_huge, mixed]
# Those that are asked for most, with and without ghosts, which keep unlike things for each entry.
POLICIES = ["lru", "s3-fifo", "sieve"]


def memory_of(pid):
    """Resident memory of a process in bytes: now, and the most it ever was."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return tuple(int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmRSS", "VmHWM"))


class Watch:
    """Samples what a server holds and what it says it uses, in a thread of its own: (seconds, resident, told)."""

    def __init__(self, server, interval=0.25):
        self._server, self._interval = server, interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.samples = []

    def _sample(self):
        begin = time.monotonic()
        while not self._end.wait(self._interval):
            answer = fetch(self._server.http, "/stats")
            # It sweeps first, which on a busy machine it may not do in time: then it says so.
            if answer.status == 503:
                continue
            resident, _ = memory_of(self._server.process.pid)
            self.samples.append((time.monotonic() - begin, resident, answer.json()["memory_usage_bytes"]))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(timeout=10)


def play(history, limit_mib, times, policy, seed=1):
    """Plays a history against a server of its own. Says what was sampled, the most that was resident, and what was written."""
    environment = {
        "CACHE_MAX_ITEMS": "unlimited",
        "CACHE_MAX_MEMORY_MB": str(limit_mib),
        "CACHE_CLEANUP_INTERVAL": "1",
    }
    with Server("--policy", policy, environment=environment) as server, connect(server.grpc) as stub:
        with Watch(server) as watch:
            writer = Writer(stub, random.Random(seed))
            history(writer, times * limit_mib * MIB)
            writer.flush()
        return watch.samples, memory_of(server.process.pid)[1], writer.written


def most_allowed(limit_mib):
    """Bytes that a server with this limit may hold at the most."""
    return int(limit_mib * MIB * 1.1) + 32 * MIB
