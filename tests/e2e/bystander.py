"""A client that minds its own business: reads a key at a steady pace, and tells how long each answer took.

Run as a process of its own, since an attacker in the same interpreter would hold it up. Ends when its standard input does,
and writes `[seconds since boot, seconds taken]` for each call, as JSON.
"""

import json
import select
import sys
import time

import cache_pb2 as pb
from http2 import Http2, frame

PACE_SECONDS = 0.004
GET = frame(pb.CacheKey(key="bystander").SerializeToString())


def main(address):
    calls = []
    with Http2(address, timeout=20) as client:
        print("begun", flush=True)
        while not select.select([sys.stdin], [], [], PACE_SECONDS)[0]:
            began = time.monotonic()
            answer = client.call("Get", GET)
            calls.append((began, time.monotonic() - began))
            assert answer.status == 0 and answer.data.endswith(b"safe"), (answer.headers, answer.trailers, answer.data)
    json.dump(calls, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
