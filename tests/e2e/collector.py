"""A real OpenTelemetry collector (rotel) that hands on what it receives, and what the tests see of it."""

import http.server
import pathlib
import socket
import subprocess
import threading
from concurrent import futures

import grpc
import rotel
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from server import free_port, wait_until

AGENT = pathlib.Path(rotel.__file__).with_name("rotel-agent")


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def plain(value):
    """An OTLP value as Python's."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def attributes(item):
    return {pair.key: plain(pair.value) for pair in item.attributes}


class Received:
    """What has arrived behind the collector, flat: (resource attributes, item) each."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans, self._metrics, self._logs = [], [], []
        self.log_targets = set()

    def add(self, into, items):
        with self._lock:
            into.extend(items)

    def _copy(self, of):
        with self._lock:
            return list(of)

    def resources(self):
        return [resource for of in (self._spans, self._metrics, self._logs) for resource, _ in self._copy(of)]

    def spans(self, name=None):
        return [span for _, span in self._copy(self._spans) if name in (None, span.name)]

    def logs(self, text=""):
        return [record for _, record in self._copy(self._logs) if text in record.body.string_value]

    def metric(self, name):
        """The last of this name."""
        return next((metric for _, metric in reversed(self._copy(self._metrics)) if metric.name == name), None)

    def wait_for_span(self, name, count=1):
        return wait_until(lambda: len(spans := self.spans(name)) >= count and spans, f"{count} spans {name}")[-1]

    def serve(self, credentials=None):
        """An OTLP receiver that keeps what it gets; its server and port."""

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(_, request, context):
                for of in request.resource_spans:
                    items = [(attributes(of.resource), span) for scope in of.scope_spans for span in scope.spans]
                    self.add(self._spans, items)
                return trace_service_pb2.ExportTraceServiceResponse()

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(_, request, context):
                for of in request.resource_metrics:
                    items = [(attributes(of.resource), one) for scope in of.scope_metrics for one in scope.metrics]
                    self.add(self._metrics, items)
                return metrics_service_pb2.ExportMetricsServiceResponse()

        class Logs(logs_service_pb2_grpc.LogsServiceServicer):
            def Export(_, request, context):
                for of in request.resource_logs:
                    items = [(attributes(of.resource), one) for scope in of.scope_logs for one in scope.log_records]
                    self.log_targets |= {scope.scope.name for scope in of.scope_logs}
                    self.add(self._logs, items)
                return logs_service_pb2.ExportLogsServiceResponse()

        server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        return server, port


    def serve_https(self, context):
        """The same over HTTP with TLS, for traces; its server and port."""
        received = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                for of in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
                    received.add(received._spans, [({}, span) for scope in of.scope_spans for span in scope.spans])
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server, server.server_address[1]


class Collector:
    """The collector's process. Its ports stay the same when it is stopped and started again."""

    def __init__(self, folder):
        self.received = Received()
        self._sink, self._sink_port = self.received.serve()
        self._folder = folder
        self.grpc_port, self.http_port = free_port(), free_port()
        self._process = None

    def endpoint(self, protocol):
        return f"http://127.0.0.1:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    def start(self):
        flags = {
            "--otlp-grpc-endpoint": f"127.0.0.1:{self.grpc_port}",
            "--otlp-http-endpoint": f"127.0.0.1:{self.http_port}",
            "--exporter": "otlp",
            "--otlp-exporter-endpoint": f"http://127.0.0.1:{self._sink_port}",
            "--batch-timeout": "50ms",
            "--log-file": self._folder / "rotel.log",
            "--pid-file": self._folder / "rotel.pid",
        }
        words = [str(word) for pair in flags.items() for word in pair]
        self._process = subprocess.Popen(
            [AGENT, "start", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: is_open(self.grpc_port) and is_open(self.http_port), "the collector listens")

    def stop(self):
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self._sink.stop(None)


class SilentPort:
    """Takes connections and never says a word."""

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self._socket.close()


class RefusingPort:
    """Answers every export with an error, as a collector does that has too much to do or does not want it."""

    def __init__(self, protocol):
        if protocol == "grpc":
            server = grpc.server(futures.ThreadPoolExecutor(2))
            self.port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            self._stop = lambda: server.stop(None)
        else:

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_POST(self):
                    self.rfile.read(int(self.headers["content-length"]))
                    self.send_error(503)

                def log_message(self, *_):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._stop = server.shutdown

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()


class MissingPort:
    """Nobody listens there."""

    def __init__(self):
        self.port = free_port()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
