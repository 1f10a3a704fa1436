"""Clients of good will that come anew: each connects, asks once, and is gone. They read a key with and without TLS, and probe.

Run as a process of its own, as the bystander is. Writes `[who, seconds taken, what went wrong or null]` for each, as JSON.
"""

import functools
import json
import sys
import time

from bystander import GET, VALUE, beside, goes_on
from certificates import trusting
from clients import fetch
from http2 import Http2, frame

PACE_SECONDS = 0.05
# Whoever takes longer is not served.
PATIENCE_SECONDS = 10


def newcomers(server, **options):
    """Newcomers, and how they fared."""
    return beside(__file__, server.grpc, server.tls, server.http, **options)


def reads(address, wrap=lambda plain: plain):
    with Http2(address, timeout=PATIENCE_SECONDS, wrap=wrap) as client:
        answer = client.call("Get", GET)
        assert answer.reset is None, f"reset: {answer.reset}"
        assert answer.status == 0 and answer.data.endswith(VALUE), (answer.headers, answer.trailers, answer.data)


def checks(address):
    with Http2(address, timeout=PATIENCE_SECONDS) as client:
        stream = client.open("Check", service="/grpc.health.v1.Health/")
        client.send(stream, frame())
        answer = client.answer(stream)
        # Serving, by its number.
        assert answer.status == 0 and answer.data.endswith(b"\x08\x01"), (answer.headers, answer.trailers, answer.data)


def probes(address, path):
    status = fetch(address, path, timeout=PATIENCE_SECONDS).status
    assert status == 200, status


def tries(task):
    """Seconds it took, and what went wrong."""
    began = time.monotonic()
    try:
        task()
    except Exception as error:  # Whatever it is, the test is to see it.
        return time.monotonic() - began, repr(error)
    return time.monotonic() - began, None


def main(grpc, tls, http):
    tasks = {
        "a reader": functools.partial(reads, grpc),
        "a reader by TLS": functools.partial(reads, tls, trusting().wrap_socket),
        "a check of health": functools.partial(checks, grpc),
        "/live": functools.partial(probes, http, "/live"),
        "/ready": functools.partial(probes, http, "/ready"),
    }
    fared = [[who, *tries(task)] for _ in goes_on(PACE_SECONDS) for who, task in tasks.items()]
    json.dump(fared, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
