"""A client that minds its own business: reads a key at a steady pace, and tells how long each answer took.

Run as a process of its own, since an attacker in the same interpreter would hold it up. Writes `[when it began, seconds taken]` for
each call, as JSON.
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
def beside(script, *arguments, **options):
    """A process of its own, and what it tells: a list, there once it has ended, which it does when its standard input does."""
    environment = clean_environment({"PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])})
    told = []
    with subprocess.Popen(
        [sys.executable, script, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield told
        finally:
            process.stdin.close()
            text = process.stdout.read()
            if text:
                told.extend(json.loads(text))
    assert process.returncode == 0, f"{pathlib.Path(script).stem} was not served"


def goes_on(pace_seconds):
    """Begins, and goes on at this pace until nobody wants more."""
    print("begun", flush=True)
    while not select.select([sys.stdin], [], [], pace_seconds)[0]:
        yield


def bystander(address, **options):
    """A bystander, and what its calls took."""
    return beside(__file__, address, **options)


def percentile99(taken):
    return sorted(taken)[int(len(taken) * 0.99)]


def taken_within(calls, begin, end):
    """What the calls took that were in hand at some time between these; who had to wait for all of it waited as long as it was."""
    return [seconds for began, seconds in calls if began <= end and began + seconds >= begin] or [end - begin]


def main(address):
    calls = []
    with Http2(address, timeout=20) as client:
        for _ in goes_on(PACE_SECONDS):
            began = time.monotonic()
            answer = client.call("Get", GET)
            calls.append((began, time.monotonic() - began))
            assert answer.status == 0 and answer.data.endswith(VALUE), (answer.headers, answer.trailers, answer.data)
    json.dump(calls, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
