"""The metrics as operators see them: against their page, by promtool, and in a real Prometheus."""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
import urllib.parse
from http.client import HTTPSConnection

import cache_pb2 as pb
import grpc
import pytest
from certificates import Files
from clients import connect, error_of, fetch, metrics_of
from http2 import Http2, frame
from server import ROOT, Server, wait_until

PAGE = ROOT / "docs" / "metrics.md"
TOOLS = ROOT / "target" / "tools"
GET = frame(pb.CacheKey(key="k").SerializeToString())


def tool(name):
    """A program of Prometheus: where scripts/test puts it, or an installed one."""
    return shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}") or pytest.fail(f"no {name}: run scripts/test e2e")


def configured(tmp_path, text):
    path = tmp_path / "tiny-cache.toml"
    path.write_text(text)
    return "--config", path


def use(address, calls=1):
    """Calls of every kind, also some that go wrong."""
    with connect(address) as stub:
        for _ in range(calls):
            stub.Set(pb.CacheItem(key="k", value=b"value"))
            stub.Get(pb.CacheKey(key="k"))
            stub.Get(pb.CacheKey(key="absent"))
            stub.Get(pb.CacheKey(key="k"), metadata=[("x-cache-namespace", "listed")])
            stub.Get(pb.CacheKey(key="k"), metadata=[("x-cache-namespace", "unlisted")])
            stub.MultiGet(pb.MultiCacheKeyRequest(keys=["k", "absent", ""]))
            stub.Delete(pb.CacheKey(key="absent"))
        error_of(lambda: stub.Get(pb.CacheKey(key="")))
    with grpc.insecure_channel(address) as channel:
        unknown = channel.unary_unary("/cache.CacheService/Nothing")
        assert error_of(lambda: unknown(b"")).code() == grpc.StatusCode.UNIMPLEMENTED


class Exported:
    """Families of a scrape: type, help, and the names of the labels that any of their samples has."""

    def __init__(self, text):
        self.types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
        self.labels = {name: set() for name in self.types}
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
            family = name if name in self.types else re.sub(r"_(bucket|sum|count)$", "", name)
            self.labels[family] |= set(re.findall(r'(\w+)="', labels)) - {"le"}

    def add(self, other):
        for name, kind in other.types.items():
            assert self.types.setdefault(name, kind) == kind
            self.labels.setdefault(name, set()).update(other.labels[name])


def documented():
    """Type and labels of every metric of the page, and its unit."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ?`?([^`|]*?)`? ?\| ?(.*?) ?\|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, *_ in rows}), "a metric is there twice"
    return {name: (kind, unit.strip(), set(re.findall(r"`(\w+)`", labels))) for name, kind, unit, labels in rows}


@pytest.fixture
def everything(tmp_path, authority):
    """What servers export once everything that has labels has happened."""
    flags = configured(
        tmp_path,
        """
        [store]
        max_items = 10
        sweep_interval = "1s"
        [eviction]
        policy = "s3-fifo"
        [telemetry]
        namespaces = ["listed"]
        """,
    )
    with Server(*flags) as server:
        use(server.grpc)
        fetch(server.http, "/nothing")
        with connect(server.grpc) as stub:
            stub.MultiSet(pb.MultiCacheItemRequest(items=[pb.CacheItem(key=f"{n}", value=b"v") for n in range(1000)]))
        for name in ("eviction_age", "sweep_duration"):
            count = f"tiny_cache_{name}_seconds_count"
            wait_until(lambda: metrics_of(server.http).get(count, 0) > 0, count)
        with Http2(server.grpc) as client:
            stream = client.open()
            client.send(stream, GET[:3], end=False)
            server.signal(signal.SIGTERM)
            # The store's failure, as a drain has it: a 503.
            wait_until(lambda: fetch(server.http, "/ready").status == 503, "not ready")
            found = Exported(fetch(server.http, "/metrics").body.decode())
            client.send(stream, GET[3:])
            client.answer(stream)
        assert server.wait() == 0
    files = Files(tmp_path, authority)
    flags = configured(
        tmp_path,
        f"""
        [[transport]]
        kind = "http"
        [transport.tls]
        cert = "{files.cert}"
        key = "{files.key}"
        """,
    )
    with Server(*flags) as server:
        host, port = server.http.rsplit(":", 1)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = HTTPSConnection(host, int(port), context=context, timeout=10)
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
        client.close()
    expiry = re.search(r'^tiny_cache_tls_certificate_expiry_seconds\{transport="http"\} (\S+)$', text, re.MULTILINE)
    assert float(expiry[1]) == files.expiry().timestamp()
    assert 'url_scheme="https"' in text
    found.add(Exported(text))
    return found


def test_the_page_and_the_server_agree(everything):
    page = documented()
    here, there = set(page), set(everything.types)
    assert (here - there, there - here) == (set(), set()), "on the page alone, on the server alone"
    suffixes = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}
    for name, (kind, unit, labels) in page.items():
        assert (kind, labels) == (everything.types[name], everything.labels[name]), name
        assert re.sub("_total$", "", name).endswith(suffixes.get(unit, "")), (name, unit)
        assert kind != "counter" or name.endswith("_total"), name


def test_promtool_has_nothing_to_say(server):
    use(server.grpc)
    text = fetch(server.http, "/metrics").body
    checked = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_operations_are_counted_by_kind_result_and_listed_namespace(tmp_path):
    flags = configured(tmp_path, '[telemetry]\nnamespaces = ["listed"]\n')
    with Server(*flags) as server:
        use(server.grpc)
        text = fetch(server.http, "/metrics").body.decode()
    found = re.findall(r"^tiny_cache_operations_total\{(.*)\} (\d+)$", text, re.MULTILINE)
    expected = {
        ("default", "set", "stored"): 1,
        ("default", "get", "hit"): 2,
        ("default", "get", "miss"): 2,
        ("default", "get", "invalid"): 2,
        ("default", "delete", "not_found"): 1,
        ("listed", "get", "miss"): 1,
        ("other", "get", "miss"): 1,
    }
    counted = {tuple(dict(re.findall(r'(\w+)="(.*?)"', labels)).values()): int(count) for labels, count in found}
    assert counted == expected


def test_nothing_is_recorded_where_that_is_off(tmp_path):
    with Server(*configured(tmp_path, "[telemetry]\nmetrics = false\n")) as server:
        use(server.grpc)
        text = fetch(server.http, "/metrics").body.decode()
    exported = Exported(text)
    gone = set(documented()) - set(exported.types)
    assert gone == {
        "http_server_active_requests",
        "http_server_request_duration_seconds",
        "rpc_server_call_duration_seconds",
        "tiny_cache_eviction_age_seconds",
        "tiny_cache_eviction_idle_seconds",
        "tiny_cache_eviction_left_out_total",
        "tiny_cache_operations_total",
        "tiny_cache_policy_state",
        "tiny_cache_sweep_duration_seconds",
        "tiny_cache_tls_certificate_expiry_seconds",
    }
    assert re.search(r"^tiny_cache_hits_total 2$", text, re.MULTILINE)


class Prometheus:
    """A real one that scrapes a server every second."""

    def __init__(self, directory, target):
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: tiny-cache, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        self.log = directory / "prometheus.log"
        # Port 0: it says in its log which one it was given.
        command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0", "--log.format=json"], stdout=log, stderr=log
            )
        try:
            self.address = wait_until(self._address, "Prometheus listens", timeout=30)
            wait_until(lambda: fetch(self.address, "/-/ready").status == 200, "Prometheus is ready", timeout=30)
        except BaseException:
            self.stop()
            raise

    def _address(self):
        found = re.search(r'"address":"(127\.0\.0\.1:[1-9]\d*)"', self.log.read_text())
        return found and found[1]

    def query(self, expression):
        """The values of an instant query by their labels."""
        answer = fetch(self.address, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        body = json.loads(answer.body)
        assert body["status"] == "success", body
        return {
            tuple(value for name, value in sorted(sample["metric"].items()) if name not in ("__name__", "instance", "job")):
            float(sample["value"][1])
            for sample in body["data"]["result"]
        }

    def value(self, expression):
        """The value of a query with one result, or None."""
        return next(iter(self.query(expression).values()), None)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def test_the_start_of_the_process_is_when_it_started():
    before = time.time()
    with Server() as server:
        started = time.time()
        assert before - 0.1 < metrics_of(server.http)["process_start_time_seconds"] < started + 0.1


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_a_real_prometheus_scrapes_the_server_under_load(server, tmp_path):
    rounds = 0
    with Prometheus(tmp_path, server.http) as prometheus:
        wait_until(lambda: prometheus.value("up") == 1, "the first scrape", timeout=30)
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            use(server.grpc, calls=20)
            rounds += 1
        gets, calls = rounds * 20 * 4, rounds * 20
        methods = lambda: prometheus.query("sum by (rpc_method) (rpc_server_call_duration_seconds_count)")
        # A call that no service has is the last of each round. What the store counts is looked at a moment before calls are.
        is_whole = lambda: methods().get(("_OTHER",)) == rounds and prometheus.value("tiny_cache_misses_total") == 4 * calls
        wait_until(is_whole, "a scrape after the load", timeout=30)
        assert prometheus.value("sum(tiny_cache_operations_total{operation='set'})") == calls
        by_method = methods()
        assert by_method[("cache.CacheService/Get",)] == gets + rounds
        assert by_method[("cache.CacheService/MultiGet",)] == calls
        assert by_method[("_OTHER",)] == rounds
        failures = prometheus.query("sum by (error_type) (rpc_server_call_duration_seconds_count{error_type!=''})")
        assert failures == {("UNIMPLEMENTED",): rounds}
        assert prometheus.value("tiny_cache_hits_total") == 2 * calls
        assert prometheus.value("tiny_cache_misses_total") == 4 * calls
        # What the page says to ask.
        ratio = "rate(tiny_cache_hits_total[1m]) / (rate(tiny_cache_hits_total[1m]) + rate(tiny_cache_misses_total[1m]))"
        assert prometheus.value(ratio) == pytest.approx(1 / 3, rel=0.05)
        slow = "histogram_quantile(0.5, sum by (le) (rate(rpc_server_call_duration_seconds_bucket[1m])))"
        assert 0 < prometheus.value(slow) < 0.1
        assert prometheus.value("sum(rate(rpc_server_call_duration_seconds_count[1m]))") > 0
        assert prometheus.value("max_over_time(tiny_cache_connections_open{transport='http'}[1m])") >= 1
        assert prometheus.value("rate(tiny_cache_io_bytes_total{transport='grpc', direction='received'}[1m])") > 0
        assert prometheus.value("process_start_time_seconds") == pytest.approx(time.time(), abs=120)
        assert prometheus.value("tiny_cache_build_info") == 1
        assert prometheus.value("max(scrape_duration_seconds)") < 1
        assert prometheus.query("ALERTS") == {}
