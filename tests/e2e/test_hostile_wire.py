"""Attacks on the wire, and one checker for all of them.

Whatever a client does, the server stays ready, holds no more memory than docs/operations.md says that it can be made to by that, writes
next to nothing to the log, and another client hardly notices; and whoever comes anew is served, probes as well. Here attacker, bystander and server take each other's processor, so each attack goes on for a second at a bounded pace, and
a bystander may wait for a time that a busy machine could cost it as well. Whether its 99th percentile at most doubles is what
scripts/bench-hostile measures, where they do not.
"""

import contextlib
import pathlib
import resource
import socket
import time

import cache_pb2 as pb
import pytest
from attacker import HELLO, KIB, MIB, Attacker, victim
from attacks import ATTACKS, PARTS, USED, memory_bound, play
from bystander import bystander, percentile99, taken_within
from clients import connect, fetch
from http2 import address_of
from newcomer import newcomers
from server import Server, wait_until

pytestmark = pytest.mark.alone

# Of an attack, and half of it of the quiet before.
SECONDS = 0.8
# What the machine's noise may add to the 99th percentile of a second, of the best of several.
NOISE_SECONDS = 0.01
TRIES = 5
# Of fewer calls in quiet nothing can be said.
LEAST_CALLS = 20
# Each thing that the server logs of strangers it tells once in ten seconds at the most, and there are not many.
MOST_LINES = 5


def resident(server, what):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * KIB


def quiet_and_attacked(calls, begin, attack, end):
    """The 99th percentile of what was over before `begin`, and of what was in hand between `attack` and `end`. Before may be `None`."""
    quiet = [seconds for began, seconds in calls if began + seconds <= begin]
    return percentile99(quiet) if len(quiet) >= LEAST_CALLS else None, percentile99(taken_within(calls, attack, end))


def test_what_attacks_may_hold_is_told_of_those_that_there_are():
    assert set(USED) <= set(ATTACKS)
    assert {part for parts in USED.values() for part in parts} == set(PARTS)


def test_what_an_attack_costs_is_not_taken_for_quiet():
    quiet = [(n * 0.01, 0.001) for n in range(100)]
    attacked = [(1 + n * 0.1, 0.1) for n in range(8)]
    # One that began in quiet and had to wait since is the attack's.
    assert quiet_and_attacked([*quiet, (0.999, 0.5), *attacked], 1, 1, 1.8) == (0.001, 0.5)
    assert quiet_and_attacked(quiet, 1, 1, 1.8) == (0.001, 1.8 - 1)
    assert quiet_and_attacked([(0.5, 0.2), *attacked], 1, 1, 1.8) == (None, 0.1)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_hurts_nobody_else(tmp_path, authority, name):
    # What others do on the machine hurts a bystander now and then; an attack would do so each time.
    measured = []
    for attempt in range(TRIES):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        # One that was attacked before may still hold what its allocator has not given back.
        with victim(folder, authority) as server:
            quiet, attacked = attack(server, name)
            with connect(server.grpc) as stub:
                assert stub.Get(pb.CacheKey(key="bystander")).value == b"safe"
        if quiet is not None:
            measured.append((quiet, attacked))
            if attacked <= max(2 * quiet, quiet + NOISE_SECONDS):
                return
    raise AssertionError(f"the bystander had to wait, or there was no quiet to tell by: {measured}")


def attack(server, name):
    """Plays an attack; the bystander's 99th percentile before and meanwhile. All else must hold each time."""
    with contextlib.ExitStack() as attacks:
        lines = len(server.log)
        with newcomers(server) as fared, bystander(server.grpc) as calls:
            time.sleep(SECONDS / 2)
            pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
            attacker = Attacker(server.grpc, server.http, server.tls, attacks)
            begin, _ = play(name, attacker, SECONDS)
            is_ready = fetch(server.http, "/ready").status == 200
            end = time.monotonic()
        most, connections = resident(server, "VmHWM"), attacker.connections
    assert is_ready
    assert len(server.log) - lines <= MOST_LINES, server.log[lines:]
    failed = [newcomer for newcomer in fared if newcomer[2]]
    assert fared and not failed, failed
    quiet, attacked = quiet_and_attacked(calls, begin, begin, end)
    bound = memory_bound(name, connections)
    before = f"{quiet * 1000:.1f}" if quiet else "?"
    longest = max(seconds for _, seconds, _ in fared)
    print(
        f"{name}: p99 {before} -> {attacked * 1000:.1f} ms, {len(fared)} newcomers, {longest * 1000:.0f} ms at the most, "
        f"{most / MIB:.0f} of {bound / MIB:.0f} MiB, {connections} connections"
    )
    assert most <= bound, f"{most / MIB:.0f} MiB, at most {bound / MIB:.0f} are allowed"
    # What was held for the attacker is given back.
    held = lambda: [
        line
        for line in fetch(server.http, "/metrics").body.decode().splitlines()
        if line.startswith(("tiny_cache_requests_in_flight", "tiny_cache_requests_held_bytes")) and 'transport="grpc"' in line and not line.endswith(" 0")
    ]
    wait_until(lambda: not held(), "nothing is in flight any more", timeout=20)
    return quiet, attacked


def quiet_percentile99(server):
    """Of a bystander that has the server to itself, for as long as it takes to tell."""
    for seconds in (SECONDS / 2, 2 * SECONDS, 8 * SECONDS):
        with bystander(server.grpc) as calls:
            time.sleep(seconds)
        if len(calls) >= LEAST_CALLS:
            return percentile99([seconds for _, seconds in calls])
    raise AssertionError(f"{len(calls)} calls in {seconds} s tell nothing")


def test_ten_thousand_idle_connections_cost_little_and_hurt_nobody(many_files):
    count = 10_000
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= count + 100, "too few file descriptors are allowed"
    with Server(environment={"CACHE_MAX_MEMORY_MB": "32"}) as server, contextlib.ExitStack() as stack:
        with connect(server.grpc) as stub:
            stub.Set(pb.CacheItem(key="bystander", value=b"safe"))
        quiet = quiet_percentile99(server)
        with bystander(server.grpc) as calls:
            before = resident(server, "VmRSS")
            # The bystander and its predecessor have a place each.
            idle = []
            for _ in range(count - 10):
                client = socket.socket()
                stack.callback(client.close)
                client.connect(address_of(server.grpc))
                client.sendall(HELLO)
                idle.append(client)
            for client in idle:
                assert client.recv(9), "the server's settings"
            cost = (resident(server, "VmRSS") - before) / len(idle)
            windows = []
            for _ in range(TRIES):
                begin = time.monotonic()
                time.sleep(SECONDS / 2)
                windows.append((begin, time.monotonic()))
            assert fetch(server.http, "/ready").status == 200
        print(f"{cost / KIB:.1f} KiB for an idle connection")
        assert cost <= 32 * KIB
        idle_p99 = min(percentile99(taken_within(calls, *window)) for window in windows)
        assert idle_p99 <= max(2 * quiet, quiet + NOISE_SECONDS)
