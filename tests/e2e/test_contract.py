"""The compatibility contract through a real Python client: the nine calls and what they come to."""

import time

import cache_pb2 as pb
import pytest
from clients import assert_refused, connect
from grpc import StatusCode
from server import Server, wait_until

MIB = 1 << 20


def value_of(stub, key, **options):
    """The value of a key, or None."""
    answer = stub.Get(pb.CacheKey(key=key), **options)
    assert answer.found or answer.value == b""
    return answer.value if answer.found else None


def put(stub, key, value, ttl=0):
    assert stub.Set(pb.CacheItem(key=key, value=value, ttl=ttl)).status == pb.OK


def swap(stub, key, old, new, ttl=0):
    request = pb.CompareAndSetRequest(key=key, expected_value=old, value=new, ttl=ttl)
    return stub.CompareAndSet(request).status


def writes(key, value, old):
    """Every call that writes one value, as a function of the stub."""
    item = pb.CacheItem(key=key, value=value)
    return {
        "Set": lambda stub: stub.Set(item),
        "SetIfAbsent": lambda stub: stub.SetIfAbsent(item),
        "CompareAndSet": lambda stub: swap(stub, key, old, value),
    }


def stats_of(stub):
    return stub.Stats(pb.Empty())


def test_get_and_set_and_delete(stub):
    assert value_of(stub, "k") is None
    put(stub, "k", b"1")
    assert value_of(stub, "k") == b"1"
    put(stub, "k", b"")
    assert value_of(stub, "k") == b""
    assert stub.Delete(pb.CacheKey(key="k")).status == pb.OK
    assert value_of(stub, "k") is None
    assert stub.Delete(pb.CacheKey(key="k")).status == pb.OK


def test_set_if_absent_stores_only_where_nothing_is(stub):
    write = lambda value: stub.SetIfAbsent(pb.CacheItem(key="k", value=value)).status
    assert (write(b"1"), write(b"2"), value_of(stub, "k")) == (pb.STORED, pb.EXISTS, b"1")


def test_compare_and_set_compares_every_byte(stub):
    assert swap(stub, "k", b"", b"new") == pb.NOT_FOUND
    put(stub, "k", b"\x00\xffold")
    for wrong in (b"", b"\x00\xffol", b"\x00\xffolD", b"\x00\xffold "):
        assert swap(stub, "k", wrong, b"new") == pb.MISMATCH
    assert value_of(stub, "k") == b"\x00\xffold"
    assert swap(stub, "k", b"\x00\xffold", b"new") == pb.STORED
    assert value_of(stub, "k") == b"new"


def test_keys_are_counted_in_code_points(stub):
    for good in ("k", "k" * 256, "\N{GRINNING FACE}" * 256, "\x00", " ", "a\nb"):
        put(stub, good, good.encode())
        assert value_of(stub, good) == good.encode()
    for bad in ("", "k" * 257, "\N{GRINNING FACE}" * 257):
        key, item = pb.CacheKey(key=bad), pb.CacheItem(key=bad, value=b"1")
        calls = (
            lambda: stub.Get(key),
            lambda: stub.Delete(key),
            lambda: stub.Set(item),
            lambda: stub.SetIfAbsent(item),
            lambda: swap(stub, bad, b"", b"1"),
        )
        for call in calls:
            assert_refused(call, StatusCode.INVALID_ARGUMENT, "key")


@pytest.mark.parametrize("write", ["Set", "SetIfAbsent", "CompareAndSet", "MultiSet"])
def test_an_entry_expires_once_its_ttl_is_over_and_not_before(stub, write):
    item = pb.CacheItem(key="k", value=b"v", ttl=1)
    if write == "CompareAndSet":
        put(stub, "k", b"old")
    for key, ttl in (("zero", 0), ("negative", -1), ("least", -(2**31)), ("most", 2**31 - 1)):
        put(stub, key, b"stays", ttl)
    began = time.monotonic()
    match write:
        case "Set":
            stub.Set(item)
        case "SetIfAbsent":
            assert stub.SetIfAbsent(item).status == pb.STORED
        case "CompareAndSet":
            assert swap(stub, "k", b"old", b"v", ttl=1) == pb.STORED
        case "MultiSet":
            stub.MultiSet(pb.MultiCacheItemRequest(items=[item]))
    written = time.monotonic()
    lived_until = written
    # Where the machine stood still for a second, it is rightly gone.
    assert value_of(stub, "k") == b"v" or time.monotonic() - began >= 1.0

    def is_gone():
        nonlocal lived_until
        asked = time.monotonic()
        if value_of(stub, "k") is None:
            return True
        lived_until = asked
        return False

    wait_until(is_gone, "the entry expires", timeout=5)
    gone = time.monotonic()
    assert gone - began >= 1.0 and lived_until - written <= 1.0
    # Expired is missing, for every call.
    assert swap(stub, "k", b"v", b"w") == pb.NOT_FOUND
    assert [item.found for item in stub.MultiGet(pb.MultiCacheKeyRequest(keys=["k"])).items] == [False]
    assert stub.SetIfAbsent(pb.CacheItem(key="k", value=b"w")).status == pb.STORED
    for key in ("zero", "negative", "least", "most"):
        assert value_of(stub, key) == b"stays"
    assert stats_of(stub).expired_removals == 1


def test_a_write_replaces_the_ttl_too(stub):
    for key in ("set", "swapped", "control"):
        put(stub, key, b"1", ttl=1)
    put(stub, "set", b"2")
    assert swap(stub, "swapped", b"1", b"2") == pb.STORED
    # EXISTS and MISMATCH change nothing, the ttl neither.
    assert stub.SetIfAbsent(pb.CacheItem(key="control", value=b"2")).status == pb.EXISTS
    assert swap(stub, "control", b"2", b"3") == pb.MISMATCH
    wait_until(lambda: value_of(stub, "control") is None, "the control expires", timeout=5)
    assert (value_of(stub, "set"), value_of(stub, "swapped")) == (b"2", b"2")


def test_statistics_count_live_entries_only(stub):
    put(stub, "short", b"x" * 1000, ttl=1)
    put(stub, "long", b"x" * 1000)
    before = stats_of(stub)
    assert before.size == 2 and before.memory_usage_bytes > 2000
    # Nobody asks for the key: Stats itself removes what has expired.
    after = wait_until(lambda: (now := stats_of(stub)).size == 1 and now, "the entry expires", timeout=5)
    assert after.expired_removals == 1 and after.evictions == 0
    assert 1000 < after.memory_usage_bytes < 2000


def test_a_value_over_the_limit_is_refused_and_the_old_one_stays():
    with Server(environment={"CACHE_MAX_VALUE_BYTES": "1024"}) as server, connect(server.grpc) as stub:
        put(stub, "k", b"x" * 1024)
        for key in ("k", "new"):
            for write in writes(key, b"y" * 1025, old=b"x" * 1024).values():
                assert_refused(lambda: write(stub), StatusCode.RESOURCE_EXHAUSTED, "too large")
        assert value_of(stub, "k") == b"x" * 1024
        assert value_of(stub, "new") is None
        stats = stats_of(stub)
        assert (stats.rejected_oversize, stats.rejected_capacity, stats.max_value_bytes) == (6, 0, 1024)


def test_a_write_that_no_eviction_can_make_room_for_is_refused_and_the_old_value_stays():
    # A value of the whole limit is allowed, but with its key and bookkeeping it is too much.
    with Server("--max-memory", "1MiB") as server, connect(server.grpc) as stub:
        put(stub, "k", b"old")
        put(stub, "other", b"old")
        for name, write in writes("k", b"y" * MIB, old=b"old").items():
            if name != "SetIfAbsent":
                assert_refused(lambda: write(stub), StatusCode.RESOURCE_EXHAUSTED, "capacity exhausted")
        for name, write in writes("new", b"y" * MIB, old=b"").items():
            if name != "CompareAndSet":
                assert_refused(lambda: write(stub), StatusCode.RESOURCE_EXHAUSTED, "capacity exhausted")
        assert (value_of(stub, "k"), value_of(stub, "other"), value_of(stub, "new")) == (b"old", b"old", None)
        stats = stats_of(stub)
        assert (stats.rejected_oversize, stats.rejected_capacity, stats.evictions) == (0, 4, 0)


def test_a_full_cache_evicts_for_a_newcomer_and_never_for_an_update():
    with Server("--max-items", "3") as server, connect(server.grpc) as stub:
        for key in "abc":
            put(stub, key, b"1")
        for _ in range(3):
            put(stub, "a", b"2")
            assert swap(stub, "b", value_of(stub, "b"), b"2") == pb.STORED
            stub.MultiSet(pb.MultiCacheItemRequest(items=[pb.CacheItem(key="a", value=b"3")]))
        assert (stats_of(stub).evictions, stats_of(stub).size) == (0, 3)
        put(stub, "d", b"1")
        stats = stats_of(stub)
        assert (stats.evictions, stats.lru_evictions, stats.size, stats.max_items) == (1, 1, 3, 3)
        assert [value_of(stub, key) for key in "abcd"] == [b"3", b"2", None, b"1"]


def test_the_memory_limit_evicts_and_is_never_exceeded():
    with Server("--max-memory", "1MiB", "--max-items", "unlimited") as server, connect(server.grpc) as stub:
        for number in range(64):
            put(stub, f"k{number}", b"x" * 50_000)
            assert stats_of(stub).memory_usage_bytes <= MIB
        stats = stats_of(stub)
        assert stats.size + stats.evictions == 64 and 15 <= stats.size <= 20
        assert value_of(stub, "k63") is not None and value_of(stub, "k0") is None


def test_batches_answer_each_item_in_order_and_a_bad_one_fails_alone():
    with Server(environment={"CACHE_MAX_VALUE_BYTES": "10"}) as server, connect(server.grpc) as stub:
        item = lambda key, value: pb.CacheItem(key=key, value=value)
        items = [item("b", b"1"), item("", b""), item("a", b"1"), item("big", b"x" * 11), item("b", b"2"), item("k" * 257, b"")]
        results = stub.MultiSet(pb.MultiCacheItemRequest(items=items)).items
        assert [result.key for result in results] == [item.key for item in items]
        assert [result.status for result in results] == [pb.OK, pb.ERROR, pb.OK, pb.ERROR, pb.OK, pb.ERROR]
        assert [bool(result.error) for result in results] == [False, True, False, True, False, True]
        assert "too large" in results[3].error and "key" in results[1].error and "key" in results[5].error

        keys = ["a", "", "missing", "b", "a", "k" * 257]
        found = stub.MultiGet(pb.MultiCacheKeyRequest(keys=keys)).items
        assert [(item.key, item.found, item.value, bool(item.error)) for item in found] == [
            ("a", True, b"1", False),
            ("", False, b"", True),
            ("missing", False, b"", False),
            ("b", True, b"2", False),
            ("a", True, b"1", False),
            ("k" * 257, False, b"", True),
        ]
        stats = stats_of(stub)
        assert (stats.hits, stats.misses, stats.rejected_oversize) == (3, 1, 1)

        results = stub.MultiDelete(pb.MultiCacheKeyRequest(keys=["a", "", "a", "missing", "b"])).items
        assert [(result.key, result.status, bool(result.error)) for result in results] == [
            ("a", pb.OK, False),
            ("", pb.ERROR, True),
            ("a", pb.OK, False),
            ("missing", pb.OK, False),
            ("b", pb.OK, False),
        ]
        assert stats_of(stub).size == 0


def test_empty_batches_are_answered(stub):
    for answer in (
        stub.MultiGet(pb.MultiCacheKeyRequest()),
        stub.MultiSet(pb.MultiCacheItemRequest()),
        stub.MultiDelete(pb.MultiCacheKeyRequest()),
    ):
        assert list(answer.items) == []


def test_a_batch_of_thousands_is_one_call(stub):
    items = [pb.CacheItem(key=f"k{number % 500}", value=str(number).encode()) for number in range(5000)]
    assert len(stub.MultiSet(pb.MultiCacheItemRequest(items=items)).items) == 5000
    found = stub.MultiGet(pb.MultiCacheKeyRequest(keys=[item.key for item in items])).items
    assert [int(item.value) for item in found] == [4500 + number % 500 for number in range(5000)]


def test_statistics_are_what_happened(stub):
    stats = stats_of(stub)
    assert stats.hit_rate == 0.0 and stats.size == 0 and stats.memory_usage_bytes == 0
    put(stub, "k", b"x" * 100)
    for _ in range(3):
        value_of(stub, "k")
    value_of(stub, "missing")
    # Conditional writes and deletions are neither hits nor misses.
    swap(stub, "missing", b"", b"")
    stub.SetIfAbsent(pb.CacheItem(key="k", value=b""))
    stub.Delete(pb.CacheKey(key="missing"))
    stats = stats_of(stub)
    expected = {
        "size": 1,
        "hits": 3,
        "misses": 1,
        "evictions": 0,
        "hit_rate": 0.75,
        "max_memory_bytes": 100 * MIB,
        "max_items": 1000,
        "max_value_bytes": 100 * MIB,
        "lru_evictions": 0,
        "expired_removals": 0,
        "rejected_oversize": 0,
        "rejected_capacity": 0,
        # Ours, in full width.
        "entries": 1,
        "hits_total": 3,
        "misses_total": 1,
        "max_entries": 1000,
        "policy": "lru",
        "store": "memory",
        "shards": 1,
    }
    assert {name: getattr(stats, name) for name in expected} == expected
    assert 101 < stats.memory_usage_bytes < 300


def test_narrow_fields_saturate_and_wide_ones_tell_the_truth():
    # Two thousand million requests would take hours, but a limit beyond an int32 is configured at once.
    with Server("--max-items", 3_000_000_000, "--max-memory", "5GiB") as server, connect(server.grpc) as stub:
        stats = stats_of(stub)
        assert (stats.max_items, stats.max_entries) == (2**31 - 1, 3_000_000_000)
        assert stats.max_memory_bytes == 5 << 30
        put(stub, "k", b"v")
        assert value_of(stub, "k") == b"v"
    with Server("--max-items", "unlimited") as server, connect(server.grpc) as stub:
        stats = stats_of(stub)
        assert (stats.max_items, stats.max_entries) == (2**31 - 1, 2**64 - 1)


def test_large_values_travel_without_a_setting(stub):
    big = bytes(range(256)) * (8 * MIB // 256)
    put(stub, "k", big)
    assert value_of(stub, "k") == big
    assert swap(stub, "k", big, big[::-1]) == pb.STORED
    found = stub.MultiGet(pb.MultiCacheKeyRequest(keys=["k", "k", "k"])).items
    assert [item.value == big[::-1] for item in found] == [True] * 3


def test_a_message_over_the_limit_is_refused_and_the_connection_stays():
    with Server(environment={"CACHE_MAX_VALUE_BYTES": str(MIB)}) as server, connect(server.grpc) as stub:
        put(stub, "k", b"x" * MIB)
        # The largest message is two values, as CompareAndSet has, and 1 MiB.
        assert swap(stub, "k", b"x" * MIB, b"y" * MIB) == pb.STORED
        for write in writes("k", b"z" * 4 * MIB, old=b"").values():
            assert_refused(lambda: write(stub), StatusCode.RESOURCE_EXHAUSTED, "too large")
        assert value_of(stub, "k") == b"y" * MIB
        assert stats_of(stub).rejected_oversize == 3
