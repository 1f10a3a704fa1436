"""Whether a recorded soak shows a leak, or errors that nothing explains. Knows nothing of servers, so that it can be judged itself."""

import dataclasses
import statistics

MIB = 1 << 20
# What an empty server may hold more at the last rests than at the first: the allocator's luck.
REST_SLACK = (8 * MIB, 0.10)
# What memory beside what the cache is charged for may grow by within the second half, under load.
GROWTH_SLACK = (16 * MIB, 0.10)
# Descriptors, threads and tasks that come and go by themselves: a connection to the collector, a file being read.
FEW = 4
# HTTP connections that a rest has of those who look: the scrape itself, and the sample of each second.
LOOKING = 2
# For so long after a fault a call may fail with one of these codes: connections are made anew.
SETTLING_SECONDS = 15
EXCUSED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
# Calls in a million that may end so at other times: deadlines on a machine that does other things too.
UNEXPLAINED_PER_MILLION = 100
# Of the calls planned, how many must have been answered for the run to say anything.
LEAST_ANSWERED = 0.5


# Of the seconds in which nothing went wrong, in how many the server must have told its figures.
LEAST_TOLD = 0.95

# What a shorter run says of memory is how caches fill and what peaks leave behind.
LEAST_SECONDS = 30 * 60


@dataclasses.dataclass
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    allowed: str
    good: bool


TOO_SHORT = Finding("growth of memory", "", f"not judged in less than {LEAST_SECONDS // 60} minutes", True)


def slope(points):
    """Theil and Sen's: the median of the slopes between all pairs, which a few odd points do not move."""
    points = points[:: max(1, len(points) // 300)]
    slopes = [(y2 - y1) / (x2 - x1) for n, (x1, y1) in enumerate(points) for x2, y2 in points[n + 1 :] if x2 > x1]
    return statistics.median(slopes) if slopes else 0.0


def mib(size):
    return f"{size / MIB:.1f} MiB"


def resting(record, time):
    return any(rest["from"] <= time <= rest["until"] for rest in record.rests)


def memory_at_rest(record):
    """The last third of the rests beside the first: what the allocator keeps of peaks grows for some minutes, and then no more."""
    held = [rest["rss"] for rest in record.rests]
    third = len(held) // 3
    first, last = max(held[: third + 1]), statistics.median(held[-third:])
    allowed = first + REST_SLACK[0] + REST_SLACK[1] * first
    return Finding("resident memory, empty: median of the last rests", mib(last), f"{mib(allowed)} (most at the first rests: {mib(first)})", last <= allowed)


def memory_under_load(record):
    """Growth of what the process holds beside what the cache is charged for, over the second half."""
    points = [(s["time"], s["rss"] - s["told"]) for s in record.samples if "told" in s and not resting(record, s["time"])]
    half = [point for point in points if point[0] >= record.about["seconds"] / 2]
    if len(half) < 20:
        return Finding("growth under load", "too few samples", "", False)
    # Medians of ten samples first: a burst is no growth.
    medians = [(half[n][0], statistics.median(y for _, y in half[n : n + 10])) for n in range(0, len(half) - 9, 10)]
    growth = slope(medians) * (half[-1][0] - half[0][0])
    typical = statistics.median(s["rss"] for s in record.samples)
    allowed = max(GROWTH_SLACK[0], GROWTH_SLACK[1] * typical)
    return Finding("growth of resident memory beside the cache's, second half", mib(growth), mib(allowed), growth <= allowed)


def at_rests(record, column, what, judged):
    """What `judged` finds in a figure of all rests; a figure that one of them lacks is a failure, as nobody knows what it was."""
    told = [rest[column] for rest in record.rests if rest.get(column) is not None]
    if len(told) < len(record.rests):
        return Finding(what, f"told at {len(told)} rests", f"told at all {len(record.rests)}", False)
    return judged(told)


def few_more(record, column, what):
    """What must not be more at the last rest than at the first."""
    what = f"{what} at the last rest"
    judged = lambda told: Finding(what, f"{told[-1]:.0f}", f"{told[0] + FEW:.0f} (first rest: {told[0]:.0f})", told[-1] <= told[0] + FEW)
    return at_rests(record, column, what, judged)


def none_left(record, column, what, allowed=0):
    what = f"{what}, the most at any rest"
    return at_rests(record, column, what, lambda told: Finding(what, f"{max(told):.0f}", f"{allowed}", max(told) <= allowed))


def samples_told(record):
    """Seconds in which the server told its figures, of those outside faults: without them nothing above was seen."""
    calm = [s for s in record.samples if not any(fault["from"] - 1 <= s["time"] <= fault["until"] + 1 for fault in record.faults)]
    told = sum("told" in s for s in calm)
    least = int(LEAST_TOLD * len(calm))
    return Finding("seconds outside faults in which the server told its figures", f"{told:,} of {len(calm):,}", f"at least {least:,}", told >= least)


def calls(record):
    return sum(sum(window["answered"].values()) for window in record.windows)


def errors(record, expected):
    """Errors by what explains them: counts of (meant, during faults, unexplained, wrong codes)."""
    found = {"meant": 0, "faults": 0, "unexplained": 0, "wrong": 0}
    for row in record.errors:
        during = any(fault["from"] <= row["time"] <= fault["until"] + SETTLING_SECONDS for fault in record.faults)
        for kind, code, count in row["errors"]:
            if code in expected.get(kind, ()):
                found["meant"] += count
            elif code not in EXCUSED:
                found["wrong"] += count
            else:
                found["faults" if during else "unexplained"] += count
    return found


def judge(record, expected):
    """All findings; `expected` are the codes that calls of a kind are to end with."""
    if not record.rests:
        return [Finding("rests", "0", "at least 1", False)]
    count, found = calls(record), errors(record, expected)
    unexplained = max(1, count * UNEXPLAINED_PER_MILLION // 1_000_000)
    planned = sum(window["planned"] for window in record.windows)
    end = record.about.get("end", {})
    return [
            *((memory_at_rest(record), memory_under_load(record)) if record.about["seconds"] >= LEAST_SECONDS else (TOO_SHORT,)),
            few_more(record, "fds", "file descriptors"),
            few_more(record, "threads", "threads"),
            few_more(record, "tasks", "tasks of the runtime"),
            none_left(record, "connections", "gRPC connections"),
            none_left(record, "http_connections", "HTTP connections", LOOKING),
            none_left(record, "active", "requests in flight"),
            samples_told(record),
            Finding("calls answered", f"{count:,}", f"at least {LEAST_ANSWERED * planned:,.0f}", count >= LEAST_ANSWERED * planned),
            Finding("errors with another code than asked for", f"{found['wrong']}", "0", not found["wrong"]),
            Finding("errors at a time without a fault", f"{found['unexplained']}", f"{unexplained}", found["unexplained"] <= unexplained),
            Finding("wrong or stale values", f"{len(record.wrong)}", "0", not record.wrong),
            Finding("panics in the log", f"{end.get('panics')}", "0", end.get("panics") == 0),
            Finding("exit code after SIGTERM", f"{end.get('code')}", "0", end.get("code") == 0),
    ]
