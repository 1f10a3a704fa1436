"""Certificates made for a test: an authority, and what it signs."""

import datetime
import ipaddress
import os
import ssl

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority."""

    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = pem(self._certificate)

    def _builder(self, subject, key):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def sign(self, name="localhost", names=None, kind="ecdsa"):
        """Certificate and key of a server at 127.0.0.1 or of a client, both as PEM."""
        key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
        names = names or [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return pem(certificate), key_pem(key)

    def credentials(self, identity=None):
        """What a grpcio client needs to trust this authority's servers and to show `identity`."""
        certificate, key = identity or (None, None)
        return grpc.ssl_channel_credentials(self.pem, key, certificate)


def trusting():
    """The TLS of an HTTP/2 client that believes everybody."""
    # The default one reads every authority there is, which takes long.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


class Files:
    """The files that a server reads, replaced as a whole the way that tools do it."""

    def __init__(self, directory, authority):
        self.cert, self.key, self.client_ca = (directory / name for name in ("tls.crt", "tls.key", "ca.crt"))
        self.write(*authority.sign())
        self.client_ca.write_bytes(authority.pem)

    def write(self, certificate, key):
        for path, content in ((self.cert, certificate), (self.key, key)):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            os.replace(new, path)

    def expiry(self):
        """When the certificate expires."""
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).not_valid_after_utc

    def environment(self, mutual=False):
        """The variables that make a server use them."""
        variables = {
            "CACHE_TLS_ENABLED": "true",
            "CACHE_TLS_CERT_PATH": str(self.cert),
            "CACHE_TLS_KEY_PATH": str(self.key),
        }
        if mutual:
            variables |= {"CACHE_TLS_REQUIRE_CLIENT_AUTH": "true", "CACHE_TLS_CLIENT_CA_PATH": str(self.client_ca)}
        return variables
