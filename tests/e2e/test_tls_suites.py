"""What TLS is spoken, suite by suite, with a certificate of either kind; what is not is refused by the server and not by the client."""

import contextlib
import os
import socket
import ssl
import struct
import threading

import pytest
from certificates import Files
from http2 import address_of
from server import Server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
# Of TLS 1.2, by the kind of the certificate. The first ones of RSA have no forward secrecy.
GOOD = {kind: [f"ECDHE-{kind.upper()}-{rest}" for rest in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")] for kind in ("ecdsa", "rsa")}
WEAK = {
    "ecdsa": ["ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-CCM"],
    "rsa": ["AES128-SHA", "AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA256"],
}
# Of TLS 1.3, by their numbers: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305; AES-128-CCM with a tag of 16 bytes and of 8.
GOOD_1_3, WEAK_1_3 = [0x1301, 0x1302, 0x1303], [0x1304, 0x1305]
# What a server needs for Diffie-Hellman. It takes seconds to find one.
GROUP = """\
-----BEGIN DH PARAMETERS-----
MIGHAoGBAK/dNomtusVhqvID8Pa/PiMgLrD9lu8p0brKMmW/h8daUBz33qC18YuV
k2nHikjc7qav6Pg3a/9OabiDfpLUdOKXJXbkTvtpmtmFgGY3N16Yh1MyvMfpQOt7
RIFqCcM4oBdXzN20Y+TX6/It5x6p6NrhQrnL2S6My/yFnEdjL2ivAgEC
-----END DH PARAMETERS-----
"""


@pytest.fixture(params=["ecdsa", "rsa"])
def kind(request):
    return request.param


@pytest.fixture
def files(tmp_path, authority, kind):
    files = Files(tmp_path, authority)
    files.write(*authority.sign(kind=kind))
    return files


@pytest.fixture
def server(files, tmp_path):
    config = tmp_path / "cache.toml"
    tls = f'listen = "127.0.0.1:0"\n[transport.tls]\ncert = "{files.cert}"\nkey = "{files.key}"\n'
    config.write_text(f'[[transport]]\nkind = "grpc"\n{tls}[[transport]]\nkind = "http"\n{tls}')
    with Server("--config", config, listen=False) as server:
        yield server


def lenient(protocol, version, suites):
    """A context that has nothing against what is weak."""
    context = ssl.SSLContext(protocol)
    context.set_ciphers(f"{suites}:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


def shake_hands(address, version=ssl.TLSVersion.TLSv1_2, suites="ALL"):
    """The version and the suite that it comes to."""
    context = lenient(ssl.PROTOCOL_TLS_CLIENT, version, suites)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address_of(address), 10) as raw, context.wrap_socket(raw) as client:
        return client.version(), client.cipher()[0]


@contextlib.contextmanager
def careless_server(files, tmp_path, version, suites):
    """OpenSSL, which takes one client that comes with that."""
    context = lenient(ssl.PROTOCOL_TLS_SERVER, version, suites)
    context.load_cert_chain(files.cert, files.key)
    path = tmp_path / "group.pem"
    path.write_text(GROUP)
    context.load_dh_params(path)

    def serve():
        with contextlib.suppress(OSError), listener.accept()[0] as raw, context.wrap_socket(raw, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield "{}:{}".format(*listener.getsockname())
        thread.join(timeout=10)


def test_old_versions_and_weak_suites_of_tls_1_2_are_refused_by_the_server(server, files, kind, tmp_path):
    refused = [(version, "ALL", "(?i)alert.(protocol.version|handshake.failure)") for version in OLD]
    refused += [(ssl.TLSVersion.TLSv1_2, suite, "(?i)alert.handshake.failure") for suite in WEAK[kind]]
    for version, suites, alert in refused:
        # This client can, with this certificate and another server.
        with careless_server(files, tmp_path, version, suites) as careless:
            spoken = shake_hands(careless, version, suites)
            assert spoken[0] == version.name.replace("TLSv1_", "TLSv1.") and suites in ("ALL", spoken[1])
        for address in (server.grpc, server.http):
            with pytest.raises(ssl.SSLError, match=alert):
                shake_hands(address, version, suites)
    for suite in GOOD[kind]:
        for address in (server.grpc, server.http):
            assert shake_hands(address, suites=suite) == ("TLSv1.2", suite)


def extension(number, content):
    return struct.pack(">HH", number, len(content)) + content


def sized(content, size="H"):
    return struct.pack(f">{size}", len(content)) + content


def client_hello(suite):
    """The first message of a client that speaks TLS 1.3 with this suite and no other: Python's `ssl` leaves no choice there."""
    extensions = extension(43, sized(b"\x03\x04", "B"))  # supported_versions
    extensions += extension(10, sized(b"\x00\x1d"))  # supported_groups: X25519
    extensions += extension(13, sized(b"\x04\x03\x08\x04"))  # signature_algorithms: ECDSA with P-256, RSA-PSS, and SHA-256
    extensions += extension(51, sized(b"\x00\x1d" + sized(os.urandom(32))))  # key_share
    hello = b"\x03\x03" + os.urandom(32) + sized(os.urandom(32), "B") + sized(struct.pack(">H", suite)) + b"\x01\x00" + sized(extensions)
    return b"\x16\x03\x01" + sized(b"\x01" + len(hello).to_bytes(3, "big") + hello)


def answer_to(address, suite):
    """The suite that the server takes, or the alert that it sends."""
    with socket.create_connection(address_of(address), 10) as client:
        client.sendall(client_hello(suite))
        kind, _, size = struct.unpack(">BHH", client.recv(5, socket.MSG_WAITALL))
        record = client.recv(size, socket.MSG_WAITALL)
        if kind == 21:
            return "alert", record[1]
        assert (kind, record[0]) == (22, 2), "a ServerHello"
        after_session = 4 + 2 + 32 + 1 + record[4 + 2 + 32]
        return "suite", int.from_bytes(record[after_session : after_session + 2], "big")


def test_the_suites_of_tls_1_3_are_the_three_that_are_documented(server):
    handshake_failure = 40
    for address in (server.grpc, server.http):
        for suite in GOOD_1_3:
            assert answer_to(address, suite) == ("suite", suite), hex(suite)
        for suite in WEAK_1_3:
            assert answer_to(address, suite) == ("alert", handshake_failure), hex(suite)
