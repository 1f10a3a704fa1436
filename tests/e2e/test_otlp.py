"""Metrics, traces and logs on their way to a real collector, and a collector in every sort of trouble."""

import json
import re
import shutil
import ssl
import subprocess
import time

import cache_pb2
import cache_pb2_grpc
import grpc
import pytest
from certificates import Files
from clients import connect, fetch, open_channel
from collector import Collector, MissingPort, Received, RefusingPort, SilentPort, attributes
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from server import Server, free_port, run, wait_until

SERVER = 2
CLIENT_TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(tmp_path):
    with Collector(tmp_path) as collector:
        yield collector


def exporting(endpoint, protocol="grpc", signals="metrics,traces,logs", **others):
    """The environment that has these signals exported at once and every request traced."""
    on = {f"OTEL_{signal.upper()}_EXPORTER": "otlp" for signal in signals.split(",")}
    return on | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BLRP_SCHEDULE_DELAY": "50",
    } | others


def figure(server, name, **labels):
    """The value of a metric as /metrics has it."""
    text = fetch(server.http, "/metrics").body.decode()
    for line in text.splitlines():
        if re.match(rf"{name}(\{{|\s)", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return None


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_collector_receives_metrics_traces_and_logs(collector, protocol, compression):
    environment = exporting(
        collector.endpoint(protocol),
        protocol,
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        OTEL_SERVICE_NAME="sessions",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=not-this",
    )
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        stub.Set(cache_pb2.CacheItem(key="k", value=b"12345", ttl=60))
        assert stub.Get(cache_pb2.CacheKey(key="k")).found
        received = collector.received
        span = received.wait_for_span("cache.CacheService/Get")
        assert span.kind == SERVER and not span.parent_span_id
        hits = wait_until(
            lambda: (hits := received.metric("tiny_cache.hits")) and hits.sum.data_points[0].as_int == 1 and hits,
            "the hit in the metrics",
        )
        assert hits.sum.is_monotonic
        wait_until(lambda: received.logs("serving"), "the line of the start")
        resources = received.resources()
        assert {resource["service.name"] for resource in resources} == {"sessions"}
        assert {resource["deployment.environment.name"] for resource in resources} == {"test"}
        assert len({resource["service.instance.id"] for resource in resources}) == 1
        exported = lambda: figure(server, "tiny_cache_telemetry_exports_total", signal="traces", result="ok")
        wait_until(lambda: exported() >= 1, "the collector's answer is counted")
    # What was left when it stopped came, too.
    wait_until(lambda: received.logs("stopped"), "the line of the end")


def test_spans_say_what_was_done_but_never_the_key(collector):
    environment = exporting(collector.endpoint("grpc"), signals="traces")
    with Server("--policy", "sieve", environment=environment) as server, connect(server.grpc) as stub:
        metadata = [("x-cache-namespace", "web")]
        stub.Set(cache_pb2.CacheItem(key="secret-key", value=b"12345", ttl=60), metadata=metadata)
        stub.Get(cache_pb2.CacheKey(key="secret-key"), metadata=metadata)
        stub.Get(cache_pb2.CacheKey(key="absent"))
        stub.MultiGet(cache_pb2.MultiCacheKeyRequest(keys=["secret-key", "a", "b"]), metadata=metadata)
        with pytest.raises(grpc.RpcError):
            stub.Get(cache_pb2.CacheKey(key=""))
        received = collector.received
        received.wait_for_span("cache.CacheService/Get", count=3)
        received.wait_for_span("cache.CacheService/MultiGet")
        put = attributes(received.wait_for_span("cache.CacheService/Set"))
        # Batches of them may overtake each other.
        gets = sorted(received.spans("cache.CacheService/Get"), key=lambda span: span.start_time_unix_nano)
        hit, miss, bad = map(attributes, gets)
        many = attributes(received.spans("cache.CacheService/MultiGet")[0])

        common = {"rpc.system.name": "grpc", "rpc.response.status_code": "OK", "network.transport": "tcp"}
        ours = {"tiny_cache.policy": "sieve", "tiny_cache.namespace": "web"}
        value = {"tiny_cache.value.size": 5, "tiny_cache.key.hash": put["tiny_cache.key.hash"]}
        expected = common | ours | value | {"tiny_cache.operation": "set", "tiny_cache.result": "stored", "tiny_cache.ttl": 60.0}
        assert expected.items() <= put.items()
        assert re.fullmatch("[0-9a-f]{16}", put["tiny_cache.key.hash"])
        assert (common | ours | value | {"tiny_cache.operation": "get", "tiny_cache.result": "hit"}).items() <= hit.items()
        assert miss["tiny_cache.result"] == "miss" and miss["tiny_cache.key.hash"] != hit["tiny_cache.key.hash"]
        assert bad["rpc.response.status_code"] == "INVALID_ARGUMENT" and "error.type" not in bad
        batch = {"tiny_cache.batch.keys": 3, "tiny_cache.batch.hit": 1, "tiny_cache.batch.miss": 2}
        assert (common | ours | batch).items() <= many.items()
        assert "secret-key" not in str(received.spans())


def test_a_trace_that_a_client_started_continues_in_the_server(collector):
    finished = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    interceptor = client_interceptor(tracer_provider=provider)
    with Server(environment=exporting(collector.endpoint("grpc"), signals="traces")) as server:
        with open_channel(server.grpc) as channel:
            stub = cache_pb2_grpc.CacheServiceStub(intercept_channel(channel, interceptor))
            with provider.get_tracer("test").start_as_current_span("work"):
                stub.Get(cache_pb2.CacheKey(key="k"))
        span = collector.received.wait_for_span("cache.CacheService/Get")
        call, work = finished.get_finished_spans()
        assert call.parent.span_id == work.context.span_id
        assert span.trace_id.hex() == trace.format_trace_id(work.context.trace_id)
        assert span.parent_span_id.hex() == trace.format_span_id(call.context.span_id)


def test_callers_who_decide_are_followed_and_are_told_of_the_span(collector):
    with Server(environment=exporting(collector.endpoint("grpc"), signals="traces")) as server:
        with connect(server.grpc) as stub:
            for flags in ["00", "01"]:
                header = ("traceparent", f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-{flags}")
                metadata = [header, ("tracestate", "vendor=1")]
                _, call = stub.Get.with_call(cache_pb2.CacheKey(key="k"), metadata=metadata)
                told = dict(call.initial_metadata()).get("traceresponse")
                assert (told is not None) == (flags == "01")
        span = collector.received.wait_for_span("cache.CacheService/Get")
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (CLIENT_TRACE, CLIENT_SPAN)
        assert span.trace_state == "vendor=1"
        assert told == f"00-{CLIENT_TRACE}-{span.span_id.hex()}-01"

        headers = {"traceparent": f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01", "user-agent": "probe/1"}
        answer = fetch(server.http, "/health", headers=headers)
        span = collector.received.wait_for_span("GET /health")
        assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (CLIENT_TRACE, CLIENT_SPAN, SERVER)
        assert answer.headers["traceresponse"] == f"00-{CLIENT_TRACE}-{span.span_id.hex()}-01"
        expected = {
            "http.request.method": "GET",
            "http.route": "/health",
            "http.response.status_code": 200,
            "url.path": "/health",
            "url.scheme": "http",
            "user_agent.original": "probe/1",
        }
        assert expected.items() <= attributes(span).items()
        assert fetch(server.http, "/nothing").status == 404
        span = collector.received.wait_for_span("GET")
        assert attributes(span)["http.response.status_code"] == 404 and span.status.code == 0


def test_grpcurl_makes_the_spans_it_should(collector):
    grpcurl = shutil.which("grpcurl")
    assert grpcurl, "grpcurl is not on the PATH: scripts/test e2e installs it"
    with Server(environment=exporting(collector.endpoint("grpc"), signals="traces")) as server:
        command = [grpcurl, "-plaintext", "-d", json.dumps({"key": "k"}), server.grpc, "cache.CacheService/Get"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        span = collector.received.wait_for_span("cache.CacheService/Get")
        assert attributes(span)["tiny_cache.result"] == "miss"
        # It asks what there is first, in a stream that ends with it.
        wait_until(
            lambda: any("ServerReflectionInfo" in span.name for span in collector.received.spans()), "the stream's span"
        )


@pytest.mark.parametrize("metrics", ["true", "false"])
def test_the_span_of_a_stream_ends_with_the_stream(collector, tmp_path, metrics):
    config = tmp_path / "tiny-cache.toml"
    config.write_text(f"[telemetry]\nmetrics = {metrics}\n")
    with Server("--config", config, environment=exporting(collector.endpoint("grpc"), signals="traces")) as server:
        with open_channel(server.grpc) as channel, connect(server.grpc) as stub:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(watch)
            assert "traceresponse" in dict(watch.initial_metadata())
            # A span that ends after the stream has begun arrives, and the stream's is not there yet.
            stub.Get(cache_pb2.CacheKey(key="k"))
            collector.received.wait_for_span("cache.CacheService/Get")
            assert not collector.received.spans("grpc.health.v1.Health/Watch")
            watch.cancel()
            span = collector.received.wait_for_span("grpc.health.v1.Health/Watch")
            assert attributes(span)["rpc.response.status_code"] == "CANCELLED"


def test_log_lines_tell_the_trace_and_exported_ones_belong_to_it(collector):
    environment = exporting(collector.endpoint("grpc"), signals="traces,logs")
    with Server("--log-level", "debug", environment=environment) as server:
        header = {"traceparent": f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"}
        fetch(server.http, "/live", headers=header)
        line = server.wait_for_line("answered")
        span = collector.received.wait_for_span("GET /live")
        assert (line["trace_id"], line["span_id"]) == (CLIENT_TRACE, span.span_id.hex())
        [record] = wait_until(lambda: collector.received.logs("answered"), "the record")
        assert (record.trace_id.hex(), record.span_id) == (CLIENT_TRACE, span.span_id)
        assert attributes(record)["request_id"] == line["request_id"]
        assert "trace_id" not in server.started
        # At this level the exporter's connection logs a lot. None of it is exported, or there would be no end.
        targets = collector.received.log_targets
        assert targets and all(target.startswith("tiny_cache::") for target in targets), targets
        count = len(collector.received.logs())
        time.sleep(0.5)
        assert len(collector.received.logs()) <= count + 2


@pytest.mark.parametrize("trouble", ["missing", "silent", "refusing"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_clients_do_not_notice_a_collector_in_trouble(trouble, protocol):
    kinds = {"missing": MissingPort, "silent": SilentPort, "refusing": lambda: RefusingPort(protocol)}
    with kinds[trouble]() as collector:
        environment = exporting(
            f"http://127.0.0.1:{collector.port}",
            protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="300",
            OTEL_BSP_MAX_QUEUE_SIZE="64",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="16",
        )
        with Server(environment=environment) as server, connect(server.grpc) as stub:
            took = []
            for _ in range(300):
                begun = time.perf_counter()
                stub.Get(cache_pb2.CacheKey(key="k"))
                took.append(time.perf_counter() - begun)
            # Had requests to wait for exports, one in sixteen would wait for the timeout. What telemetry costs when nothing waits is for
            # scripts/bench-telemetry to tell.
            stalled = [seconds for seconds in took if seconds > 0.25]
            assert len(stalled) <= 3, stalled
            # Queues are full by now: what does not fit is counted, and one line per signal tells of it.
            wait_until(lambda: figure(server, "tiny_cache_telemetry_dropped_total", signal="traces") > 200, "drops")
            for signal in ["metrics", "traces", "logs"]:
                wait_until(
                    lambda: figure(server, "tiny_cache_telemetry_exports_total", signal=signal, result="failed") >= 1,
                    f"failures of {signal}",
                )
            server.wait_for_line("cannot export", count=3)
            told = [line["signal"] for line in server.lines("cannot export")]
            assert sorted(told) == ["logs", "metrics", "traces"]
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 8


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_exports_go_on_when_the_collector_comes_back(collector, protocol):
    environment = exporting(collector.endpoint(protocol), protocol, OTEL_EXPORTER_OTLP_TIMEOUT="1000")
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        stub.Get(cache_pb2.CacheKey(key="k"))
        collector.received.wait_for_span("cache.CacheService/Get")
        collector.stop()

        def get_until_told(message):
            def told():
                stub.Get(cache_pb2.CacheKey(key="k"))
                return {"metrics", "traces"} <= {line["signal"] for line in server.lines(message)}

            wait_until(told, message, timeout=30)

        get_until_told("cannot export")
        collector.start()
        wait_until(
            lambda: stub.Set(cache_pb2.CacheItem(key="after", value=b"1"))
            and collector.received.spans("cache.CacheService/Set"),
            "spans again",
            timeout=20,
        )
        get_until_told("exporting again")


def test_switches_of_the_environment_are_over_the_file(collector, tmp_path):
    config = tmp_path / "tiny-cache.toml"
    config.write_text(
        "[telemetry.otlp]\nsignals = ['traces', 'metrics']\nsampling_ratio = 1.0\n"
        f"endpoint = 'http://127.0.0.1:{free_port()}'\nheaders = {{ authorization = 'Bearer file' }}\n"
    )

    def serve(spans, **environment):
        with Server("--config", config, environment=environment) as server, connect(server.grpc) as stub:
            _, call = stub.Get.with_call(cache_pb2.CacheKey(key="k"))
            assert ("traceresponse" in dict(call.initial_metadata())) == spans
            return server

    serve(True)
    serve(False, OTEL_SDK_DISABLED="true")
    serve(False, OTEL_TRACES_EXPORTER="none")
    serve(False, OTEL_TRACES_SAMPLER="always_off")
    before = len(collector.received.spans())
    # One signal's own variable beats the one for all, which beats the file.
    serve(
        True,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{collector.http_port}/v1/traces",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
    )
    wait_until(lambda: len(collector.received.spans()) > before, "the span")
    server = serve(True, OTEL_TRACES_SAMPLER="sometimes", OTEL_BSP_MAX_QUEUE_SIZE="many", OTEL_PROPAGATORS="b3")
    told = " ".join(line["variable"] for line in server.lines("passed over"))
    assert all(name in told for name in ["OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_PROPAGATORS"]), told


def test_the_last_push_tells_what_was_done_until_the_end(collector):
    environment = exporting(collector.endpoint("grpc"), signals="metrics", OTEL_METRIC_EXPORT_INTERVAL="3600000")
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        for _ in range(7):
            stub.Get(cache_pb2.CacheKey(key="k"))
        fetch(server.http, "/metrics")
        stub.Get(cache_pb2.CacheKey(key="k"))
    misses = wait_until(lambda: collector.received.metric("tiny_cache.misses"), "the push at the end")
    assert misses.sum.data_points[0].as_int == 8


def test_figures_are_pushed_as_they_are_served(collector):
    environment = exporting(
        collector.endpoint("grpc"), signals="metrics", OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta"
    )
    with Server("--max-items", "unlimited", environment=environment) as server, connect(server.grpc) as stub:
        stub.Set(cache_pb2.CacheItem(key="k", value=b"1"))
        received = collector.received
        calls = wait_until(lambda: received.metric("rpc.server.call.duration"), "the histogram")
        assert calls.histogram.aggregation_temporality == 1
        assert calls.histogram.data_points[0].count == 1
        entries = wait_until(
            lambda: (found := received.metric("tiny_cache.entries")) and found.gauge.data_points[0].as_int and found,
            "the entry",
        )
        assert entries.gauge.data_points[0].as_int == 1
        limit = received.metric("tiny_cache.capacity.max_items").gauge.data_points[0].as_double
        assert limit == figure(server, "tiny_cache_capacity_max_items") == 2**64
        # Prometheus still sees sums from the start.
        assert figure(server, "rpc_server_call_duration_seconds_count", rpc_method="cache.CacheService/Set") == 1


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_exports_go_over_tls_to_a_collector_that_is_trusted(tmp_path, authority, protocol, mutual):
    files = Files(tmp_path, authority)
    client, key = tmp_path / "client.crt", tmp_path / "client.key"
    for path, content in zip((client, key), authority.sign("client")):
        path.write_bytes(content)
    received = Received()
    if protocol == "grpc":
        identity = [(files.key.read_bytes(), files.cert.read_bytes())]
        sink, port = received.serve(grpc.ssl_server_credentials(identity, authority.pem, mutual))
        stop = lambda: sink.stop(None)
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.client_ca)
        context.load_cert_chain(files.cert, files.key)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        sink, port = received.serve_https(context)
        stop = sink.shutdown
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(files.client_ca)}
    if mutual:
        trusted |= {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client), "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key)}
    # Without a scheme it is TLS.
    environment = exporting(f"127.0.0.1:{port}", protocol, signals="traces")
    with Server(environment=environment | trusted) as server, connect(server.grpc) as stub:
        stub.Get(cache_pb2.CacheKey(key="k"))
        received.wait_for_span("cache.CacheService/Get")
    with Server(environment=environment) as server, connect(server.grpc) as stub:
        stub.Get(cache_pb2.CacheKey(key="k"))
        server.wait_for_line("cannot export", timeout=20)
    stop()


def test_certificates_that_cannot_be_used_end_the_start(tmp_path):
    for protocol in ["grpc", "http/protobuf"]:
        missing = exporting("https://127.0.0.1:1", protocol, OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "none.pem"))
        ended = run("serve", environment=missing)
        assert ended.returncode == 2 and "none.pem" in ended.stderr, ended.stderr
        # Without TLS nobody needs it.
        with Server(environment=missing | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
            pass
