"""All attacks on the wire, a table of them, and what each may have the server hold."""

import time

import attacks_hpack
import attacks_http1
import attacks_http2
import attacks_tls
from attacker import KIB, LIMITS, MIB

# Between the steps of an attack, which is bounded by it.
PAUSE_SECONDS = 0.002

ATTACKS = attacks_http2.ATTACKS | attacks_hpack.ATTACKS | attacks_http1.ATTACKS | attacks_tls.ATTACKS

# Parts of the sum in docs/operations.md that not every client can make the server come to.
PARTS = {
    "entries": LIMITS["max_memory"] * 1.1,
    "messages": 2 * LIMITS["max_in_flight_bytes"],
    "zstd": 2 * 8 * MIB,
    "waiting": LIMITS["max_in_flight"] * 24 * KIB,
    "lasting": LIMITS["max_in_flight"] * 24 * KIB,
    "http": 64 * 72 * KIB,
}
# Which attacks can come to which, through TLS or not; those that are not here come to none.
CALLS = ("messages", "waiting")
VALUES = ("entries", *CALLS)
USED = {
    "gzip bombs": CALLS,
    "zstd bombs": (*CALLS, "zstd"),
    "rapid resets": CALLS,
    "streams without end": CALLS,
    "streams in error": CALLS,
    "settings of many streams": CALLS,
    "empty data": CALLS,
    "window of single bytes": VALUES,
    "unread large values": VALUES,
    "unread small values": VALUES,
    "small values through a window of one byte": VALUES,
    "unread middling values": VALUES,
    "untaken values": VALUES,
    "values through a window of one byte": VALUES,
    "old versions of a value": VALUES,
    "one key many times": VALUES,
    "as many items as may be": CALLS,
    "too many items": CALLS,
    "many answers made at once": CALLS,
    "many batches at once": CALLS,
    "many batches of no keys at once": VALUES,
    "bodies byte by byte": CALLS,
    "bodies never finished": CALLS,
    "health checks never finished": CALLS,
    "reflection never finished": (*CALLS, "lasting"),
    "reflection never taken": (*CALLS, "lasting"),
    "heads of many names held": CALLS,
    "unread scrapes": ("http",),
    "many requests in a row over HTTP/1": ("http",),
    "many requests in a row over HTTP/1, unread": ("http",),
    "scrapes by many": ("http",),
    "figures by many": ("http",),
}
USED |= {secured: USED[name] for secured, name in attacks_tls.SECURED.items() if name in USED}

# What a connection may hold, and beside it where its client has HTTP/2's library keep whole heads for a word in each.
CONNECTION_BYTES = 256 * KIB
HEADS_KEPT_BYTES = {"entries of large heads": 4 * MIB}


def memory_bound(name, connections):
    """What docs/operations.md says that the process takes at most under an attack by so many connections."""
    parts = sum(PARTS[part] for part in USED.get(name, ()))
    each = CONNECTION_BYTES + HEADS_KEPT_BYTES.get(name, 0)
    return 32 * MIB + LIMITS["max_in_flight_bytes"] / 4 + connections * each + parts


def play(name, attacker, seconds, pause=PAUSE_SECONDS):
    """Makes an attack go on for so long; when it began and ended."""
    begin = time.monotonic()
    step = ATTACKS[name](attacker)
    while time.monotonic() < begin + seconds:
        step()
        time.sleep(pause)
    return begin, time.monotonic()
