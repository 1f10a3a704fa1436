"""What the metrics tell of the inside of the cache: why entries leave, how old they are then, what the policy holds."""

import re

import cache_pb2 as pb
import pytest
from clients import connect, fetch
from server import Server, wait_until

ITEMS = 2000
BATCH = 500


def samples_of(address):
    """The samples of /metrics by name and labels."""
    text = fetch(address, "/metrics").body.decode()
    return {sample: float(value) for sample, value in re.findall(r"^([^#\s]+) (\S+)$", text, re.MULTILINE)}


def labelled(samples, name, label):
    """The values of a metric by one of its labels."""
    found = (re.fullmatch(rf'{name}\{{(?:.*,)?{label}="([^"]*)".*\}}', sample) for sample in samples)
    return {match[1]: samples[match[0]] for match in found if match}


def store(stub, first, count, ttl=0):
    for begin in range(first, first + count, BATCH):
        items = [pb.CacheItem(key=f"key-{number}", value=b"v" * 100, ttl=ttl) for number in range(begin, begin + BATCH)]
        answers = stub.MultiSet(pb.MultiCacheItemRequest(items=items)).items
        assert all(answer.status == pb.OK for answer in answers)


@pytest.fixture
def server():
    environment = {"CACHE_MAX_ITEMS": str(ITEMS), "CACHE_CLEANUP_INTERVAL": "1"}
    with Server("--policy", "s3-fifo", environment=environment) as server, connect(server.grpc) as stub:
        yield server, stub


def test_removals_by_reason_make_up_what_was_stored(server):
    server, stub = server
    store(stub, 0, 5 * ITEMS)
    store(stub, 5 * ITEMS - BATCH, BATCH)  # Some are there still, and replaced.
    deleted = sum(stub.Get(pb.CacheKey(key=f"key-{number}")).found for number in range(5 * ITEMS - 50, 5 * ITEMS))
    stub.MultiDelete(pb.MultiCacheKeyRequest(keys=[f"key-{number}" for number in range(5 * ITEMS - 50, 5 * ITEMS)]))
    stub.Set(pb.CacheItem(key="short", value=b"v", ttl=1))
    swept = lambda: samples_of(server.http)["tiny_cache_sweep_removed_total"]
    wait_until(lambda: swept() == 1, "a sweep removes what has expired")

    samples = samples_of(server.http)
    removals = labelled(samples, "tiny_cache_removals_total", "reason")
    assert sorted(removals) == ["cleared", "deleted", "evicted", "expired", "rejected", "replaced"]
    assert removals["replaced"] > 0 and removals["deleted"] == deleted > 0 and removals["expired"] == 1
    assert sum(removals.values()) + samples["tiny_cache_entries"] == 5 * ITEMS + BATCH + 1

    resident = labelled(samples, "tiny_cache_resident_bytes", "kind")
    assert resident["values"] == 100 * samples["tiny_cache_entries"]
    assert 0 < resident["keys"] < resident["values"] and resident["overhead"] > 0
    assert sum(resident.values()) == samples["tiny_cache_memory_usage_bytes"]
    assert (samples["tiny_cache_shards"], samples["tiny_cache_shard_imbalance_ratio"]) == (1, 1)
    assert samples["tiny_cache_sweep_duration_seconds_count"] >= 1
    assert samples["tiny_cache_sweep_backlog"] == 0


def test_ages_at_eviction_are_told_of_a_sample(server):
    server, stub = server
    store(stub, 0, 20 * ITEMS)
    samples = samples_of(server.http)
    evicted = samples["tiny_cache_evictions_total"]
    for name in ("tiny_cache_eviction_age_seconds", "tiny_cache_eviction_idle_seconds"):
        told = samples[f"{name}_count"] + samples["tiny_cache_eviction_left_out_total"]
        assert evicted / 128 < told < evicted / 32, "one in 64"
        assert 0 < samples[f"{name}_sum"] < 60 * samples[f"{name}_count"], "seconds, as long as the test at the most"
        buckets = labelled(samples, f"{name}_bucket", "le")
        assert buckets["+Inf"] == buckets["60"] == samples[f"{name}_count"]
    assert samples["tiny_cache_eviction_idle_seconds_sum"] <= samples["tiny_cache_eviction_age_seconds_sum"]


def test_the_policys_gauges_carry_its_name(server):
    server, stub = server
    store(stub, 0, 2 * ITEMS)
    store(stub, ITEMS, BATCH)  # These have left, and their ghosts are remembered.
    samples = samples_of(server.http)
    assert samples['tiny_cache_policy_info{policy="s3-fifo",store="memory"}'] == 1
    assert set(labelled(samples, "tiny_cache_policy_state", "policy")) == {"s3-fifo"}
    gauges = labelled(samples, "tiny_cache_policy_state", "gauge")
    assert gauges["small_entries"] + gauges["main_entries"] == samples["tiny_cache_entries"] == ITEMS
    assert gauges["ghost_entries"] > 0 and gauges["ghost_hits"] > 0
