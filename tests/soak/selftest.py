"""Judges runs that never were: a healthy one must pass, and each with one thing wrong must fail by that thing."""

import random

from judge import MIB, judge
from record import Record

SECONDS = 3900
EXPECTED = {"invalid": {"INVALID_ARGUMENT"}}


def run(
    leak_per_hour=0, leak_at_load_per_hour=0, fds_per_rest=0, threads_per_rest=0, tasks_per_rest=0,
    connection=0, http_connection=1, request=0, errors=(), wrong=(), code=0, panics=0, answered=1.0, seconds=SECONDS, untold=(), silent=0.0,
):  # fmt: skip
    """A run of an hour with a fault each half minute, noise as servers have it, and what is wrong with it."""
    rng = random.Random(7)
    record = Record()
    record.add("about", {"seconds": seconds, "end": {"code": code, "panics": panics}})
    every = seconds // 10
    for time in range(0, seconds, 15):
        record.add("faults", {"fault": "burst", "from": time, "until": time + 2}) if time % 60 == 0 else None
    for number in range(10):
        begin = every * (number + 1) - 20
        leaked = leak_per_hour * begin / 3600
        rest = {
            "from": begin, "until": begin + 15, "rss": 40 * MIB + leaked + rng.uniform(-3, 3) * MIB, "fds": 20 + number * fds_per_rest + rng.choice((0, 1)),
            "threads": 6 + number * threads_per_rest, "tasks": 12 + number * tasks_per_rest, "connections": connection, "http_connections": http_connection,
            "active": request,
        }  # fmt: skip
        record.add("rests", {name: figure for name, figure in rest.items() if name not in untold or number != 5})
    limit = 100 * MIB
    for time in range(seconds):
        if time % 120 == 0:
            limit = rng.uniform(50, 130) * MIB
        told = limit * rng.uniform(0.95, 1)
        leaked = (leak_per_hour + leak_at_load_per_hour) * time / 3600
        rss = told + (35 + 25 * rng.random() ** 4) * MIB + leaked
        record.add("samples", {"time": time, "rss": rss} | ({"told": told} if time % 50 and rng.random() >= silent else {}))
    for time in range(0, seconds, 10):
        record.add("windows", {"time": time, "answered": {"Get": int(3000 * answered)}, "planned": 3000})
    for time, kind, error, count in (*errors, (30, "invalid", "INVALID_ARGUMENT", 9), (61, "Get", "UNAVAILABLE", 700)):
        record.add("errors", {"time": time, "errors": [[kind, error, count]]})
    for text in wrong:
        record.add("wrong", {"time": 1, "text": text})
    return record


# What is wrong, and by which finding it must be seen. None: nothing is.
CASES = [
    ({}, None),
    ({"seconds": 240}, None),
    ({"leak_per_hour": 30 * MIB}, "resident memory, empty"),
    ({"leak_per_hour": 400 * MIB}, "resident memory, empty"),
    ({"leak_at_load_per_hour": 50 * MIB}, "growth of resident memory"),
    ({"fds_per_rest": 1}, "file descriptors"),
    ({"threads_per_rest": 1}, "threads"),
    ({"tasks_per_rest": 1}, "tasks"),
    ({"untold": ("tasks",)}, "tasks"),
    ({"untold": ("fds",)}, "file descriptors"),
    ({"untold": ("http_connections",)}, "HTTP connections"),
    ({"connection": 1}, "gRPC connections"),
    ({"http_connection": 3}, "HTTP connections"),
    ({"silent": 0.2}, "seconds outside faults"),
    ({"request": 1}, "requests in flight"),
    ({"errors": [(61, "Get", "INTERNAL", 1)]}, "errors with another code"),
    ({"errors": [(61, "Get", "INVALID_ARGUMENT", 1)]}, "errors with another code"),
    ({"errors": [(50, "Get", "UNAVAILABLE", 200)]}, "errors at a time without a fault"),
    ({"wrong": ["key-1: value of another"]}, "wrong or stale values"),
    ({"code": 143}, "exit code"),
    ({"panics": 1}, "panics"),
    ({"answered": 0.3}, "calls answered"),
]


def self_test():
    """The names of what was judged wrongly."""
    failed = []
    for wrong, seen_by in CASES:
        bad = [finding.what for finding in judge(run(**wrong), EXPECTED) if not finding.good]
        seen = any(what.startswith(seen_by) for what in bad) if seen_by else not bad
        if not seen:
            print(f"judged wrongly: {wrong or 'nothing wrong'}: {', '.join(bad) or 'no finding'}")
            failed.append(wrong)
    print(f"{len(CASES) - len(failed)} of {len(CASES)} made-up runs are judged as they should be")
    return failed
