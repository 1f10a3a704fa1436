"""What a soak prints and draws."""

import collections
import html
import math

from judge import MIB, SETTLING_SECONDS, TOO_SHORT, calls, errors

WIDTH, HEIGHT, LEFT, GAP = 860, 120, 60, 44
AT_REST = (
    ("fds", "descriptors"),
    ("threads", "threads"),
    ("tasks", "tasks"),
    ("connections", "gRPC connections"),
    ("http_connections", "HTTP"),
    ("active", "requests in flight"),
)
COLOURS = {"a": "#c0392b", "b": "#2471a3", "c": "#8e6a00"}


def duration(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def amount(number):
    return "?" if number is None else f"{number:.0f}"


def build(about):
    """Which build served."""
    told = about.get("build", {})
    return f"version {about['version']}, commit {told.get('commit', 'unknown')} ({told.get('profile', '?')} build, rustc {told.get('rustc', '?')})"


def over_time(record):
    """Latencies and memory over time, in twelve or so parts."""
    seconds = record.about["seconds"]
    part = max(10, -(-seconds // 12 // 10) * 10)
    rows = ["| from | calls | failed | p50, ms | p99, ms | p99.9, ms | most, ms | resident, MiB | descriptors | tasks | gRPC connections | HTTP |", "|---:" * 12 + "|"]
    typical = lambda values: sorted(values)[len(values) // 2] if values else None
    for begin in range(0, int(seconds), int(part)):
        windows = [w for w in record.windows if begin <= w["time"] < begin + part and w["answered"]]
        samples = [s for s in record.samples if begin <= s["time"] < begin + part]
        if not windows or not samples:
            continue
        column = lambda name, windows=windows: [w["ms"][name] for w in windows if w["ms"][name] is not None]
        told = lambda name, samples=samples: typical([s[name] for s in samples if name in s])
        cells = [
            duration(begin),
            f"{sum(sum(w['answered'].values()) for w in windows):,}",
            f"{sum(w['failed'] for w in windows):,}",
            *(f"{typical(column(name)):.1f}" for name in ("50", "99", "99.9")),
            f"{max(column('most')):.0f}",
            f"{typical([s['rss'] for s in samples]) / MIB:.0f}",
            *(amount(told(name)) for name in ("fds", "tasks", "connections", "http_connections")),
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
    loads = [s["load"] for s in record.samples if "load" in s] or [0.0]
    notes = sum("note" in fault for fault in record.faults)
    refused = f"; {notes} ended early, as the server refused them." if notes else "."
    lines = [
        f"{about['date']}, {duration(about['seconds'])}, {build(about)}, policy {about['policy']}, seed {about['seed']}. {about['cores']} cores, load average "
        f"{sorted(loads)[len(loads) // 2]:.1f} in the middle and {max(loads):.1f} at the most. {count:,} calls in three client processes, "
        f"{used:.0%} of a core used by the server, {len(record.faults)} faults: " + ", ".join(f"{name} {n}" for name, n in sorted(faults.items())) + refused,
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
        "| rest at | resident, MiB | " + " | ".join(text for _, text in AT_REST) + " |",
        "|---:" * (2 + len(AT_REST)) + "|",
        *(f"| {duration(r['from'])} | {r['rss'] / MIB:.1f} | " + " | ".join(amount(r.get(name)) for name, _ in AT_REST) + " |" for r in record.rests),
    ]
    return "\n".join(lines)


def round_up(number):
    """To an even number of two digits, and zeros."""
    step = 2 * 10 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step


def axis_label(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


class Panel:
    """One diagram over time."""

    def __init__(self, title, number, seconds, highest, unit=""):
        self.top = 30 + number * (HEIGHT + GAP)
        self._seconds, self._highest = seconds, round_up(highest or 1)
        self.lines = [f'<text class="ink" x="{LEFT}" y="{self.top - 8}">{html.escape(title)}</text>']
        self.lines.append(f'<path class="axis" d="M{LEFT} {self.top}v{HEIGHT}h{WIDTH}"/>')
        for share in (0, 0.5, 1):
            y = self.top + HEIGHT * (1 - share)
            self.lines.append(f'<text class="ink label" x="{LEFT - 5}" y="{y + 4:.0f}">{axis_label(self._highest * share)}{unit}</text>')

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
    usual = lambda name: (sorted(values)[int(len(values) * 0.95)] * 1.3 if (values := [s[name] for s in samples if name in s]) else 1)
    of_system = Panel("Of the system (peaks are cut off)", 1, seconds, usual("fds"))
    connected = Panel("Of the runtime (peaks are cut off)", 2, seconds, usual("tasks"))
    for panel, columns in ((of_system, ("fds", "threads")), (connected, ("tasks", "connections", "http_connections"))):
        for kind, name in zip(COLOURS, columns):
            panel.curve(kind, ((s["time"], s[name]) for s in samples if name in s))
    of_system.legend("descriptors", "threads")
    connected.legend("tasks", "gRPC connections", "HTTP connections")
    timed = [w for w in windows if w["ms"]["50"] is not None]
    latency = Panel("Latency in each ten seconds, ms (peaks are cut off)", 3, seconds, sorted(w["ms"]["99"] for w in timed)[int(len(timed) * 0.9)] * 1.2)
    for kind, name in (("a", "99.9"), ("b", "99"), ("c", "50")):
        latency.curve(kind, ((w["time"], w["ms"][name]) for w in timed))
    latency.legend("p99.9", "p99", "p50")
    per_second = lambda value: value / 10
    rates = Panel("Calls a second; below the axis: faults", 4, seconds, per_second(largest(w["planned"] for w in windows)))
    rates.curve("b", ((w["time"], per_second(sum(w["answered"].values()))) for w in windows))
    rates.curve("a", ((w["time"], per_second(w["failed"])) for w in windows))
    rates.legend("failed", "answered")
    rates.marks(fault["from"] for fault in record.faults)
    panels = (memory, of_system, connected, latency, rates)
    width, height = LEFT + WIDTH + 20, panels[-1].top + HEIGHT + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="A soak of {seconds / 60:.0f} minutes" font-family="Inter, system-ui, Segoe UI, Roboto, Arial, sans-serif" font-size="12">',
        "<style>.ink{fill:#1d2329}.label{font-size:10px;text-anchor:end}path,polyline{fill:none}.axis{stroke:#777}"
        "@media (prefers-color-scheme: dark){.paper{fill:#14181d}.ink{fill:#e8ecf0}}</style>",
        '<rect class="paper" width="100%" height="100%" fill="#ffffff"/>',
        *(line for panel in panels for line in panel.lines),
        *(
            f'<text class="ink label" x="{LEFT + WIDTH * share:.0f}" y="{height - 8}">{seconds * share / 60:.{0 if seconds >= 1200 else 1}f} min</text>'
            for share in (0.25, 0.5, 0.75, 1)
        ),
        "</svg>",
        "",
    ]
    return "\n".join(lines)
