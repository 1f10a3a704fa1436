"""Compares replays through the real server with the reference table, to the last request."""

import concurrent.futures
import csv
import json
import os
import pathlib
import subprocess
import sys

from server import BINARY, Server

TRACE = "cache2k-web07"
POLICIES = ("lru", "fifo", "sieve")


def replayed(traces, row):
    """The miss ratio of a server with the row's policy and capacity, as the table writes it."""
    flags = ["--policy", row["policy"], "--max-items", row["capacity"], "--max-memory", "1GiB"]
    with Server(*flags) as server:
        command = [BINARY, "replay", "--trace", traces / f"{TRACE}.oracleGeneral.zst"]
        command += ["--target", server.grpc, "--output", "json"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    return f"{result['misses'] / result['requests']:.6f}"


def main(traces: pathlib.Path) -> int:
    with open(traces / "reference.tsv", encoding="utf-8") as table:
        rows = [
            row
            for row in csv.DictReader(table, delimiter="\t")
            if row["trace"] == TRACE and row["mode"] == "item" and row["policy"] in POLICIES
        ]
    if not rows:
        print(f"no rows for {TRACE} in the reference table", file=sys.stderr)
        return 1
    failed = 0
    # A replay waits for one answer at a time, so several at once are sooner over and no different.
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for row, ours in zip(rows, pool.map(lambda row: replayed(traces, row), rows)):
            good = ours == row["miss_ratio"]
            failed += not good
            verdict = "ok" if good else "DIFFERS"
            print(f"{row['policy']:>6} {row['capacity']:>7}: {ours} (reference {row['miss_ratio']}) {verdict}", flush=True)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
