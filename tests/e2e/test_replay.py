"""`tiny-cache replay` against the real server: the misses are exactly the policy's."""

import collections
import json
import random

import pytest
import zstandard
from server import Server, run

SEED = 20_240_613
REQUESTS = 5_000
CAPACITY = 100


def trace():
    """Keys of which few are asked for often, and which drift."""
    numbers = random.Random(SEED)
    return [int(numbers.paretovariate(0.6)) + position // 200 for position in range(REQUESTS)]


def misses_of(policy, keys):
    """What the literature's definition comes to, naively."""
    resident, misses = collections.OrderedDict(), 0
    for key in keys:
        if key in resident:
            if policy == "lru":
                resident.move_to_end(key)
            continue
        misses += 1
        if len(resident) == CAPACITY:
            resident.popitem(last=False)
        resident[key] = None
    return misses


def replay(server, file, *flags):
    ended = run("replay", "--trace", file, "--target", server.grpc, "--output", "json", *flags, timeout=55)
    assert ended.returncode == 0, ended
    return json.loads(ended.stdout)


@pytest.mark.parametrize("policy", ["lru", "fifo"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zst"])
def test_one_request_at_a_time_gives_the_policys_misses_to_the_last(tmp_path, policy, compressed):
    keys = trace()
    text = "".join(f"{key}\n" for key in keys).encode()
    file = tmp_path / ("keys.txt.zst" if compressed else "keys.txt")
    file.write_bytes(zstandard.compress(text) if compressed else text)
    with Server("--policy", policy, "--max-items", CAPACITY) as server:
        result = replay(server, file)
    expected = misses_of(policy, keys)
    assert CAPACITY < expected < REQUESTS / 2
    assert (result["requests"], result["misses"], result["errors"]) == (REQUESTS, expected, 0)
    assert result["hits"] == REQUESTS - expected
    assert result["latency_microseconds"]["get"]["count"] == REQUESTS


def test_many_requests_at_a_time_lose_none(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text("".join(f"{key}\n" for key in trace()))
    with Server("--max-items", CAPACITY) as server:
        result = replay(server, file, "--connections", "4", "--concurrency", "32", "--value-size", "1KiB")
    assert (result["requests"], result["errors"]) == (REQUESTS, 0)
    assert result["hits"] + result["misses"] == REQUESTS


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text("a\nb\n")
    ended = run("replay", "--trace", file, "--target", "127.0.0.1:1", "--timeout", "2s")
    assert ended.returncode == 2 and "127.0.0.1:1" in ended.stderr
