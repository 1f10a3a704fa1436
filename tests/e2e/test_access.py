"""Who gets in: named clients, TLS as it should be, listeners apart, bearer tokens; and that no secret gets out."""

import contextlib
import http.client
import http.server
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import threading
from concurrent import futures

import cache_pb2 as pb
import grpc
import pytest
from certificates import Files
from clients import assert_refused, connect, fetch, open_channel
from cryptography import x509
from grpc import StatusCode
from http2 import Http2, address_of, frame
from server import BINARY, Server, clean_environment, run, wait_until

KEY = pb.CacheKey(key="k")
LISTED, UNLISTED = "spiffe://example.org/jobs/nightly", "spiffe://example.org/other"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
REFLECTION = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]


@pytest.fixture
def files(tmp_path, authority):
    return Files(tmp_path, authority)


@pytest.fixture
def serve(tmp_path):
    """Starts a server with the transports of a text."""

    def start(config, *flags, **options):
        path = tmp_path / "cache.toml"
        path.write_text(config)
        return Server("--config", path, *flags, listen=False, **options)

    return start


def transport(kind, *lines, listen="127.0.0.1:0"):
    return "\n".join(["[[transport]]", f'kind = "{kind}"', f'listen = "{listen}"', *lines, ""])


def tls(files, *lines):
    return "\n".join(["[transport.tls]", f'cert = "{files.cert}"', f'key = "{files.key}"', *lines, ""])


def auth(tokens):
    return f'[transport.auth]\ntokens_file = "{tokens}"\nreload_interval = "1s"\n'


def client_context(authority, identity=None, version=None, directory=None):
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if version:
        context.minimum_version = context.maximum_version = version
    if identity:
        path = directory / "client.pem"
        path.write_bytes(b"".join(identity))
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def https(address, context):
    connection = http.client.HTTPSConnection(*address_of(address), timeout=10, context=context)
    with contextlib.closing(connection):
        yield connection


def get(connection, path, headers=None):
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.headers, response.read().decode()


def total(text, name, **labels):
    """The sum of the samples of a metric that have these labels."""
    found = [line for line in text.splitlines() if line.startswith(name + "{")]
    found = [line for line in found if all(f'{label}="{value}"' in line for label, value in labels.items())]
    assert found, (name, labels)
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def answers(channel, path):
    """What a streaming method says to a request for the list of services."""
    return list(channel.stream_stream(path)(iter([b"\x3a\x00"]), timeout=10))


def check_health(channel, metadata=None):
    return channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10, metadata=metadata)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_is_not_listed_is_denied_in_the_handshake(files, authority, serve, tmp_path, version):
    listed = tls(files, f'client_ca = "{files.client_ca}"', 'clients = ["uri:spiffe://example.org/jobs/*", "dns:app.internal"]')
    identity = lambda uri: authority.sign("client", [x509.UniformResourceIdentifier(uri)])
    context = lambda uri: client_context(authority, identity(uri), version, tmp_path)
    with serve(transport("grpc", listed) + transport("http", listed) + transport("http")) as server:
        guarded, plain = server.http.split(", ")
        metrics = lambda: fetch(plain, "/metrics").body.decode()
        refused = lambda kind: total(
            metrics(), "tiny_cache_connections_refused_total", transport=kind, reason="client_not_listed"
        )
        with https(guarded, context(LISTED)) as client:
            assert get(client, "/live")[0] == 200
        with connect(server.grpc, authority.credentials(identity(LISTED))) as stub:
            stub.Get(KEY)
        with connect(server.grpc, authority.credentials(authority.sign("x", [x509.DNSName("app.internal")]))) as stub:
            stub.Get(KEY)
        assert refused("http") == refused("grpc") == 0
        with https(guarded, context(UNLISTED)) as client:
            with pytest.raises(ssl.SSLError, match="(?i)access.denied"):
                get(client, "/live")
        line = server.wait_for_line("client refused")
        assert line["level"] == "INFO" and UNLISTED in json.dumps(line) and "127.0.0.1" in line["peer"], line
        # A client hears of its refusal, and the log tells of it, before it is counted.
        wait_until(lambda: refused("http"), "it is counted")
        assert refused("http") == 1
        with connect(server.grpc, authority.credentials(identity(UNLISTED))) as stub:
            assert_refused(lambda: stub.Get(KEY, timeout=10), StatusCode.UNAVAILABLE)
        wait_until(lambda: refused("grpc"), "it is counted")

        # Before and after a rotation.
        certificate, key = authority.sign()
        files.write(certificate, key)
        server.signal(signal.SIGHUP)
        server.wait_for_line("TLS certificates reloaded", count=2)
        with https(guarded, context(UNLISTED)) as client:
            with pytest.raises(ssl.SSLError, match="(?i)access.denied"):
                get(client, "/live")
        with https(guarded, context(LISTED)) as client:
            assert get(client, "/live")[0] == 200


def test_each_listener_has_a_list_of_its_own(files, authority, serve):
    listed = lambda uri: tls(files, f'client_ca = "{files.client_ca}"', f'clients = ["uri:{uri}"]')
    uris = ["spiffe://example.org/one", "spiffe://example.org/other"]
    with serve("".join(transport("grpc", listed(uri)) for uri in uris) + transport("http")) as server:
        refused = lambda: total(
            fetch(server.http, "/metrics").body.decode(),
            "tiny_cache_connections_refused_total",
            transport="grpc",
            reason="client_not_listed",
        )
        ports = server.grpc.split(", ")
        for uri, own, other in zip(uris, ports, reversed(ports)):
            credentials = authority.credentials(authority.sign("client", [x509.UniformResourceIdentifier(uri)]))
            before = refused()
            with connect(own, credentials) as stub:
                stub.Get(KEY)
            assert refused() == before
            with connect(other, credentials) as stub:
                assert_refused(lambda: stub.Get(KEY, timeout=10), StatusCode.UNAVAILABLE)
            wait_until(lambda: refused() > before, "it is counted")
            wait_until(lambda: any(uri in json.dumps(line) for line in server.lines("client refused")), "it is told")


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
@pytest.mark.parametrize("version", VERSIONS)
def test_no_session_is_resumed_past_a_look_at_the_certificate(files, authority, serve, tmp_path, version, mutual):
    lines = [f'client_ca = "{files.client_ca}"'] if mutual else []
    context = client_context(authority, authority.sign("client"), version, tmp_path)

    def session(server, last=None):
        with socket.create_connection(address_of(server.http), 10) as raw:
            with context.wrap_socket(raw, server_hostname="localhost", session=last) as client:
                client.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                while client.recv(4096):
                    pass
                return client.session_reused, client.session

    with serve(transport("http", tls(files, *lines))) as server:
        _, first = session(server)
        reused, _ = session(server, first)
        assert reused == (not mutual)


def test_everything_that_http_has_comes_over_tls(files, authority, serve):
    with serve(transport("http", tls(files))) as server, https(server.http, client_context(authority)) as client:
        for path in ("/health", "/ready", "/live", "/stats", "/history"):
            assert get(client, path)[0] == 200, path
        assert "tiny_cache_hits_total 0" in get(client, "/metrics")[2]
        status, headers, page = get(client, "/", {"accept": "text/html"})
        assert status == 200 and headers["content-type"].startswith("text/html") and "<script>" in page
        assert "connect-src 'self'" in headers["content-security-policy"] and "http://" not in headers["content-security-policy"]


def test_listeners_serve_their_parts_and_nothing_else(serve):
    config = transport("grpc", 'serve = ["probes"]') + transport("grpc", 'serve = ["cache"]')
    config += transport("http", 'serve = ["probes"]') + transport("http", 'serve = ["status", "metrics"]')
    with serve(config) as server:
        (health, cache), (probes, others) = server.grpc.split(", "), server.http.split(", ")
        with open_channel(health) as channel:
            assert check_health(channel) == b"\x08\x01"
            for path in REFLECTION:
                with pytest.raises(grpc.RpcError) as failure:
                    answers(channel, path)
                assert failure.value.code() == StatusCode.UNIMPLEMENTED
        with connect(health) as stub:
            assert_refused(lambda: stub.Get(KEY), StatusCode.UNIMPLEMENTED)
            assert_refused(lambda: stub.Stats(pb.Empty()), StatusCode.UNIMPLEMENTED)
        with connect(cache) as stub:
            assert not stub.Get(KEY).found
        with open_channel(cache) as channel:
            with pytest.raises(grpc.RpcError) as failure:
                check_health(channel)
            assert failure.value.code() == StatusCode.UNIMPLEMENTED
            assert all(b"cache.CacheService" in answers(channel, path)[0] for path in REFLECTION)
        paths = {"/health", "/ready", "/live", "/metrics", "/stats", "/history", "/"}
        served = lambda address: {path for path in paths if fetch(address, path).status == 200}
        assert served(probes) == {"/health", "/ready", "/live"}
        assert served(others) == {"/metrics", "/stats", "/history", "/"}
        index = fetch(others, "/").json()
        assert index["endpoints"] == ["/metrics", "/stats", "/history"] and index["grpc_port"] == address_of(cache)[1]


def test_probes_on_a_listener_of_their_own_are_answered_until_the_end(serve):
    config = transport("grpc", 'serve = ["probes"]') + transport("grpc", 'serve = ["cache"]')
    with serve(config + '[server]\nshutdown_grace = "10s"\n') as server:
        health, cache = server.grpc.split(", ")
        with open_channel(health) as channel, Http2(cache) as held:
            assert check_health(channel) == b"\x08\x01"
            stream = held.open("Set", [])
            server.signal(signal.SIGTERM)
            server.wait_for_line("draining")
            wait_until(lambda: check_health(channel) == b"\x08\x02", "NOT_SERVING")
            with open_channel(health) as newcomer:
                assert check_health(newcomer) == b"\x08\x02"
            held.send(stream, frame(pb.CacheItem(key="k", value=b"v").SerializeToString()))
            assert held.answer(stream).status == 0
        assert server.wait() == 0


def test_reflection_that_is_switched_off_is_not_there(serve):
    with serve(transport("grpc", "reflection = false")) as server, open_channel(server.grpc) as channel:
        for path in REFLECTION:
            with pytest.raises(grpc.RpcError) as failure:
                answers(channel, path)
            assert failure.value.code() == StatusCode.UNIMPLEMENTED
        assert check_health(channel) == b"\x08\x01"
    with serve(transport("grpc")) as server, open_channel(server.grpc) as channel:
        assert all(b"cache.CacheService" in answers(channel, path)[0] for path in REFLECTION)


def test_who_listens_beyond_this_machine_without_tls_is_warned(files, serve, tmp_path, token_file):
    everywhere = "0.0.0.0:0"
    warned, token_warned = "beyond this machine without TLS", "bearer tokens without TLS"
    for config, expected in [
        (transport("grpc", listen=everywhere), [(warned, "grpc")]),
        (transport("http", listen="[::]:0"), [(warned, "http")]),
        (transport("grpc", auth(token_file), listen=everywhere), [(token_warned, "grpc")]),
        (transport("grpc", listen=everywhere) + transport("http", listen=everywhere), [(warned, "grpc"), (warned, "http")]),
        (transport("grpc", tls(files), auth(token_file), listen=everywhere), []),
        (transport("grpc", auth(token_file)), []),
        (transport("grpc") + transport("http", listen="[::1]:0"), []),
        (transport("grpc", listen=f"unix:{tmp_path / 'cache.sock'}"), []),
        (transport("http", 'serve = ["probes"]', listen=everywhere), []),
        (transport("http", 'serve = ["probes", "metrics"]', listen=everywhere), [(warned, "http")]),
    ]:
        with serve(config) as server:
            lines = server.lines("without TLS")
            told = [(text, line["transport"]) for line in lines for text in (warned, token_warned) if text in line["message"]]
            assert (told, len(lines)) == (expected, len(expected)), config
            assert all(line["level"] == "WARN" and ":" in line["listen"] for line in lines)
            assert all("[transport.tls]" in line["message"] for line in lines)


@pytest.mark.parametrize("level", ["error", "critical"])
def test_no_log_level_hides_the_warning_of_a_listener_without_tls(tmp_path, level):
    config = tmp_path / "cache.toml"
    config.write_text(transport("grpc", listen="0.0.0.0:0") + transport("http"))
    process = subprocess.Popen(
        [BINARY, "serve", "--config", config, "--log-level", level, "--log-format", "json"],
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = json.loads(process.stderr.readline())
        assert (first["level"], first["transport"]) == ("WARN", "grpc")
        assert "beyond this machine without TLS" in first["message"] and first["listen"].startswith("0.0.0.0:")
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
    # It is the only line: the level holds for everything else.
    assert (process.returncode, rest) == (0, "")


@pytest.fixture
def tokens():
    return [secrets.token_urlsafe(24) for _ in range(3)]


@pytest.fixture
def token_file(tmp_path, tokens):
    path = tmp_path / "tokens"
    path.write_text(f"# clients\n{tokens[0]}\nbilling: {tokens[1]}\n")
    path.chmod(0o600)
    return path


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, path)


def test_everything_but_health_needs_a_token(serve, tokens, token_file):
    config = transport("grpc", auth(token_file)) + transport("http", auth(token_file)) + transport("http")
    with serve(config) as server:
        guarded, plain = server.http.split(", ")
        with connect(server.grpc) as stub, open_channel(server.grpc) as channel:
            for call, message in [
                (stub.Get, KEY),
                (stub.Set, pb.CacheItem(key="k", value=b"v")),
                (stub.MultiGet, pb.MultiCacheKeyRequest(keys=["k"])),
                (stub.Delete, KEY),
                (stub.Stats, pb.Empty()),
            ]:
                for metadata in (None, bearer(tokens[2]), bearer(tokens[0][:-1]), (("authorization", tokens[0]),)):
                    refused = pytest.raises(grpc.RpcError)
                    with refused as failure:
                        call(message, metadata=metadata)
                    assert failure.value.code() == StatusCode.UNAUTHENTICATED
                    assert any(key == "x-request-id" for key, _ in failure.value.initial_metadata())
                for token in tokens[:2]:
                    call(message, metadata=bearer(token))
            for path in REFLECTION:
                with pytest.raises(grpc.RpcError) as failure:
                    answers(channel, path)
                assert failure.value.code() == StatusCode.UNAUTHENTICATED
            assert check_health(channel) == check_health(channel, bearer("wrong")) == b"\x08\x01"
        for path in ("/", "/history", "/metrics", "/stats"):
            answer = fetch(guarded, path)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="tiny-cache"')
            answer = fetch(guarded, path, headers=dict(bearer(tokens[2])))
            assert answer.status == 401 and "invalid_token" in answer.headers["www-authenticate"]
            assert answer.headers["x-request-id"]
            assert fetch(guarded, path, headers=dict(bearer(tokens[1]))).status == 200
            # A token in a URL is none.
            assert fetch(guarded, f"{path}?access_token={tokens[0]}").status == 401
        for path in ("/live", "/ready", "/health"):
            assert fetch(guarded, path).status == 200
        text = fetch(plain, "/metrics").body.decode()
        refused = lambda kind, reason: total(text, "tiny_cache_requests_refused_total", transport=kind, reason=reason)
        assert [refused("grpc", reason) for reason in ("no_token", "wrong_token")] == [12, 10]
        assert [refused("http", reason) for reason in ("no_token", "wrong_token")] == [8, 4]
        line = server.wait_for_line("for want of a token")
        assert line["level"] == "INFO" and line["reason"] == "no_token" and line["request_id"] and line["peer"]


def test_tokens_change_without_a_restart_and_a_bad_file_changes_nothing(serve, tokens, token_file):
    config = transport("grpc", auth(token_file)) + transport("http")
    with serve(config) as server, connect(server.grpc) as stub:
        reloads = lambda result: total(
            fetch(server.http, "/metrics").body.decode(), "tiny_cache_token_reloads_total", result=result
        )
        get = lambda token: stub.Get(KEY, metadata=bearer(token))
        get(tokens[0])
        assert_refused(lambda: get(tokens[2]), StatusCode.UNAUTHENTICATED)
        # By the look at the file, on a connection that lasts.
        replace(token_file, f"{tokens[2]}\n")
        server.wait_for_line("bearer tokens reloaded")
        get(tokens[2])
        assert_refused(lambda: get(tokens[0]), StatusCode.UNAUTHENTICATED)
        assert (reloads("ok"), reloads("failed")) == (1, 0)
        failures = 0
        for bad, told in [("short\n", ":1: a token has 16 to 512"), ("", "no token in it"), (f"{tokens[0]} x\n", ":1:")]:
            replace(token_file, bad)
            server.signal(signal.SIGHUP)
            failures += 1
            line = server.wait_for_line("bearer tokens not reloaded", count=failures)
            assert line["level"] == "ERROR" and told in line["error"] and str(token_file) in line["error"]
            get(tokens[2])
            assert_refused(lambda: get(tokens[0]), StatusCode.UNAUTHENTICATED)
        assert reloads("ok") == 1 and reloads("failed") >= failures
        replace(token_file, f"{tokens[0]}\n")
        server.signal(signal.SIGHUP)
        server.wait_for_line("bearer tokens reloaded", count=2)
        get(tokens[0])


def test_tokens_change_over_http_too(serve, tokens, token_file):
    with serve(transport("http", auth(token_file))) as server:
        kept = http.client.HTTPConnection(server.http, timeout=10)
        with contextlib.closing(kept):
            status = lambda token: get(kept, "/stats", dict(bearer(token)))[0]
            assert [status(token) for token in tokens] == [200, 200, 401]
            # By the look at the file.
            replace(token_file, f"{tokens[2]}\n")
            server.wait_for_line("bearer tokens reloaded")
            assert [status(token) for token in tokens] == [401, 401, 200]
            replace(token_file, "short\n")
            server.signal(signal.SIGHUP)
            server.wait_for_line("bearer tokens not reloaded")
            assert [status(token) for token in tokens] == [401, 401, 200]
            replace(token_file, f"{tokens[0]}\n")
            server.signal(signal.SIGHUP)
            server.wait_for_line("bearer tokens reloaded", count=2)
            assert [status(token) for token in tokens] == [200, 401, 401]


def test_a_start_without_good_tokens_ends_with_one_line(tmp_path, tokens):
    config, path = tmp_path / "cache.toml", tmp_path / "tokens"
    config.write_text(transport("grpc", auth(path)))
    for content, told in [(None, "cannot read"), ("", "no token"), (f"{tokens[0]}\n{tokens[0]}\n", ":2: the token stands there twice")]:
        if content is not None:
            path.write_text(content)
        ended = run("serve", "--config", config)
        assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1, ended
        assert told in ended.stderr and str(path) in ended.stderr and tokens[0] not in ended.stderr


def test_a_token_file_that_everybody_can_read_is_told(serve, token_file):
    for mode, is_told in [(0o600, False), (0o640, False), (0o644, True)]:
        token_file.chmod(mode)
        with serve(transport("grpc", auth(token_file))) as server:
            lines = server.lines("everybody on this machine may read the bearer tokens")
            assert len(lines) == is_told and all(line["level"] == "WARN" for line in lines), oct(mode)


def test_the_command_line_sends_a_token(serve, files, authority, tmp_path, tokens, token_file):
    own = tmp_path / "own-token"
    own.write_text(f"{tokens[1]}\n")
    listed = tls(files, f'client_ca = "{files.client_ca}"', 'clients = ["dns:cli.internal"]')
    certificate, key = tmp_path / "cli.crt", tmp_path / "cli.key"
    for path, content in zip((certificate, key), authority.sign("cli", [x509.DNSName("cli.internal")])):
        path.write_bytes(content)
    with serve(transport("grpc", auth(token_file)) + transport("grpc", listed, auth(token_file))) as server:
        plain, secured = server.grpc.split(", ")
        ended = run("get", "k", "--target", plain)
        assert ended.returncode == 2 and "UNAUTHENTICATED: a bearer token is needed" in ended.stderr
        assert run("ping", "--target", plain).returncode == 0
        assert run("set", "k", "v", "--target", plain, "--token-file", own).returncode == 0
        ended = run("get", "k", "--target", plain, environment={"TINY_CACHE_TOKEN_FILE": str(own)})
        assert (ended.returncode, ended.stdout.strip()) == (0, "v")
        shows = ("--tls-ca", files.client_ca, "--tls-cert", certificate, "--tls-key", key)
        ended = run("get", "k", "--target", f"https://{secured}", "--token-file", own, *shows)
        assert (ended.returncode, ended.stdout.strip()) == (0, "v"), ended
        for content in ("", "two words", f"{tokens[1]}\n{tokens[0]}\n"):
            own.write_text(content)
            ended = run("get", "k", "--target", plain, "--token-file", own)
            assert ended.returncode == 2 and "a token file has one token" in ended.stderr
            assert tokens[1] not in ended.stderr + ended.stdout


class Export:
    """What a collector got: the head and the body of each request."""

    def __init__(self):
        self.heads, self.bodies = [], []
        self.is_welcome = False

    def take(self, head, body):
        """Whether the collector wants it."""
        self.heads.append(head)
        self.bodies.append(body)
        return self.is_welcome

    def has(self, *words):
        """Whether all of these are in what was sent."""
        return all(any(word in body for body in list(self.bodies)) for word in words)


class Exports(http.server.BaseHTTPRequestHandler):
    """A collector over HTTP."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        is_taken = self.server.export.take(str(self.headers), body)
        self.send_response(200 if is_taken else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def distant_collector(protocol):
    """A collector that wants nothing until it is told to; its address and what it was sent."""
    export = Export()
    if protocol == "grpc":

        class Listening(grpc.GenericRpcHandler):
            def service(self, call):
                def take(body, context):
                    if not export.take(str(call.invocation_metadata), body):
                        context.abort(StatusCode.UNAUTHENTICATED, "not yet")
                    return b""

                return grpc.unary_unary_rpc_method_handler(take)

        server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Listening()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}", export
        server.stop(0).wait()
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exports)
        server.export = export
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", export
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_no_secret_is_in_anything_that_the_server_says(serve, files, authority, tmp_path, tokens, token_file, protocol):
    """Whatever it is asked and whatever goes wrong: keys, tokens and headers for the collector stay inside."""
    value = f"value-{secrets.token_hex(16)}"
    in_file, in_variable = (f"header-{secrets.token_hex(16)}" for _ in range(2))
    mutual = tls(files, f'client_ca = "{files.client_ca}"')
    with distant_collector(protocol) as (collector, export):
        otlp = f'[telemetry.otlp]\nsignals = ["metrics", "traces", "logs"]\nprotocol = "{protocol}"\nendpoint = "{collector}"\n'
        otlp += f'interval = "100ms"\nsampling_ratio = 1.0\nheaders = {{ authorization = "Bearer {in_file}" }}\n'
        config = transport("grpc", auth(token_file)) + transport("grpc", mutual, auth(token_file))
        config += transport("http", auth(token_file)) + transport("http", tls(files)) + otlp
        environment = {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"x-secret={in_variable}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        said = []
        with serve(config, "--log-level", "debug", environment=environment) as server:
            (plain, secured), (guarded, _) = server.grpc.split(", "), server.http.split(", ")
            first_key = files.key.read_text()

            def ask_everything():
                with connect(plain) as stub:
                    for token in (tokens[0], tokens[2]):
                        with contextlib.suppress(grpc.RpcError):
                            stub.Set(pb.CacheItem(key="k", value=value.encode()), metadata=bearer(token))
                            stub.Get(KEY, metadata=bearer(token))
                with connect(secured, authority.credentials(authority.sign("client"))) as stub:
                    stub.Get(KEY, metadata=bearer(tokens[1]))
                for path in ("/", "/stats", "/metrics", "/history", "/live", "/nothing"):
                    for token in tokens:
                        answer = fetch(guarded, path, headers=dict(bearer(token)))
                        said.extend([str(answer.headers), answer.body.decode()])
                        # A token in a URL is none, and yet one.
                        answer = fetch(guarded, f"{path}?access_token={token}")
                        said.extend([str(answer.headers), answer.body.decode()])

            ask_everything()
            # Bad rotations of everything: a key on one line, half a key, a token with a blank in it.
            certificate, key = authority.sign()
            lost = b"".join(key.splitlines())
            for broken in (lost, key[:-40], key.replace(b"\n", b"\n!", 2)):
                files.write(certificate, broken)
                replace(token_file, f"{tokens[0]} {tokens[1]}\n")
                tried = len(server.lines("told to reload"))
                server.signal(signal.SIGHUP)
                server.wait_for_line("told to reload", count=tried + 1)
                server.wait_for_line("TLS certificates not reloaded", count=tried + 1)
            server.wait_for_line("bearer tokens not reloaded")
            server.wait_for_line("cannot export", count=3)
            new_key = key.decode()
            # The same again for a collector that takes it: spans of both protocols, lines of the log and figures.
            export.is_welcome = True
            ask_everything()
            server.signal(signal.SIGHUP)
            wanted = [b"cache.CacheService/Get", b"GET /stats", b"bearer tokens not reloaded", b"token accepted", b"tiny_cache.hits"]
            wait_until(lambda: export.has(*wanted), "everything is exported")
        said.append(json.dumps(server.log))
        assert all(any(secret in head for head in export.heads) for secret in (in_file, in_variable))
        assert export.has(*wanted)
        said += [body.decode(errors="replace") for body in export.bodies]
    replace(token_file, "\n".join(tokens) + "\n")
    show = run("config", "show", "--config", tmp_path / "cache.toml", environment=environment)
    assert show.returncode == 0 and '"authorization" = "(hidden)"' in show.stdout, show
    said += [show.stdout, show.stderr]
    # And wherever a mistake in the configuration is told.
    wrong = tmp_path / "wrong.toml"
    for mistake in (
        f'[telemetry.otlp]\nheaders = "authorization=Bearer {in_file}"\n',
        f'[telemetry.otlp]\nheaders = {{ "bad name" = "{in_file}" }}\n',
        f'[telemetry.otlp]\nheaders = ["{in_file}"]\n',
        f'[telemetry.otlp]\nendpoint = "https://user:{in_file}@collector:4317"\n',
        f'[telemetry.otlp]\nendpoint = "https://collector:4317/?api-key={in_file}"\n',
        f'[telemetry.otlp]\nheader = "{in_file}"\n',
    ):
        wrong.write_text(mistake)
        ended = run("config", "check", wrong)
        assert ended.returncode == 78 and ended.stderr, mistake
        said.append(ended.stdout + ended.stderr)
    lines_of = lambda pem: [line for line in pem.splitlines() if len(line) > 20 and "-----" not in line]
    found = "\n".join(said)
    for secret in [*tokens, value, in_file, in_variable, *lines_of(first_key), *lines_of(new_key)]:
        assert secret not in found, [line for line in found.splitlines() if secret in line][:3]
    # Bytes as a list of numbers are the key as well.
    for pem in (first_key, new_key):
        assert ", ".join(str(byte) for byte in lines_of(pem)[0].encode()[:16]) not in found
