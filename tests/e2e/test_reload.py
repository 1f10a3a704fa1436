"""Settings that change while the server runs: told by SIGHUP or noticed in the file, and never half applied."""

import contextlib
import itertools
import json
import os
import random
import signal

import cache_pb2 as pb
import grpc
import histories
import pytest
from clients import Load, assert_refused, connect, fetch, metrics_of
from server import Server, wait_until

RELOADED = "configuration reloaded"
CHANGED = "setting changed"
NOT_RELOADED = "configuration not reloaded"
RESTART = "need a restart"
MIB = 1 << 20


def store(max_items, more=""):
    return f"[store]\nmax_items = {json.dumps(max_items)}\n{more}"


class File:
    """A configuration file, and the ways in which files are changed."""

    def __init__(self, directory, text):
        self.path = directory / "cache.toml"
        self.path.write_text(text)

    def write(self, text):
        self.path.write_text(text)

    def replace(self, text):
        """As editors do."""
        other = self.path.with_name("cache.toml.new")
        other.write_text(text)
        other.rename(self.path)


class ConfigMap:
    """A directory as the kubelet makes it: the file is a link through `..data`, which is swapped."""

    def __init__(self, directory, text):
        self.directory, self.version, self.path = directory, 0, directory / "cache.toml"
        self.replace(text)
        self.path.symlink_to("..data/cache.toml")

    def replace(self, text):
        self.version += 1
        name = f"..version-{self.version}"
        (self.directory / name).mkdir()
        (self.directory / name / "cache.toml").write_text(text)
        (self.directory / "..data_tmp").symlink_to(name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")


def reloads(server):
    """How many reloads succeeded, and how many failed."""
    text = fetch(server.http, "/metrics").body.decode()
    count = lambda result: int(text.split(f'tiny_cache_config_reloads_total{{result="{result}"}} ')[1].split()[0])
    return count("ok"), count("failed")


def stats(server):
    """Its figures, which a server that is busy may have no time for."""
    return wait_until(lambda: (answer := fetch(server.http, "/stats")).status == 200 and answer, "the figures").json()


def resident(server):
    return metrics_of(server.http)["process_resident_memory_bytes"]


def fill(stub, count, size=1):
    # Small batches: what large messages leave behind in the allocator is another matter.
    for first in range(0, count, 500):
        items = [pb.CacheItem(key=f"k{number}", value=b"v" * size) for number in range(first, min(first + 500, count))]
        stub.MultiSet(pb.MultiCacheItemRequest(items=items))


WAYS = {
    "written": (File, File.write),
    "renamed over": (File, File.replace),
    "link swapped": (ConfigMap, ConfigMap.replace),
}


@pytest.mark.parametrize("told", [True, False], ids=["sighup", "noticed"])
@pytest.mark.parametrize("way", WAYS)
def test_limits_and_log_level_change_without_a_restart(tmp_path, way, told):
    make, change = WAYS[way]
    file = make(tmp_path, store(1000))
    with Server("--config", file.path) as server, connect(server.grpc) as stub:
        fill(stub, 1000)
        change(file, store(100, 'max_memory = "32MiB"\nmax_value = 1000\n[telemetry]\nlog_level = "debug"\n'))
        if told:
            server.signal(signal.SIGHUP)
        server.wait_for_line(RELOADED)
        changes = {line["setting"]: (line["old"], line["new"]) for line in server.lines(CHANGED)}
        assert changes == {
            "store.max_items": ("1000", "100"),
            "store.max_memory": ('"100MiB"', '"32MiB"'),
            "store.max_value": ('"auto"', '"1000B"'),
            "telemetry.log_level": ('"info"', '"debug"'),
        }
        assert server.lines(CHANGED)[0]["from"] == f"{file.path}:2"
        told_by_stats = stub.Stats(pb.Empty())
        assert (told_by_stats.max_items, told_by_stats.size) == (100, 100)
        assert (told_by_stats.max_memory_bytes, told_by_stats.max_value_bytes) == (32 * MIB, 1000)
        assert stats(server)["max_items"] == 100 and stats(server)["evictions"] == 900
        metrics = metrics_of(server.http)
        assert metrics["tiny_cache_capacity_max_items"] == metrics["tiny_cache_entries"] == 100
        assert metrics["tiny_cache_capacity_max_memory_bytes"] == 32 * MIB
        assert 'tiny_cache_limit{limit="max_items"} 100\n' in fetch(server.http, "/metrics").body.decode()
        assert reloads(server) == (1, 0)
        assert not stub.Get(pb.CacheKey(key="k899")).found and stub.Get(pb.CacheKey(key="k900")).found
        assert_refused(lambda: stub.Set(pb.CacheItem(key="k", value=b"v" * 1001)), grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        wait_until(lambda: [line for line in server.log if line["level"].upper() == "DEBUG"], "lines of the new level")

        change(file, store(5000, '[telemetry]\nlog_level = "error"\n'))
        if told:
            server.signal(signal.SIGHUP)
        wait_until(lambda: stats(server)["max_items"] == 5000, "the limit grows again")
        wait_until(lambda: reloads(server) == (2, 0), "counted")
        fill(stub, 6000)
        assert stats(server)["size"] == 5000


@pytest.mark.parametrize("told", [True, False], ids=["sighup", "noticed"])
def test_a_broken_file_changes_nothing_and_is_told_once(tmp_path, told):
    file = File(tmp_path, store(50))
    with Server("--config", file.path) as server, connect(server.grpc) as stub:
        fill(stub, 50)
        for round, (text, place) in enumerate(
            [
                (store(0), f"{file.path}:2: store.max_items: found 0, allowed: "),
                ("[store\n", f"{file.path}:1: not valid TOML"),
                (store(7, "max_itmes = 3\n"), f"{file.path}:3: store.max_itmes: unknown key; did you mean"),
                (None, f"{file.path}: cannot read the configuration"),
            ],
            start=1,
        ):
            file.path.unlink() if text is None else file.write(text)
            if told:
                server.signal(signal.SIGHUP)
            line = server.wait_for_line(NOT_RELOADED, count=round)
            assert line["level"].upper() == "ERROR" and line["error"].startswith(place), line
            assert (stats(server)["max_items"], stats(server)["size"]) == (50, 50)
            wait_until(lambda: reloads(server) == (0, round), "counted")
        # Two looks later nothing was said again: the next thing that happens is the next thing that is told.
        file.write(store(40))
        server.wait_for_line(RELOADED)
        assert len(server.lines(NOT_RELOADED)) == 4
        assert stats(server)["max_items"] == 40


def test_what_the_environment_and_the_flags_say_still_lies_over_the_file(tmp_path):
    file = File(tmp_path, store(10, 'max_memory = "10MiB"\n'))
    flags = ["--config", file.path, "--max-memory", "20MiB"]
    with Server(*flags, environment={"CACHE_MAX_ITEMS": "30"}) as server:
        assert stats(server)["max_items"] == 30
        file.write(store(11, 'max_memory = "11MiB"\nmax_value = "1MiB"\n'))
        server.wait_for_line(RELOADED)
        told = {line["setting"]: (line["file"], line["overridden_by"]) for line in server.lines("in the file only")}
        assert told == {"store.max_items": ("11", "CACHE_MAX_ITEMS"), "store.max_memory": ('"11MiB"', "--max-memory")}
        now = stats(server)
        assert (now["max_items"], now["max_memory_bytes"], now["max_value_bytes"]) == (30, 20 * MIB, MIB)


def test_what_needs_a_restart_is_named_in_one_warning(tmp_path):
    file = File(tmp_path, store(10))
    with Server("--config", file.path) as server:
        file.write(store(11, 'shards = 2\n[eviction]\npolicy = "sieve"\n[server]\nshutdown_grace = "1s"\n'))
        server.wait_for_line(RELOADED)
        [warning] = server.lines(RESTART)
        assert warning["settings"] == "eviction.policy, server.shutdown_grace, store.shards"
        assert stats(server)["max_items"] == 11
        # A policy counts in what it was made for.
        file.write(store("unlimited", 'max_memory = "50MiB"\n'))
        server.wait_for_line(RELOADED, count=2)
        assert server.lines(RESTART)[1]["settings"] == "eviction.weigh_by, store.max_items, transport.max_message"
        assert (stats(server)["max_items"], stats(server)["max_memory_bytes"]) == (11, 50 * MIB)
        # What is taken back needs none.
        file.write(store(12))
        server.wait_for_line(RELOADED, count=3)
        assert len(server.lines(RESTART)) == 2 and stats(server)["max_items"] == 12


def test_sighup_without_a_file_or_a_change_is_no_harm(tmp_path):
    with Server() as server:
        server.signal(signal.SIGHUP)
        server.wait_for_line("told to reload")
        assert stats(server)["max_items"] == 1000 and reloads(server) == (0, 0)
    file = File(tmp_path, store(10))
    with Server("--config", file.path) as server:
        for count in (1, 2):
            server.signal(signal.SIGHUP)
            server.wait_for_line(RELOADED, count=count)
        os.utime(file.path)
        file.replace(store(10))
        server.signal(signal.SIGHUP)
        server.wait_for_line(RELOADED, count=3)
        assert not server.lines(CHANGED) and reloads(server) == (3, 0)


def test_shrinking_under_load_fails_no_request_and_gives_memory_back(tmp_path):
    entries, left = 200_000, 2_000
    file = File(tmp_path, store(entries, 'max_memory = "512MiB"\n'))

    @contextlib.contextmanager
    def session():
        with connect(server.grpc) as stub:
            keys = iter(range(10**9))
            yield lambda: (stub.Set(pb.CacheItem(key=f"n{next(keys)}", value=b"v" * 400)), stub.Get(pb.CacheKey(key="k1")))

    with Server("--config", file.path) as server:
        before = resident(server)
        with connect(server.grpc) as stub:
            fill(stub, entries, size=1000)
        full = resident(server)
        assert full - before > 200 * MIB and stats(server)["size"] > 0.99 * entries
        with Load(session, clients=4) as load:
            file.replace(store(left, 'max_memory = "512MiB"\n'))
            server.wait_for_line(RELOADED, timeout=30)
            assert stats(server)["size"] <= left
            load.wait_for_more()
            assert stats(server)["size"] <= left
        assert not load.errors
        # Some twenty bytes an entry of tables stay, a few pages, and what the requests of the load needed.
        wait_until(lambda: resident(server) - before < (full - before) / 5, "memory goes back", timeout=30)


# Filling the cache is work and does not wait: a busy machine takes its time.
@pytest.mark.timeout(240)
@pytest.mark.parametrize("policy", histories.POLICIES)
def test_a_memory_limit_that_shrinks_is_kept_while_clients_read_and_gives_memory_back(tmp_path, policy):
    limit, less, largest = 192, 48, 4096
    told = lambda: stats(server)["memory_usage_bytes"]
    resident_memory = lambda: histories.memory_of(server.process.pid)[0]
    text = lambda mib: store("unlimited", f'max_memory = "{mib}MiB"\n[eviction]\npolicy = "{policy}"\n')
    file = File(tmp_path, text(limit))
    rng = random.Random(1)
    # Some have a ttl, and some lie outside cells.
    sizes = [200_000 if number % 2000 == 0 else int(16 * (largest / 16) ** rng.random()) for number in range(400_000)]
    value = lambda number: histories.PAYLOAD[number : number + sizes[number]]
    threads = itertools.count()

    @contextlib.contextmanager
    def session():
        draw = random.Random(next(threads))

        def call():
            number = draw.randrange(len(sizes))
            answer = stub.Get(pb.CacheKey(key=f"k{number}"), timeout=30)
            assert answer.value == (value(number) if answer.found else b""), f"k{number}"

        with connect(server.grpc) as stub:
            yield call

    with Server("--config", file.path) as server:
        with connect(server.grpc) as stub:
            for first in range(0, len(sizes), 1000):
                items = [pb.CacheItem(key=f"k{n}", value=value(n), ttl=3600 * (n % 3)) for n in range(first, first + 1000)]
                stub.MultiSet(pb.MultiCacheItemRequest(items=items))
        assert told() > 0.95 * limit * MIB and resident_memory() > histories.most_allowed(less), "the cache was filled"
        with Load(session, clients=4) as load:
            file.replace(text(less))
            server.signal(signal.SIGHUP)
            server.wait_for_line(RELOADED, timeout=60)
            assert told() <= less * MIB
            load.wait_for_more()
        assert not load.errors
        assert 0.8 * less * MIB < told() <= less * MIB, "as many stay as there is room for"
        wait_until(lambda: resident_memory() <= histories.most_allowed(less), "memory goes back", timeout=60)
