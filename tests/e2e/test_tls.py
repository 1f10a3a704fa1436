"""TLS and mTLS: who is let in, and certificates that change while the server works."""

import contextlib
import http.client
import json
import signal
import socket
import ssl

import cache_pb2 as pb
import pytest
from certificates import Authority, Files
from clients import Load, assert_refused, connect, fetch, metrics_of
from cryptography import x509
from grpc import StatusCode
from http2 import Http2, address_of, frame
from server import Server, run, wait_until

RELOADS, FAILURES = "tiny_cache_tls_reloads_total", "tiny_cache_tls_reload_failures_total"


@pytest.fixture
def files(tmp_path, authority):
    return Files(tmp_path, authority)


def use(stub):
    stub.Set(pb.CacheItem(key="k", value=b"v"))
    assert stub.Get(pb.CacheKey(key="k")).value == b"v"


def refuses(server, credentials):
    with connect(server.grpc, credentials) as stub:
        assert_refused(lambda: stub.Get(pb.CacheKey(key="k"), timeout=10), StatusCode.UNAVAILABLE)


def shown_certificate(address):
    """The serial number of the certificate that a new client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address_of(address), 10) as raw, context.wrap_socket(raw) as client:
        return x509.load_der_x509_certificate(client.getpeercert(binary_form=True)).serial_number


def serial(certificate):
    return x509.load_pem_x509_certificate(certificate).serial_number


def test_a_client_that_trusts_the_authority_is_served(files, authority):
    with Server(environment=files.environment()) as server:
        with connect(server.grpc, authority.credentials()) as stub:
            use(stub)
        # One that shows a certificate although nobody asks is served as well.
        with connect(server.grpc, authority.credentials(authority.sign("client"))) as stub:
            use(stub)
        refuses(server, Authority("somebody else").credentials())
        refuses(server, None)
        with connect(server.grpc, authority.credentials()) as stub:
            use(stub)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_current_versions_of_tls_are_spoken(files, authority, version):
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")
    with Server(environment=files.environment()) as server, Http2(server.grpc, wrap=wrap) as client:
        assert client.socket.selected_alpn_protocol() == "h2"
        assert client.call("Stats", frame()).status == 0


def test_only_clients_with_a_certificate_of_the_authority_get_through_mutual_tls(files, authority):
    with Server(environment=files.environment(mutual=True)) as server:
        friend = authority.credentials(authority.sign("friend"))
        with connect(server.grpc, friend) as stub:
            use(stub)
        refuses(server, authority.credentials())
        refuses(server, authority.credentials(Authority("somebody else").sign("stranger")))
        refuses(server, None)
        with connect(server.grpc, friend) as stub:
            use(stub)


def test_http_can_have_tls_too(files, authority, tmp_path):
    config = tmp_path / "cache.toml"
    tls = f'[transport.tls]\ncert = "{files.cert}"\nkey = "{files.key}"\n'
    config.write_text(f'[[transport]]\nkind = "grpc"\n{tls}\n[[transport]]\nkind = "http"\n{tls}')
    with Server("--config", config) as server:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        with socket.create_connection(address_of(server.http), 10) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as client:
                client.sendall(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        with connect(server.grpc, authority.credentials()) as stub:
            use(stub)


def sessions(server, credentials):
    """A client that keeps its connection, and one that makes a new one for every call."""

    @contextlib.contextmanager
    def lasting():
        with connect(server.grpc, credentials) as stub:
            yield lambda: use(stub)

    @contextlib.contextmanager
    def fleeting():
        def call():
            with connect(server.grpc, credentials) as stub:
                use(stub)

        yield call

    return lasting, fleeting


@contextlib.contextmanager
def load(server, credentials):
    lasting, fleeting = sessions(server, credentials)
    with Load(lasting, clients=4) as steady, Load(fleeting, clients=2) as changing:
        yield lambda calls=20: (steady.wait_for_more(calls), changing.wait_for_more(calls // 4))
    assert not steady.errors + changing.errors, steady.errors + changing.errors


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
def test_a_hangup_rotates_the_certificates_under_load(files, authority, mutual):
    credentials = authority.credentials(authority.sign("client") if mutual else None)
    with Server(environment=files.environment(mutual)) as server, load(server, credentials) as go_on:
        for rotation in range(1, 4):
            certificate, key = authority.sign()
            files.write(certificate, key)
            server.signal(signal.SIGHUP)
            # It is shown, counted and told of, in this order.
            server.wait_for_line("certificates reloaded", count=rotation)
            assert shown_certificate(server.grpc) == serial(certificate)
            assert len(server.lines("certificates reloaded")) == metrics_of(server.http)[RELOADS] == rotation
            go_on()
        assert metrics_of(server.http)[FAILURES] == 0


def test_changed_files_rotate_the_certificates_under_load(files, authority, tmp_path):
    config = tmp_path / "cache.toml"
    tls = f'cert = "{files.cert}"\nkey = "{files.key}"\nreload_interval = "1s"\n'
    config.write_text(f'[[transport]]\nkind = "grpc"\n[transport.tls]\n{tls}\n[[transport]]\nkind = "http"\n')
    with Server("--config", config) as server, load(server, authority.credentials()) as go_on:
        certificate, key = authority.sign()
        files.write(certificate, key)
        server.wait_for_line("certificates reloaded")
        assert shown_certificate(server.grpc) == serial(certificate)
        assert metrics_of(server.http)[RELOADS] == 1
        go_on()


@pytest.mark.parametrize("by", ["signal", "look"])
def test_the_http_port_rotates_its_certificates_too(files, authority, tmp_path, by):
    config = tmp_path / "cache.toml"
    interval = "1s" if by == "look" else "1h"
    tls = f'[transport.tls]\ncert = "{files.cert}"\nkey = "{files.key}"\nreload_interval = "{interval}"\n'
    config.write_text(f'[[transport]]\nkind = "grpc"\n[[transport]]\nkind = "http"\n{tls}')

    def changed(certificate, key, message):
        files.write(certificate, key)
        if by == "signal":
            server.signal(signal.SIGHUP)
        return server.wait_for_line(message)

    with Server("--config", config) as server:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        old = http.client.HTTPSConnection(*address_of(server.http), timeout=10, context=context)
        with contextlib.closing(old):

            def get():
                old.request("GET", "/stats")
                answer = old.getresponse()
                return answer.status, bool(answer.read())

            assert get() == (200, True)
            first = shown_certificate(server.http)
            assert first == serial(files.cert.read_bytes())
            certificate, key = authority.sign()
            changed(certificate, b"not a key", "certificates not reloaded")
            assert shown_certificate(server.http) == first
            changed(certificate, key, "TLS certificates reloaded")
            assert shown_certificate(server.http) == serial(certificate) != first
            # Who had come before goes on.
            assert get() == (200, True)


def test_a_new_authority_for_clients_is_taken_over_too(files, authority):
    other = Authority("the next one")
    old, new = authority.sign("client"), other.sign("client")
    with Server(environment=files.environment(mutual=True)) as server:
        refuses(server, authority.credentials(new))
        files.client_ca.write_bytes(other.pem)
        server.signal(signal.SIGHUP)
        server.wait_for_line("certificates reloaded")
        refuses(server, authority.credentials(old))
        with connect(server.grpc, authority.credentials(new)) as stub:
            use(stub)


def broken(authority):
    """Pairs of files that cannot be used, each with what its error must say."""
    certificate, key = authority.sign()
    other_key = authority.sign()[1]
    return {
        "no certificate": (b"not a certificate", key, "tls.crt"),
        "damaged certificate": (certificate.replace(b"\n", b"\n!", 2), key, "tls.crt"),
        "empty certificate": (b"", key, "tls.crt"),
        "no key": (certificate, b"not a key", "tls.key"),
        "another's key": (certificate, other_key, "does not match"),
        "encrypted key": (certificate, key.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"), "tls.key"),
    }


def test_new_certificates_that_are_bad_change_nothing_but_are_told(files, authority):
    first = shown = serial(files.cert.read_bytes())
    with Server(environment=files.environment()) as server, load(server, authority.credentials()) as go_on:
        for number, (certificate, key, told) in enumerate(broken(authority).values(), 1):
            files.write(certificate, key)
            server.signal(signal.SIGHUP)
            line = server.wait_for_line("certificates not reloaded", count=number)
            assert line["level"] == "ERROR" and told in json.dumps(line)
            assert metrics_of(server.http)[FAILURES] == number
            assert shown_certificate(server.grpc) == shown == first
        files.cert.unlink()
        server.signal(signal.SIGHUP)
        assert "tls.crt" in json.dumps(server.wait_for_line("certificates not reloaded", count=number + 1))
        go_on()
        certificate, key = authority.sign()
        files.write(certificate, key)
        server.signal(signal.SIGHUP)
        server.wait_for_line("certificates reloaded")
        assert shown_certificate(server.grpc) == serial(certificate), "the good ones again"
        assert metrics_of(server.http)[RELOADS] == 1
        go_on()


def test_a_start_with_bad_files_ends_with_one_line_that_names_the_file(files, authority):
    for certificate, key, told in broken(authority).values():
        files.write(certificate, key)
        ended = run("serve", "--listen", "127.0.0.1:0", environment=files.environment())
        assert ended.returncode != 0 and len(ended.stderr.splitlines()) == 1 and told in ended.stderr, ended
    files.write(*authority.sign())
    for path in (files.cert, files.key, files.client_ca):
        content = path.read_bytes()
        path.unlink()
        ended = run("serve", "--listen", "127.0.0.1:0", environment=files.environment(mutual=True))
        assert ended.returncode != 0 and len(ended.stderr.splitlines()) == 1 and path.name in ended.stderr, ended
        # A directory can be opened but not read, whoever asks.
        path.mkdir()
        ended = run("serve", "--listen", "127.0.0.1:0", environment=files.environment(mutual=True))
        assert ended.returncode != 0 and len(ended.stderr.splitlines()) == 1 and path.name in ended.stderr, ended
        path.rmdir()
        path.write_bytes(content)


def test_a_failed_handshake_hurts_nobody_else(files, authority):
    with Server(environment=files.environment()) as server, connect(server.grpc, authority.credentials()) as stub:
        use(stub)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(500)):
            with socket.create_connection(address_of(server.grpc), 10) as client:
                client.sendall(garbage)
                with contextlib.suppress(ConnectionResetError):
                    while client.recv(4096):
                        pass
        use(stub)
        assert fetch(server.http, "/ready").status == 200
