"""Attacks on the port with TLS, a table of them."""

import contextlib
import os
import socket

from attacker import HELLO
from certificates import trusting
from http2 import address_of

# A record of the handshake that says it is a ClientHello and is not.
NO_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


def garbage(attacker):
    def step():
        for said in (os.urandom(500), NO_HELLO + os.urandom(508), HELLO, ALERT):
            client = attacker.raw(said, port=attacker.tls)
            client.close()
        # A handshake that is fine, and then frames that are none.
        with contextlib.suppress(OSError), socket.create_connection(address_of(attacker.tls), 5) as client:
            with trusting().wrap_socket(client) as secured:
                secured.sendall(os.urandom(1000))

    return step


ATTACKS = {
    "TLS garbage": garbage,
}
