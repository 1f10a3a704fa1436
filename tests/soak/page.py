"""What a soak prints and draws."""

import collections
import html

from judge import MIB, SETTLING_SECONDS, TOO_SHORT, calls, errors

WIDTH, HEIGHT, LEFT, GAP = 860, 120, 60, 44
COLOURS = {"a": "#c0392b", "b": "#2471a3", "c": "#8e6a00"}


def duration(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def over_time(record):
    """Latencies and memory over time, in twelve or so parts."""
    seconds = record.about["seconds"]
    part = max(10, -(-seconds // 12 // 10) * 10)
    rows = ["| from | calls | failed | p50, ms | p99, ms | p99.9, ms | most, ms | resident, MiB | descriptors | connections |", "|---:" * 10 + "|"]
    typical = lambda values: sorted(values)[len(values) // 2] if values else None
    for begin in range(0, int(seconds), int(part)):
        windows = [w for w in record.windows if begin <= w["time"] < begin + part and w["answered"]]
        samples = [s for s in record.samples if begin <= s["time"] < begin + part]
        if not windows or not samples:
            continue
        column = lambda name, windows=windows: [w["ms"][name] for w in windows if w["ms"][name] is not None]
        cells = [
            duration(begin),
            f"{sum(sum(w['answered'].values()) for w in windows):,}",
            f"{sum(w['failed'] for w in windows):,}",
            *(f"{typical(column(name)):.1f}" for name in ("50", "99", "99.9")),
            f"{max(column('most')):.0f}",
            f"{typical([s['rss'] for s in samples]) / MIB:.0f}",
            f"{typical([s['fds'] for s in samples])}",
            f"{typical([s['connections'] for s in samples if 'connections' in s]) or 0:.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def summary(record, findings, expected):
    """The page as Markdown."""
    about, found = record.about, errors(record, expected)
    count = calls(record)
    verdict = "No leak, and no error that nothing explains." if TOO_SHORT not in findings else "No error that nothing explains; too short to judge memory."
    if not all(finding.good for finding in findings):
        verdict = "Something is wrong: see the findings that are not ok."
    faults = collections.Counter(fault["fault"].replace("_", " ") for fault in record.faults)
    by_code = collections.Counter()
    for row in record.errors:
        for _, code, number in row["errors"]:
            by_code[code] += number
    processor = [s["processor"] for s in record.samples if "processor" in s]
    used = (processor[-1] - processor[0]) / about["seconds"] if processor else 0
    lines = [
        f"{about['date']}, {about['cores']} cores, load averages afterwards {about.get('load', '?')}: {duration(about['seconds'])}, "
        f"seed {about['seed']}, policy {about['policy']}, version {about['version']}. {count:,} calls in three client processes, "
        f"{used:.0%} of a core used by the server, {len(record.faults)} faults: " + ", ".join(f"{name} {n}" for name, n in sorted(faults.items())) + ".",
        "",
        f"**{verdict}**",
        "",
        "| looked at | found | allowed | |",
        "|---|---:|---:|---|",
        *(f"| {f.what} | {f.found} | {f.allowed} | {'ok' if f.good else '**not ok**'} |" for f in findings),
        "",
        f"Errors: {found['meant']:,} that were asked for, {found['faults']:,} within {SETTLING_SECONDS} s of a fault, {found['unexplained']:,} at other times, "
        f"{found['wrong']:,} of a wrong kind; by code " + (", ".join(f"{code} {n:,}" for code, n in by_code.most_common()) or "none") + ".",
        "",
        "Medians of what was seen in each ten seconds; rests and faults are in there.",
        "",
        *over_time(record),
        "",
        "| rest at | resident, MiB | descriptors | threads | connections | requests in flight |",
        "|---:" * 6 + "|",
        *(
            f"| {duration(r['from'])} | {r['rss'] / MIB:.1f} | {r['fds']} | {r['threads']} | {r.get('connections', 0):.0f} | {r.get('active', 0):.0f} |"
            for r in record.rests
        ),
    ]
    return "\n".join(lines)


class Panel:
    """One diagram over time."""

    def __init__(self, title, number, seconds, highest, unit=""):
        self.top = 30 + number * (HEIGHT + GAP)
        self._seconds, self._highest = seconds, highest or 1
        self.lines = [f'<text class="ink" x="{LEFT}" y="{self.top - 8}">{html.escape(title)}</text>']
        self.lines.append(f'<path class="axis" d="M{LEFT} {self.top}v{HEIGHT}h{WIDTH}"/>')
        for share in (0, 0.5, 1):
            y = self.top + HEIGHT * (1 - share)
            self.lines.append(f'<text class="ink label" x="{LEFT - 5}" y="{y + 4:.0f}">{self._highest * share:,.4g}{unit}</text>')

    def _x(self, time):
        return LEFT + WIDTH * time / self._seconds

    def curve(self, kind, points):
        points = list(points)
        points = points[:: max(1, len(points) // 800)]
        text = " ".join(f"{self._x(t):.1f},{self.top + HEIGHT * (1 - min(1, value / self._highest)):.1f}" for t, value in points)
        self.lines.append(f'<polyline stroke="{COLOURS[kind]}" points="{text}"/>')

    def marks(self, times):
        path = "".join(f"M{self._x(time):.1f} {self.top + HEIGHT}v5" for time in times)
        self.lines.append(f'<path class="axis" d="{path}"/>')

    def legend(self, *names):
        x = LEFT + WIDTH
        for kind, name in reversed(list(zip(COLOURS, names))):
            self.lines.append(f'<text x="{x}" y="{self.top - 8}" text-anchor="end" fill="{COLOURS[kind]}">{html.escape(name)}</text>')
            x -= 7 * len(name) + 16


def plot(record):
    seconds, samples, windows = record.about["seconds"], record.samples, record.windows
    largest = lambda values: max(values, default=1)
    memory = Panel("Memory, MiB", 0, seconds, largest(s["rss"] for s in samples) / MIB * 1.05)
    memory.curve("a", ((s["time"], s["rss"] / MIB) for s in samples))
    memory.curve("b", ((s["time"], s["told"] / MIB) for s in samples if "told" in s))
    memory.curve("c", ((s["time"], s["limit"] / MIB) for s in samples if "limit" in s))
    memory.legend("resident", "memory_usage_bytes", "max_memory")
    # Idle connections come by the hundred for some seconds; the rest is what one wants to see.
    usual = sorted(s["fds"] for s in samples)[int(len(samples) * 0.95)] * 1.3
    counts = Panel("Descriptors, gRPC connections, threads (peaks are cut off)", 1, seconds, usual)
    counts.curve("a", ((s["time"], s["fds"]) for s in samples))
    counts.curve("b", ((s["time"], s["connections"]) for s in samples if "connections" in s))
    counts.curve("c", ((s["time"], s["threads"]) for s in samples))
    counts.legend("descriptors", "connections", "threads")
    timed = [w for w in windows if w["ms"]["50"] is not None]
    latency = Panel("Latency in each ten seconds, ms (peaks are cut off)", 2, seconds, sorted(w["ms"]["99"] for w in timed)[int(len(timed) * 0.9)] * 1.2)
    for kind, name in (("a", "99.9"), ("b", "99"), ("c", "50")):
        latency.curve(kind, ((w["time"], w["ms"][name]) for w in timed))
    latency.legend("p99.9", "p99", "p50")
    per_second = lambda value: value / 10
    rates = Panel("Calls a second; below the axis: faults", 3, seconds, per_second(largest(w["planned"] for w in windows)))
    rates.curve("b", ((w["time"], per_second(sum(w["answered"].values()))) for w in windows))
    rates.curve("a", ((w["time"], per_second(w["failed"])) for w in windows))
    rates.legend("failed", "answered")
    rates.marks(fault["from"] for fault in record.faults)
    panels = (memory, counts, latency, rates)
    width, height = LEFT + WIDTH + 20, panels[-1].top + HEIGHT + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="A soak of {seconds / 60:.0f} minutes" font-family="Inter, system-ui, Segoe UI, Roboto, Arial, sans-serif" font-size="12">',
        "<style>.ink{fill:#1d2329}.label{font-size:10px;text-anchor:end}path,polyline{fill:none}.axis{stroke:#777}"
        "@media (prefers-color-scheme: dark){.paper{fill:#14181d}.ink{fill:#e8ecf0}}</style>",
        '<rect class="paper" width="100%" height="100%" fill="#ffffff"/>',
        *(line for panel in panels for line in panel.lines),
        *(
            f'<text class="ink label" x="{LEFT + WIDTH * share:.0f}" y="{height - 8}">{seconds * share / 60:.0f} min</text>'
            for share in (0.25, 0.5, 0.75, 1)
        ),
        "</svg>",
        "",
    ]
    return "\n".join(lines)
