"""Messages that are small until they are unpacked, and messages that never end: by every configuration that is shipped, the
server stays below the memory that its container or unit is given, as if its cache were full meanwhile."""

import contextlib
import pathlib
import re
import threading
import zlib

import cache_pb2 as pb
import h2.exceptions
import pytest
import yaml
import zstandard
from clients import fetch
from http2 import Http2, frame
from server import ROOT, Server, wait_until

KIB, MIB = 1 << 10, 1 << 20
UNITS = {"": 1, "m": MIB, "M": MIB, "Mi": MIB, "MiB": MIB, "Gi": 1 << 30, "GiB": 1 << 30}
DEPLOY = ROOT / "deploy"
CLIENTS = 6
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 0, 3, 8


def size(text):
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


def of_kubernetes(name):
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))
    (config,) = (it["data"]["tiny-cache.toml"] for it in documents if it["kind"] == "ConfigMap")
    (pod,) = (it["spec"]["template"]["spec"] for it in documents if it["kind"] == "Deployment")
    containers = pod["containers"] + pod.get("initContainers", [])
    (limit,) = (it["resources"]["limits"]["memory"] for it in containers if it["image"].startswith("tiny-cache:"))
    return config, {}, size(limit)


def of_compose(path, config):
    service = yaml.safe_load((DEPLOY / path).read_text())["services"]["cache"]
    environment = {name: value for name, value in service.get("environment", {}).items() if "LOG" not in name}
    return (DEPLOY / config).read_text(), environment, size(service["mem_limit"])


def of_systemd():
    unit, config = ((DEPLOY / "systemd" / f"tiny-cache.{suffix}").read_text() for suffix in ("service", "toml"))
    return config, {}, size(re.search(r"^MemoryMax=(\w+)$", unit, re.MULTILINE)[1])


def by_default():
    """The defaults, and what the rule of thumb of docs/operations.md gives them: a value may be as large as the store."""
    return "", {}, 100 * MIB * 5 // 2 + 64 * MIB


DEPLOYMENTS = {
    "defaults": by_default,
    "systemd": of_systemd,
    "compose": lambda: of_compose("compose.yaml", "compose.toml"),
    "observability": lambda: of_compose("observability/compose.yaml", "observability/cache.toml"),
    "sidecar": lambda: of_kubernetes("sidecar.yaml"),
    "service": lambda: of_kubernetes("service.yaml"),
}


@pytest.fixture(params=DEPLOYMENTS)
def deployed(request, tmp_path):
    """A server as it is deployed, but for where it listens and whom it tells; and the memory that it is given."""
    config, environment, limit = DEPLOYMENTS[request.param]()
    path = tmp_path / "cache.toml"
    # The first listener of a kind is told where by flags; another is for probes.
    path.write_text(config.split("\n[telemetry")[0].replace("[::]:8081", "127.0.0.1:0"))
    with Server("--config", path, environment=environment) as server:
        server.http = server.http.split(", ")[0]
        yield server, limit


def resident(server, what):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * KIB


def stats(server):
    """Its figures, which a server that is busy may have no time for."""
    return wait_until(lambda: (answer := fetch(server.http, "/stats")).status == 200 and answer, "the figures").json()


class Zeros:
    """A message of this many bytes that nobody would store, since it has no key."""

    def __init__(self, bytes_unpacked):
        head = pb.CacheItem(value=b"").SerializeToString() + b"\x12"
        length, left = b"", bytes_unpacked
        while left > 127:
            length += bytes([left & 127 | 128])
            left >>= 7
        self.pieces = [head + length + bytes([left])] + [bytes(MIB)] * (bytes_unpacked // MIB) + [bytes(bytes_unpacked % MIB)]

    def packed(self, encoding):
        if encoding == "gzip":
            packer = zlib.compressobj(1, wbits=31)
        else:
            packer = zstandard.ZstdCompressor(level=1).compressobj()
        return frame(b"".join([packer.compress(piece) for piece in self.pieces] + [packer.flush()]), compressed=1)


def at_once(tasks):
    """Runs all of them at a time; what went wrong in any."""
    wrong = []

    def run(task):
        try:
            task()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def bombs(server, max_value, stack):
    """Each as large as a value may be, or as two of them."""
    packed = [(encoding, Zeros(max_value - KIB).packed(encoding)) for encoding in ("gzip", "zstd")]
    packed.append(("zstd", Zeros(2 * max_value).packed("zstd")))
    statuses = []

    def throw(encoding, message):
        with Http2(server.grpc, timeout=60) as client:
            statuses.append(client.call("Set", message, [("grpc-encoding", encoding)]).status)

    at_once([lambda bomb=bomb: throw(*bomb) for bomb in packed * (CLIENTS // 3)])
    assert len(statuses) == CLIENTS
    # Unpacked and found to have no key; or not unpacked.
    assert set(statuses) <= {INVALID_ARGUMENT, RESOURCE_EXHAUSTED}, statuses
    throw(*packed[0])
    assert statuses[-1] == INVALID_ARGUMENT, "alone it is unpacked"


def pour(client, stream, left):
    """Sends so many zeros, as fast as they are taken."""
    while left and not client.streams[stream].done:
        room = min(left, client.h2.max_outbound_frame_size, client.h2.local_flow_control_window(stream))
        if room:
            client.h2.send_data(stream, bytes(room))
            client.flush()
            left -= room
        else:
            client.pump()


def unfinished(streams, encoding):
    """Bodies that lack their last byte, sent on until they are refused."""

    def attack(server, max_value, stack):
        each = max_value // streams
        headers = [("grpc-encoding", encoding)]

        def send():
            client = stack.enter_context(Http2(server.grpc, timeout=30))
            with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
                begun = [client.open("Set", headers) for _ in range(streams)]
                for stream in begun:
                    client.send(stream, frame(length=each), end=False)
                    pour(client, stream, each - 1)

        at_once([send] * CLIENTS)

    return attack


ATTACKS = {
    "bombs": bombs,
    "unfinished": unfinished(1, "identity"),
    "unfinished, said to be packed": unfinished(1, "gzip"),
    "unfinished, many": unfinished(50, "identity"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_unpacked_or_never_ends_stays_within_the_memory_that_is_given(deployed, name):
    server, limit = deployed
    before = stats(server)
    entries = before["max_memory_bytes"] * 11 // 10
    with contextlib.ExitStack() as stack:
        ATTACKS[name](server, before["max_value_bytes"], stack)
        assert fetch(server.http, "/ready").status == 200
        most = resident(server, "VmHWM")
        print(f"{name}: {most / MIB:.0f} MiB and {entries / MIB:.0f} of entries, {limit / MIB:.0f} are given")
        assert stats(server)["size"] == 0, "nothing of it was stored"
    assert most + entries <= limit, f"{(most + entries) / MIB:.0f} MiB, {limit / MIB:.0f} are given"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_message_is_unpacked_no_further_than_there_is_room(tmp_path, encoding):
    """Although it may be as large as it is, and nothing else is in flight."""
    config = tmp_path / "cache.toml"
    config.write_text('[[transport]]\nkind = "grpc"\nmax_in_flight_bytes = "8MiB"\n[[transport]]\nkind = "http"\n')
    with Server("--config", config) as server, Http2(server.grpc, timeout=60) as client:
        before = resident(server, "VmHWM")
        answer = client.call("Set", Zeros(64 * MIB).packed(encoding), [("grpc-encoding", encoding)])
        assert (answer.status, "in flight" in answer.message) == (RESOURCE_EXHAUSTED, True)
        taken = resident(server, "VmHWM") - before
        print(f"{taken / MIB:.1f} MiB")
        # What is charged, and the window of zstd, which is not.
        assert taken <= (8 + 8 + 8) * MIB
        answer = client.call("Set", Zeros(6 * MIB).packed(encoding), [("grpc-encoding", encoding)])
        assert answer.status == INVALID_ARGUMENT, "what there is room for is unpacked, and has no key"
