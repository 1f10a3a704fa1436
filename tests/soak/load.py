"""The load of a soak: a client process that calls every method on a schedule, and checks what it is answered.

Calls begin at random times with a mean rate, whether earlier ones were answered or not, and latencies count from when a call was due.
Each value says which key it belongs to and until when it may be served, so that a wrong or stale answer is seen.
"""

import array
import asyncio
import collections
import contextlib
import multiprocessing
import os
import random
import struct
import time

import cache_pb2 as pb
import cache_pb2_grpc
import grpc
from clients import OPTIONS

KEYS = 30_000
NAMESPACES = (None, None, "sessions", "pages", "images", "tokens")
SMALLEST, USUAL, LARGEST = 16, 64 * 1024, 1 << 20
LARGE_SHARE = 0.005
DEADLINE_SECONDS = 5
# Over max_value of the soak's configuration.
OVERSIZE = 5 << 20
# How long after its time a value may be answered: the call that wrote it may have been applied late.
STALE_AFTER_SECONDS = DEADLINE_SECONDS + 5
# Calls that a client has in flight at the most; what would be more is held back, and counted.
MOST_IN_FLIGHT = 500
HEAD = struct.Struct("<16sd")
FILLING = random.Random(1).randbytes(LARGEST)
# How often each method is called.
MIX = {
    "Get": 40,
    "Set": 16,
    "SetIfAbsent": 6,
    "CompareAndSet": 6,
    "Delete": 4,
    "MultiGet": 10,
    "MultiSet": 5,
    "MultiDelete": 2,
    "Stats": 1,
    "hurried": 1,
    "cancelled": 1,
    "invalid": 0.5,
    "oversize": 0.1,
}
# What else than OK these calls are to end with.
EXPECTED = {
    "hurried": {"DEADLINE_EXCEEDED"},
    "cancelled": {"CANCELLED"},
    "invalid": {"INVALID_ARGUMENT"},
    "oversize": {"RESOURCE_EXHAUSTED"},
}


def tag(namespace, key):
    return f"{namespace or '-'}{key}".encode()[:16].ljust(16)


def value(rng, namespace, key, ttl):
    largest = LARGEST if rng.random() < LARGE_SHARE else USUAL
    size = int(SMALLEST * (largest / SMALLEST) ** rng.random())
    until = time.monotonic() + ttl if ttl else float("inf")
    return HEAD.pack(tag(namespace, key), until) + FILLING[:size]


def fault_of(namespace, key, content, asked):
    """What is wrong with a value that was answered; None where nothing is. `asked` is when the call began: on a busy machine it takes this process
    a while to look at what it was answered."""
    told, until = HEAD.unpack_from(content)
    if told != tag(namespace, key):
        return f"value of {told!r}"
    late = asked - until
    return f"expired {late:.0f} s before it was asked for" if late > STALE_AFTER_SECONDS else None


class Tally:
    """What happened in a second."""

    def __init__(self):
        self.answered = collections.Counter()
        self.errors = collections.Counter()
        self.latencies = array.array("f")
        self.wrong = []
        self.details = {}
        self.held_back = 0


class Client:
    """Calls through some channels of its own."""

    def __init__(self, target, credentials, seed, rate, factor):
        self._target, self._rate, self._factor = target, rate, factor
        self._credentials = grpc.ssl_channel_credentials(*credentials) if credentials else None
        self._rng = random.Random(seed)
        self._channels, self._calls = [], set()
        self.tally = Tally()

    def _open(self):
        if self._credentials:
            channel = grpc.aio.secure_channel(self._target, self._credentials, options=OPTIONS)
        else:
            # A Unix socket's path is no name of a host.
            options = [*OPTIONS, *([("grpc.default_authority", "localhost")] if self._target.startswith("unix:") else [])]
            channel = grpc.aio.insecure_channel(self._target, options=options)
        return channel, cache_pb2_grpc.CacheServiceStub(channel), time.monotonic() + self._rng.uniform(10, 60)

    def _refresh(self):
        """Has two channels, and replaces those that are old."""
        now = time.monotonic()
        for old in [channel for channel in self._channels if channel[2] < now]:
            self._channels.remove(old)
            self._keep(self._retire(old[0]))
        while len(self._channels) < 2:
            self._channels.append(self._open())

    async def _retire(self, channel):
        """Closes a channel once nobody can want it any more: a CompareAndSet begins with a Get."""
        await asyncio.sleep(2 * DEADLINE_SECONDS)
        await channel.close()

    def _keep(self, work):
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def rest(self):
        """Has no connection, once what is in flight has ended."""
        if self._calls:
            await asyncio.wait(self._calls)
        for channel, *_ in self._channels:
            await channel.close()
        self._channels.clear()

    async def run(self, stopped):
        due = time.monotonic()
        while not stopped():
            factor = self._factor.value
            if factor == 0:
                await self.rest()
                await asyncio.sleep(0.2)
                due = time.monotonic()
                continue
            self._refresh()
            now = time.monotonic()
            # What a long halt of this process left undone is not made up for.
            due = max(due, now - 5)
            while due <= now:
                self._begin(due)
                due += self._rng.expovariate(self._rate * factor)
            await asyncio.sleep(min(due - now, 0.2))
        await self.rest()

    def _begin(self, due):
        if len(self._calls) >= MOST_IN_FLIGHT:
            self.tally.held_back += 1
            return
        kind = self._rng.choices(list(MIX), list(MIX.values()))[0]
        self._keep(self._call(kind, self._rng.choice(self._channels)[1], due))

    async def _call(self, kind, stub, due):
        namespace = self._rng.choice(NAMESPACES)
        options = {"metadata": (("x-cache-namespace", namespace),) if namespace else (), "timeout": DEADLINE_SECONDS}
        try:
            await getattr(self, f"_{kind}", self._simple)(kind, stub, namespace, options)
            self.tally.answered[kind] += 1
            self.tally.latencies.append(time.monotonic() - due)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            self.tally.errors[kind, code] += 1
            self.tally.details[kind, code] = error.details()
        except asyncio.CancelledError:
            # `_cancelled` alone cancels calls.
            self.tally.errors[kind, "CANCELLED"] += 1

    def _key(self):
        return f"key-{int(KEYS * self._rng.random() ** 3):08d}"

    def _keys(self):
        return [self._key() for _ in range(self._rng.randint(1, 25))]

    def _item(self, namespace, key=None):
        key, ttl = key or self._key(), self._rng.choice((0, 0, 1, 5, 30, 300))
        return pb.CacheItem(key=key, value=value(self._rng, namespace, key, ttl), ttl=ttl)

    def _check(self, namespace, key, content, asked):
        fault = fault_of(namespace, key, content, asked)
        if fault:
            self.tally.wrong.append(f"{namespace} {key}: {fault}")

    async def _simple(self, kind, stub, namespace, options):
        request = {
            "Set": lambda: self._item(namespace),
            "SetIfAbsent": lambda: self._item(namespace),
            "Delete": lambda: pb.CacheKey(key=self._key()),
            "MultiDelete": lambda: pb.MultiCacheKeyRequest(keys=self._keys()),
            "Stats": pb.Empty,
        }[kind]()
        await getattr(stub, kind)(request, **options)

    async def _Get(self, _, stub, namespace, options):
        key, asked = self._key(), time.monotonic()
        answer = await stub.Get(pb.CacheKey(key=key), **options)
        if answer.found:
            self._check(namespace, key, answer.value, asked)

    async def _MultiGet(self, _, stub, namespace, options):
        keys, asked = self._keys(), time.monotonic()
        answer = await stub.MultiGet(pb.MultiCacheKeyRequest(keys=keys), **options)
        if [item.key for item in answer.items] != keys:
            self.tally.wrong.append(f"MultiGet of {len(keys)} keys: answers for others")
        for item in answer.items:
            if item.found:
                self._check(namespace, item.key, item.value, asked)

    async def _MultiSet(self, _, stub, namespace, options):
        items = [self._item(namespace, key) for key in self._keys()]
        answer = await stub.MultiSet(pb.MultiCacheItemRequest(items=items), **options)
        if [item.key for item in answer.items] != [item.key for item in items]:
            self.tally.wrong.append(f"MultiSet of {len(items)} items: answers for others")

    async def _CompareAndSet(self, _, stub, namespace, options):
        key = self._key()
        found = await stub.Get(pb.CacheKey(key=key), **options)
        item = self._item(namespace, key)
        expected = found.value if self._rng.random() < 0.8 else b"something else"
        request = pb.CompareAndSetRequest(key=key, expected_value=expected, value=item.value, ttl=item.ttl)
        await stub.CompareAndSet(request, **options)

    async def _hurried(self, _, stub, namespace, options):
        await stub.MultiGet(pb.MultiCacheKeyRequest(keys=self._keys()), **options | {"timeout": self._rng.uniform(0, 0.002)})

    async def _cancelled(self, _, stub, namespace, options):
        call = stub.MultiSet(pb.MultiCacheItemRequest(items=[self._item(namespace) for _ in range(10)]), **options)
        await asyncio.sleep(self._rng.uniform(0, 0.002))
        call.cancel()
        await call

    async def _invalid(self, _, stub, namespace, options):
        await stub.Get(pb.CacheKey(key=self._rng.choice(("", "k" * 257))), **options)

    async def _oversize(self, _, stub, namespace, options):
        await stub.Set(pb.CacheItem(key=self._key(), value=bytes(OVERSIZE)), **options)


async def tell(client, results, stopped):
    """Hands on each second's tally."""
    while not stopped():
        await asyncio.sleep(1)
        tally, client.tally = client.tally, Tally()
        results.put((time.monotonic(), tally))


async def both(client, results, stopped):
    telling = asyncio.ensure_future(tell(client, results, stopped))
    await client.run(stopped)
    await telling


def work(target, credentials, seed, rate, factor, stopped, results):
    """A client process: until it is told to stop, or whoever started it is gone."""
    parent = multiprocessing.parent_process()
    ended = lambda: stopped.is_set() or not parent.is_alive()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(both(Client(target, credentials, seed, rate, factor), results, ended))
    results.cancel_join_thread() if not parent.is_alive() else results.close()


def be_killed(target, credentials, seed, rate, factor, stopped, results):
    """A client that its parent kills in the middle of calls: as `work`, but nobody hears of what it was answered."""

    class Nobody:
        def put(self, _):
            pass

        def close(self):
            pass

        cancel_join_thread = close

    os.nice(1)
    work(target, credentials, seed, rate, factor, stopped, Nobody())
