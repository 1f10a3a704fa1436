"""Where a soak takes place: a server with every kind of listener, a collector, certificates, clients, and a look at all of it each second."""

import collections
import contextlib
import json
import multiprocessing
import os
import pathlib
import queue
import re
import signal
import threading
import time

import load
from certificates import Authority, Files
from clients import fetch
from server import Server, wait_until

MOST_ITEMS, MOST_MIB = 20_000, 96
# No less than max_value.
LEAST_MIB = 4
WINDOW_SECONDS = 10


def metrics_of(address):
    """The samples of /metrics by name and labels."""
    text = fetch(address, "/metrics", timeout=5).body.decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def build_of(address):
    """What a server says of how it was built: version, commit, profile and more."""
    [labels] = re.findall(r"^tiny_cache_build_info\{(.*)\} 1$", fetch(address, "/metrics").body.decode(), re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', labels))


class Collector:
    """A collector that throws away what it gets; absent where the package rotel is."""

    def __init__(self, folder):
        import collector

        self._real = collector.Collector(folder)
        self.endpoint = self._real.endpoint("grpc")
        self.start, self.stop = self._real.start, self._real.stop
        self.end = lambda: self._real.__exit__()


class Stage:
    """Everything that faults can get at."""

    def __init__(self, folder, policy, rate, seed):
        self.folder, self.policy, self.rate, self.seed = folder, policy, rate, seed
        self.config, self.access_log = folder / "cache.toml", folder / "access.jsonl"
        self.authority = Authority("soak")
        self.files = Files(folder, self.authority)
        self._identity = self.authority.sign("client")
        self.identity_files = [folder / "client.crt", folder / "client.key"]
        for path, content in zip(self.identity_files, self._identity):
            path.write_bytes(content)
        context = multiprocessing.get_context("spawn")
        self.factor, self.stopped, self.results = context.Value("d", 0.0), context.Event(), context.Queue()
        self._context, self._workers = context, []
        self.collector = Collector(folder)

    def configure(self, max_items=MOST_ITEMS, max_memory_mib=MOST_MIB):
        new = self.config.with_suffix(".new")
        new.write_text(
            f"""
[store]
max_items = {max_items}
max_memory = "{max_memory_mib}MiB"
max_value = "{LEAST_MIB}MiB"
sweep_interval = "1s"
shards = 8

[eviction]
policy = "{self.policy}"

[[transport]]
kind = "grpc"
listen = "127.0.0.1:0"
max_connection_age = "45s"
handshake_timeout = "5s"

[[transport]]
kind = "grpc"
listen = "unix:{self.folder}/cache.sock"

[[transport]]
kind = "grpc"
listen = "127.0.0.1:0"
max_connection_age = "1m"
handshake_timeout = "5s"

[transport.tls]
cert = "{self.files.cert}"
key = "{self.files.key}"
client_ca = "{self.files.client_ca}"
reload_interval = "1s"

[[transport]]
kind = "http"
listen = "127.0.0.1:0"
handshake_timeout = "5s"

[telemetry]
log_format = "json"
namespaces = ["sessions", "pages"]

[telemetry.access_log]
path = "{self.access_log}"

[telemetry.otlp]
signals = ["metrics", "traces", "logs"]
endpoint = "{self.collector.endpoint}"
interval = "10s"
timeout = "2s"
sampling_ratio = 0.05

[server]
shutdown_grace = "10s"
""",
            encoding="utf-8",
        )
        os.replace(new, self.config)

    def signal(self, number):
        self.server.signal(number)

    @contextlib.contextmanager
    def running(self):
        """The collector, the server and the clients; all are gone at the end. Gives what became of the server."""
        outcome = {}
        self.configure()
        self.collector.start()
        self.server = None
        try:
            self.server = Server("--config", self.config, listen=False, log_format=None)
            self.tcp, _, self.tls = self.server.grpc.split(", ")
            self.http = self.server.http
            credentials = (self.authority.pem, self._identity[1], self._identity[0])
            self.targets = {
                "tcp": (self.tcp, None),
                "unix": (f"unix:{self.folder}/cache.sock", None),
                "tls": (self.tls.replace("127.0.0.1", "localhost"), credentials),
            }
            for number, target in enumerate(self.targets.values()):
                arguments = (*target, f"{self.seed}-{number}", self.rate / 3, self.factor, self.stopped, self.results)
                self._workers.append(self._context.Process(target=load.work, args=arguments, daemon=True))
                self._workers[-1].start()
            yield outcome
        finally:
            self.stopped.set()
            for worker in self._workers:
                worker.join(timeout=20)
                worker.kill()
            if self.server:
                self.server.signal(signal.SIGCONT)
                outcome["code"] = self.server.stop()
                outcome["panics"] = len([line for line in self.server.log if "panic" in json.dumps(line)])
                outcome["log"] = dict(
                    collections.Counter(f"{line.get('level', '?')}: {line.get('message', '')}"[:120] for line in self.server.log).most_common(25)
                )
            self.collector.end()


class Watch:
    """Writes down a sample each second, and what the clients tell."""

    def __init__(self, stage, writer, began):
        self._stage, self._writer, self._began = stage, writer, began
        self._pid = stage.server.process.pid
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._sample, self._gather)]
        self.details = {}

    def look(self):
        """A sample now."""
        status = pathlib.Path(f"/proc/{self._pid}/status").read_text(encoding="ascii")
        sample = {
            "time": round(time.monotonic() - self._began, 2),
            "rss": int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024,
            "anonymous": int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024,
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
            "fds": len(os.listdir(f"/proc/{self._pid}/fd")),
            "load": os.getloadavg()[0],
        }
        # No answer is an answer too: the server may be halted, or short of descriptors.
        with contextlib.suppress(OSError, KeyError, ValueError, AssertionError):
            metrics = metrics_of(self._stage.http)
            sample |= {
                "told": metrics["tiny_cache_memory_usage_bytes"],
                "limit": metrics["tiny_cache_capacity_max_memory_bytes"],
                "entries": metrics["tiny_cache_entries"],
                "active": metrics["tiny_cache_active_requests"],
                "connections": metrics['tiny_cache_connections_open{transport="grpc"}'],
                "http_connections": metrics['tiny_cache_connections_open{transport="http"}'],
                "tasks": metrics["tiny_cache_runtime_tasks"],
                "processor": metrics["process_cpu_seconds_total"],
            }
        return sample

    def _sample(self):
        number = 0
        while not self._ended.wait(max(0.0, self._began + number - time.monotonic())):
            number = max(number + 1, int(time.monotonic() - self._began))
            with contextlib.suppress(OSError):
                self._writer.add("samples", **self.look())
            # What people and probes ask for, besides.
            for path in ("/", "/stats", "/history", "/ready", "/live", "/nothing")[number % 6 :: 6]:
                with contextlib.suppress(OSError):
                    fetch(self._stage.http, path, timeout=5)

    def _gather(self):
        window, ends = [], self._began + WINDOW_SECONDS
        while True:
            with contextlib.suppress(queue.Empty, EOFError, OSError):
                at, tally = self._stage.results.get(timeout=0.5)
                window.append(tally)
                if tally.errors:
                    errors = [[kind, code, count] for (kind, code), count in tally.errors.items()]
                    self._writer.add("errors", time=round(at - self._began, 1), errors=errors)
                for text in tally.wrong:
                    self._writer.add("wrong", time=round(at - self._began, 1), text=text)
                for key, text in tally.details.items():
                    self.details.setdefault(key, text)
            if time.monotonic() >= ends or (self._ended.is_set() and self._stage.results.empty()):
                self._close(window, ends)
                window, ends = [], ends + WINDOW_SECONDS
                if self._ended.is_set():
                    return

    def _close(self, window, ends):
        answered = sum((tally.answered for tally in window), collections.Counter())
        failed = sum(sum(tally.errors.values()) for tally in window)
        held_back = sum(tally.held_back for tally in window)
        latencies = sorted(latency for tally in window for latency in tally.latencies)
        at = lambda share: round(latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1e3, 3) if latencies else None
        self._writer.add(
            "windows",
            time=round(ends - WINDOW_SECONDS - self._began, 1),
            answered=dict(answered),
            failed=failed,
            held_back=held_back,
            planned=sum(answered.values()) + failed + held_back,
            ms={"50": at(0.5), "99": at(0.99), "99.9": at(0.999), "most": at(1)},
        )

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=30)


def rest(stage, watch, writer, began):
    """No load, no connection, an empty cache: what is left then is the server's own."""
    begin, before = round(time.monotonic() - began, 1), stage.factor.value
    stage.factor.value = 0.0
    with contextlib.suppress(AssertionError):
        wait_until(lambda: watch.look().get("connections") == 0, "the connections are closed", timeout=20)
    # There is no call that clears a cache; a limit that leaves room for next to nothing does.
    stage.configure(max_items=8, max_memory_mib=LEAST_MIB)
    stage.signal(signal.SIGHUP)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: watch.look().get("entries", 1e9) <= 8, "the cache is empty", timeout=30)
    # Memory goes back, and tasks end, a moment later.
    lowest, still = float("inf"), 0
    for _ in range(20):
        time.sleep(1)
        sample = watch.look()
        still = still + 1 if sample["rss"] >= lowest - (1 << 20) else 0
        lowest = min(lowest, sample["rss"])
        if still == 4 and sample.get("active") == 0:
            break
    stage.configure()
    stage.signal(signal.SIGHUP)
    wait_until(lambda: watch.look().get("limit") == MOST_MIB << 20, "the limits are back", timeout=30)
    writer.add("rests", **sample, **{"from": begin}, until=round(time.monotonic() - began, 1))
    stage.factor.value = before

