"""Compares `tiny-cache simulate` with the reference table, at every row that the tolerances are stated for.

Each policy that the binary has is run twice: with the reference's behaviour in every detail (`--variant
libcachesim`), which must give the reference's counts, and as it is by default, which must not be worse on average.
"""

import collections
import csv
import json
import pathlib
import subprocess
import sys

from server import BINARY

# Our names for the reference's; all others are the same.
NAMES = {"s3fifo": "s3-fifo", "twoq": "two-q", "clock2qplus": "clock2q-plus", "wtinylfu": "w-tinylfu"}

# The miss count is equal, to the request. (The table has six decimals of the ratio.)
EQUAL = {"fifo", "clock", "lru", "sieve", "lfu", "belady"}
# Within 0.0005 of the reference's miss ratio in the reference's variant.
CLOSE = {"slru", "two-q", "arc", "lirs", "s3-fifo", "clock2q-plus", "gdsf"}
# Not worse than the reference by more than 0.01, as the mean over five seeds.
NOT_WORSE = {"w-tinylfu", "lhd", "hyperbolic", "lecar"}

EXACT = 0.6e-6
SEEDS = range(5)
SMALLEST_ITEMS = 100
SMALLEST_BYTES_IN_OBJECTS = 64
# The window of w-tinylfu adapts by default; the reference's does not.
FIXED_WINDOW = ["--set", "w-tinylfu.window=fixed"]


def simulate(trace, mode, capacities, policies, *flags):
    """Rows as {(capacity, policy): (miss ratio, byte miss ratio)}."""
    command = [BINARY, "simulate", "--trace", trace, "--mode", "items" if mode == "item" else "bytes"]
    command += ["--capacity", ",".join(capacities), "--policy", ",".join(policies) or "belady"]
    command += ["--allow-oversized", "--output", "json", *flags]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {ran.returncode}: {ran.stderr}")
    rows = json.loads(ran.stdout)
    return {(str(row["capacity"]), row["policy"]): (row["miss_ratio"], row["byte_miss_ratio"]) for row in rows}


def reference(traces):
    """Rows of the table as {(trace, mode): {(capacity, policy): (miss ratio, byte miss ratio)}}."""
    groups = collections.defaultdict(dict)
    with open(traces / "reference.tsv", encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            policy = NAMES.get(row["policy"], row["policy"])
            ratios = float(row["miss_ratio"]), float(row["byte_miss_ratio"])
            groups[row["trace"], row["mode"]][row["capacity"], policy] = ratios
    return groups


def trace_file(traces, name):
    return next(traces.glob(f"{name}.*.zst"))


def mean_object_bytes(traces, name):
    """The footprint over the number of objects, from what a capacity of 100% is in each mode."""
    footprint = []
    for mode in ("item", "byte"):
        rows = simulate(trace_file(traces, name), mode, ["100%"], [])
        footprint.append(next(int(capacity) for capacity, _ in rows))
    return footprint[1] / footprint[0]


class Check:
    def __init__(self):
        self.checked = collections.Counter()
        self.failures = []
        self.worst = collections.defaultdict(float)
        self.gaps = collections.defaultdict(list)

    def compare(self, kind, where, ours, theirs, tolerance, one_sided=False):
        gap = ours - theirs if one_sided else abs(ours - theirs)
        self.checked[kind] += 1
        self.worst[kind] = max(self.worst[kind], gap)
        if gap > tolerance:
            self.failures.append(f"{kind}: {where}: {ours:.6f}, reference {theirs:.6f}")


def main(traces: pathlib.Path) -> int:
    listing = subprocess.run([BINARY, "policies", "--output", "json"], check=True, capture_output=True).stdout
    registered = {entry["name"]: entry for entry in json.loads(listing)}
    fixed = FIXED_WINDOW if "w-tinylfu" in registered else []
    check = Check()
    for (trace, mode), rows in sorted(reference(traces).items()):
        file = trace_file(traces, trace)
        smallest = SMALLEST_ITEMS
        if mode == "byte":
            smallest = SMALLEST_BYTES_IN_OBJECTS * mean_object_bytes(traces, trace)
        capacities = sorted({capacity for capacity, _ in rows if int(capacity) >= smallest}, key=int)
        if not capacities:
            continue
        named = [name for name in registered if any(policy == name for _, policy in rows)]
        seeded = [name for name in named if name in NOT_WORSE]
        plain = [name for name in named if name not in NOT_WORSE]
        exact = simulate(file, mode, capacities, plain, "--variant", "libcachesim")
        default = simulate(file, mode, capacities, plain)
        adaptive = [name for name in seeded if name == "w-tinylfu"]
        seeds = lambda names, *flags: [
            simulate(file, mode, capacities, names, "--no-optimum", "--seed", str(seed), *flags)
            for seed in (SEEDS if names else ())
        ]
        mean = lambda runs, key: sum(run[key][0] for run in runs) / len(runs)
        fixed_runs, adaptive_runs = seeds(seeded, *fixed), seeds(adaptive)
        for (capacity, policy), (miss_ratio, byte_miss_ratio) in rows.items():
            key, where = (capacity, policy), f"{policy}, {trace}, {mode}, {capacity}"
            if capacity not in capacities or (policy not in registered and policy != "belady"):
                continue
            if policy in NOT_WORSE:
                ours = mean(fixed_runs, key)
                check.compare(f"{policy}, no worse", where, ours, miss_ratio, 0.01, one_sided=True)
                gap = mean(adaptive_runs, key) - ours if policy in adaptive else ours - miss_ratio
                check.gaps[policy].append(gap)
                continue
            if policy == "belady" and mode == "byte":
                # Evicting the furthest is no bound for sizes; ours is one, so it is never above.
                check.compare("belady, bound for bytes", where, exact[key][0], miss_ratio, 0, one_sided=True)
                continue
            if policy in EQUAL:
                check.compare(f"{policy}, equal", where, exact[key][0], miss_ratio, EXACT)
                # In mode item the reference ignores sizes altogether, its byte miss ratio is the miss ratio.
                if mode == "byte":
                    check.compare(f"{policy}, equal", where, exact[key][1], byte_miss_ratio, EXACT)
            elif policy in CLOSE:
                tolerance = 0.01 if mode == "byte" else 0.0005
                check.compare(f"{policy}, {mode}", where, exact[key][0], miss_ratio, tolerance)
            else:
                continue
            if policy != "belady":
                check.gaps[policy].append(default[key][0] - miss_ratio)
    return report(check)


def report(check) -> int:
    for kind in sorted(check.checked):
        print(f"{kind:28} {check.checked[kind]:3} rows, largest difference {check.worst[kind]:.6f}")
    for policy, gaps in sorted(check.gaps.items()):
        average = sum(gaps) / len(gaps)
        peer = "the fixed window" if policy == "w-tinylfu" else "the reference"
        print(f"{policy:28} {len(gaps):3} rows, default minus {peer}: {average:+.6f} on average, {max(gaps):+.6f} at worst")
        if average > EXACT and (policy not in NOT_WORSE or policy == "w-tinylfu"):
            check.failures.append(f"{policy}: the default is worse than {peer} by {average:.6f} on average")
        if policy == "w-tinylfu" and max(gaps) > 0.02:
            check.failures.append(f"{policy}: adapting is worse than the fixed window by {max(gaps):.6f} on a row")
    for failure in check.failures:
        print(f"DIFFERS {failure}")
    print(f"{sum(check.checked.values())} comparisons, {len(check.failures)} failed")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
