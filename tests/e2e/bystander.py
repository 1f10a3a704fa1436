"""A client that minds its own business: reads a key at a steady pace, and tells how long each answer took.

Run as a process of its own, since an attacker in the same interpreter would hold it up. Ends when its standard input does,
and writes `[when it began, seconds taken]` for each call, as JSON.
"""

import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys
import time

import cache_pb2 as pb
from http2 import Http2, frame
from server import clean_environment

PACE_SECONDS = 0.004
KEY, VALUE = "bystander", b"safe"
GET = frame(pb.CacheKey(key=KEY).SerializeToString())


@contextlib.contextmanager
def bystander(address, **options):
    """A bystander, and what its calls took: there once it has ended."""
    environment = clean_environment({"PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])})
    command = [sys.executable, __file__, address]
    calls = []
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield calls
        finally:
            process.stdin.close()
            text = process.stdout.read()
            if text:
                calls.extend(json.loads(text))
    assert process.returncode == 0, "the bystander was not served"


def percentile99(taken):
    return sorted(taken)[int(len(taken) * 0.99)]


def taken_within(calls, begin, end):
    """What the calls took that were in hand at some time between these; who had to wait for all of it waited as long as it was."""
    return [seconds for began, seconds in calls if began <= end and began + seconds >= begin] or [end - begin]


def main(address):
    calls = []
    with Http2(address, timeout=20) as client:
        print("begun", flush=True)
        while not select.select([sys.stdin], [], [], PACE_SECONDS)[0]:
            began = time.monotonic()
            answer = client.call("Get", GET)
            calls.append((began, time.monotonic() - began))
            assert answer.status == 0 and answer.data.endswith(VALUE), (answer.headers, answer.trailers, answer.data)
    json.dump(calls, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
