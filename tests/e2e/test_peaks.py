"""What requests and answers take goes back to the system after they are gone, wherever in the allocator's heaps it lies."""

import random
import time

import cache_pb2 as pb
import pytest
from clients import connect, metrics_of
from http2 import Http2, frame
from server import Server, wait_until

MIB = 1 << 20
KEYS = 200
READERS, ANSWERS = 5, 20


def resident(server):
    return metrics_of(server.http)["process_resident_memory_bytes"]


def ask_and_read_nothing(address):
    """Connections with answers of one to two MiB that are ready and that nobody takes."""
    readers = []
    for _ in range(READERS):
        reader = Http2(address)
        reader.h2.increment_flow_control_window(1 << 30)
        reader.h2.update_settings({4: 1 << 24})
        reader.flush()
        keys = frame(pb.MultiCacheKeyRequest(keys=[f"key-{number}" for number in range(KEYS)]).SerializeToString())
        for _ in range(ANSWERS):
            reader.send(reader.open("MultiGet"), keys)
        readers.append(reader)
    return readers


@pytest.mark.timeout(120)
def test_what_peaks_took_goes_back(tmp_path):
    config = tmp_path / "server.toml"
    config.write_text('[store]\nmax_memory = "96MiB"\nmax_value = "4MiB"\n', encoding="ascii")
    rng = random.Random(1)
    with Server("--config", config) as server, connect(server.grpc) as stub:
        for number in range(KEYS):
            stub.Set(pb.CacheItem(key=f"key-{number}", value=bytes(rng.randrange(100, 16_000))))
        before = resident(server)
        most = 0
        for _ in range(3):
            readers = ask_and_read_nothing(server.grpc)
            # Answers are ready one after another: until no more memory is taken for them.
            held, seen = 0, resident(server)
            while seen > held:
                time.sleep(0.5)
                held, seen = seen, resident(server)
            most = max(most, seen)
            for reader in readers:
                reader.socket.close()
        assert most > before + 60 * MIB, f"{most / MIB:.0f} MiB is no peak"
        # What the program itself grows by as it is used, and what is not worth asking for.
        wait_until(lambda: resident(server) < before + 24 * MIB, f"the process to be as small as before, {before / MIB:.0f} MiB", 60)
