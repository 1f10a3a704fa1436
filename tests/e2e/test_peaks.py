"""What requests and answers take goes back to the system after they are gone, wherever in the allocator's heaps it lies."""

import random

import cache_pb2 as pb
import pytest
from clients import connect
from histories import MIB, memory_of
from http2 import ask_and_read_nothing, frame
from server import Server, wait_until

KEYS = 200
# What the program itself grows by as it is used, and what is not worth asking for.
TOLERATED = 24 * MIB
PEAK = 60 * MIB


@pytest.mark.timeout(180)
def test_what_peaks_took_goes_back(tmp_path):
    config = tmp_path / "server.toml"
    config.write_text('[store]\nmax_memory = "96MiB"\nmax_value = "4MiB"\n', encoding="ascii")
    rng = random.Random(1)
    keys = frame(pb.MultiCacheKeyRequest(keys=[f"key-{number}" for number in range(KEYS)]).SerializeToString())
    with Server("--config", config) as server, connect(server.grpc) as stub:
        resident = lambda: memory_of(server.process.pid)[0]
        for number in range(KEYS):
            stub.Set(pb.CacheItem(key=f"key-{number}", value=bytes(rng.randrange(100, 16_000))))
        before = resident()
        for _ in range(2):
            readers = ask_and_read_nothing(server.grpc, "MultiGet", keys, connections=5, calls=20)
            wait_until(lambda: resident() > before + PEAK, f"a peak above {before / MIB:.0f} MiB")
            for reader in readers:
                reader.socket.close()
            wait_until(lambda: resident() < before + TOLERATED, f"as little memory as before, {before / MIB:.0f} MiB", 60)
