"""The access log of the real server: complete, rotated without a loss, and a trace that `simulate` agrees on."""

import gzip
import json
import random
import signal
import stat
import threading

import cache_pb2 as pb
import pytest
import zstandard
from clients import connect, fetch
from server import Server, run, wait_until

SEED = 20_241_124
REQUESTS = 4_000
CAPACITY = 100


def logging(directory, **settings):
    """Flags for a server that logs to `directory`/access.jsonl, and that path."""
    path, config = directory / "access.jsonl", directory / "cache.toml"
    settings = {"path": str(path), "flush_interval": "10ms"} | settings
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    config.write_text("[telemetry.access_log]\n" + "".join(lines))
    return ["--config", config], path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def hot_keys():
    """Keys of which few are asked for often, and which drift."""
    numbers = random.Random(SEED)
    return [f"user:{int(numbers.paretovariate(0.6)) + position // 100}" for position in range(REQUESTS)]


def look_aside(stub, namespace=None):
    """An application that stores what it missed, and now and then writes or deletes what others will read."""
    metadata = [("x-cache-namespace", namespace)] if namespace else []
    for position, key in enumerate(hot_keys()):
        if position % 17 == 0:
            stub.Set(pb.CacheItem(key=key, value=b"w" * (position % 300)), metadata=metadata)
        elif position % 23 == 0:
            stub.Delete(pb.CacheKey(key=key), metadata=metadata)
        elif position % 29 == 0:
            stub.SetIfAbsent(pb.CacheItem(key=key, value=b"a" * 10, ttl=3600), metadata=metadata)
        elif not stub.Get(pb.CacheKey(key=key), metadata=metadata).found:
            stub.Set(pb.CacheItem(key=key, value=b"v" * (len(key) * 7), ttl=3600), metadata=metadata)


def simulate(path, *flags):
    ended = run("simulate", "--trace", path, "--no-optimum", "--output", "json", *flags, timeout=55)
    assert ended.returncode == 0, ended
    return json.loads(ended.stdout)


@pytest.mark.parametrize("keys", ["hash", "text"])
@pytest.mark.parametrize("namespace", [None, "web"])
def test_simulate_finds_in_the_log_the_hits_that_the_server_counted(tmp_path, keys, namespace):
    flags, path = logging(tmp_path, keys=keys)
    with Server(*flags, "--policy", "lru", "--max-items", CAPACITY) as server:
        with connect(server.grpc) as stub:
            look_aside(stub, namespace)
            stats = stub.Stats(pb.Empty())
    packed = {
        ".gz": gzip.compress(path.read_bytes()),
        ".zst": zstandard.compress(path.read_bytes()),
    }
    for ending, content in packed.items():
        path.with_name(path.name + ending).write_bytes(content)
    flags = ["--format", "access-log", "--policy", "lru", "--capacity", CAPACITY]
    for ending in ["", *packed]:
        [row] = simulate(path.with_name(path.name + ending), *flags)
        assert stats.misses > 4 * CAPACITY and stats.evictions > CAPACITY
        assert (row["requests"], row["misses"]) == (stats.hits + stats.misses, stats.misses)
    # By its name it is known as what it is, and other policies and sizes can be asked for.
    rows = simulate(path, "--policy", "lru,sieve,w-tinylfu", "--capacity", "50,200")
    assert len(rows) == 6 and all(0 < row["misses"] < row["requests"] for row in rows)


def test_a_line_tells_what_was_done_and_what_came_of_it(tmp_path):
    flags, path = logging(tmp_path, keys="text")
    with Server(*flags, "--max-memory", "1MiB") as server, connect(server.grpc) as stub:
        metadata = [("x-request-id", "id-1"), ("x-cache-namespace", "web")]
        stub.Set(pb.CacheItem(key="a\"b", value=b"12345", ttl=60), metadata=metadata)
        stub.MultiGet(pb.MultiCacheKeyRequest(keys=["a\"b", "none", ""]), metadata=metadata)
        stub.CompareAndSet(pb.CompareAndSetRequest(key="a\"b", expected_value=b"x", value=b"y"), metadata=metadata)
        stub.Delete(pb.CacheKey(key="a\"b"))
        wait_until(lambda: len(read(path)) == 5, "five lines: what is no key has none")
    lines = read(path)
    for line in lines:
        assert 1.7e9 < line.pop("ts") < 1e11 and 0 < line.pop("latency_us") < 1e7
    assert len(lines[4].pop("request_id")) == 32
    web = {"namespace": "web", "request_id": "id-1"}
    written = {"key": "a\"b", "size": 11, "value_bytes": 5}
    assert lines == [
        {"op": "set", **web, **written, "ttl_seconds": 60, "result": "stored"},
        {"op": "get", **web, **written, "result": "hit"},
        {"op": "get", **web, "key": "none", "result": "miss"},
        {"op": "compare_and_set", **web, "key": "a\"b", "size": 7, "value_bytes": 1, "result": "mismatch"},
        {"op": "delete", "key": "a\"b", "result": "not_found"},
    ]
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_a_sample_has_some_keys_whole_and_says_nothing_of_others(tmp_path):
    flags, path = logging(tmp_path, keys="text", sample=0.25)
    with Server(*flags, "--max-items", 1000) as server, connect(server.grpc) as stub:
        for _ in range(3):
            stub.MultiGet(pb.MultiCacheKeyRequest(keys=[f"k{number}" for number in range(2_000)]))
    lines = read(path)
    sampled = {line["key"] for line in lines}
    assert len(lines) == 3 * len(sampled) and 400 < len(sampled) < 600


@pytest.mark.parametrize("told", [True, False], ids=["sighup", "noticed"])
def test_rotation_under_load_loses_no_line_and_no_request(tmp_path, told):
    flags, path = logging(tmp_path)
    done = threading.Event()
    sent = 0
    with Server(*flags) as server, connect(server.grpc) as stub:

        def rotate():
            for number in range(5):
                path.rename(tmp_path / f"rotated-{number}")
                if told:
                    server.signal(signal.SIGHUP)
                wait_until(path.exists, "a new file")
            done.set()

        thread = threading.Thread(target=rotate)
        thread.start()
        while not done.is_set():
            stub.Get(pb.CacheKey(key="k"))
            sent += 1
        thread.join()
        assert not server.lines("lost")
    rotated = [read(file) for file in tmp_path.glob("rotated-*")]
    assert len(rotated) == 5
    assert sum(map(len, rotated)) + len(read(path)) == sent


def test_what_is_queued_is_written_before_the_server_ends(tmp_path):
    flags, path = logging(tmp_path, flush_interval="1h")
    with Server(*flags) as server, connect(server.grpc) as stub:
        for number in range(200):
            stub.Set(pb.CacheItem(key=f"k{number}", value=b"v"))
        assert path.read_text() == ""
    assert len(read(path)) == 200


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path):
    flags, _ = logging(tmp_path, path="/dev/full", queue=10)
    with Server(*flags) as server, connect(server.grpc) as stub:
        keys = [f"k{number}" for number in range(1_000)]
        stub.MultiGet(pb.MultiCacheKeyRequest(keys=keys))
        assert "No space left" in server.wait_for_line("access log: cannot be written")["error"]
        # From here on the writer takes nothing from the queue; before, it may have emptied it in the middle of a call.
        stub.MultiGet(pb.MultiCacheKeyRequest(keys=keys))
        assert server.wait_for_line("lines are lost")["lost_lines"] > 0
        assert not stub.Get(pb.CacheKey(key="k")).found
        metric = 'tiny_cache_telemetry_dropped_total{signal="access_log"} '
        [lost] = [line for line in fetch(server.http, "/metrics").body.decode().splitlines() if line.startswith(metric)]
        assert int(lost.removeprefix(metric)) >= 900
    assert len(server.lines("cannot be written")) == 1


def test_it_goes_to_standard_output_where_that_is_asked_for(tmp_path):
    flags, _ = logging(tmp_path, path="-")
    output = tmp_path / "output"
    with output.open("w") as stdout:
        with Server(*flags, stdout=stdout) as server, connect(server.grpc) as stub:
            stub.Get(pb.CacheKey(key="k"))
            wait_until(lambda: len(read(output)) == 1, "the line")


def test_a_path_that_cannot_be_opened_ends_the_start_with_its_place(tmp_path):
    flags, path = logging(tmp_path, path=str(tmp_path / "none" / "access.jsonl"))
    ended = run("serve", *flags, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    assert ended.returncode == 2
    [line] = [line for line in ended.stderr.splitlines() if "access_log" in line]
    assert f"{tmp_path}/cache.toml:2: telemetry.access_log.path: cannot open" in line
    assert line.endswith(f"the directory {tmp_path}/none does not exist")
