"""What a soak writes down while it runs, a JSON object a line, and reads again to judge it."""

import dataclasses
import json
import pathlib


@dataclasses.dataclass
class Record:
    """A run, in the order of time; times are seconds since its beginning."""

    # The build of the server, the seed, the rate, and so on; and how the server ended.
    about: dict = dataclasses.field(default_factory=dict)
    # Each second: rss, told (memory_usage_bytes), fds, threads, tasks, connections, active, load, …; what could not be asked is missing.
    samples: list = dataclasses.field(default_factory=list)
    # Each ten seconds: answered by method, errors as [method, code, count], percentiles of latency, …
    windows: list = dataclasses.field(default_factory=list)
    # Each second with errors: errors as [method, code, count].
    errors: list = dataclasses.field(default_factory=list)
    # `fault`, and from when until when it lasted.
    faults: list = dataclasses.field(default_factory=list)
    # What was left of a sample's figures with no load, no connection and an empty cache.
    rests: list = dataclasses.field(default_factory=list)
    # What the load saw of values that it should not have been answered.
    wrong: list = dataclasses.field(default_factory=list)

    def add(self, kind, row):
        if kind == "about":
            self.about |= row
        else:
            getattr(self, kind).append(row)


class Writer:
    """A record that is kept in a file as well."""

    def __init__(self, path):
        self.record = Record()
        self._file = path.open("w", encoding="utf-8")

    def add(self, kind, **row):
        self.record.add(kind, row)
        self._file.write(json.dumps({"kind": kind, **row}) + "\n")
        self._file.flush()


def read(path):
    record = Record()
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        record.add(row.pop("kind"), row)
    return record
