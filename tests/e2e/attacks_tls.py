"""Attacks on the port with TLS, and some of those over HTTP/2 through it; a table of them."""

import contextlib
import os
import socket
import ssl

import attacks_http2
from attacker import HELLO, PING, hear, http2_frame, say
from certificates import trusting
from http2 import address_of

# A record of the handshake that says it is a ClientHello and is not.
NO_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
# One that carries what is encrypted, and does not decrypt.
NO_RECORD = b"\x17\x03\x03\x00\x40" + bytes(64)
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"

# Attacks over HTTP/2 that are played through it, by the names that they have then.
SECURED = {
    f"{name}, through TLS": name
    for name in (
        "continuations without end",
        "rapid resets",
        "streams in error",
        "settings, unread",
        "pings, unread",
        "window updates",
        "unread large values",
        "unread small values",
        "values through a window of one byte",
    )
}


def client_hello():
    """What a client says first."""
    said = ssl.MemoryBIO()
    client = trusting().wrap_bio(ssl.MemoryBIO(), said)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


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


def stalled(share, connections=300):
    """Handshakes of which so large a part of the first words comes, and nothing more."""

    def attack(attacker):
        hello = client_hello()
        said = hello[: int(len(hello) * share)]

        def step():
            for _ in range(2):
                if attacker.connections < connections:
                    attacker.raw(said, port=attacker.tls)

        return step

    return attack


def left(more, times=3):
    """Handshakes that the server has signed for, each of which ends with these words."""

    def attack(attacker):
        hello = client_hello()
        open_ones = []

        def step():
            # They are left once the server has said something.
            while len(open_ones) > 20:
                client = open_ones.pop(0)
                say(client, more)
                client.close()
            for _ in range(times):
                open_ones.append(attacker.raw(hello, port=attacker.tls))

        return step

    return attack


def completed_and_left(attacker):
    context = trusting()

    def step():
        with contextlib.suppress(OSError), socket.create_connection(address_of(attacker.tls), 5) as client:
            attacker.connections += 1
            context.wrap_socket(client).close()

    return step


def byte_by_byte(attacker):
    """Handshakes of which a byte comes at a time, each in a record of its own."""
    hello = client_hello()[5:]
    records = [b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello))]
    clients = []

    def step():
        if len(clients) < 100:
            clients.append((attacker.raw(b"", port=attacker.tls), iter(records)))
        for client, rest in clients[-20:]:
            say(client, next(rest, NO_RECORD))
            hear(client)

    return step


def small_records(attacker):
    """HTTP/2 of which each byte comes in a record of its own."""
    attacker.through_tls()
    ping = http2_frame(PING, 0, 0, bytes(8))
    clients = []

    def step():
        if not clients:
            clients.append(attacker.raw())
        if not all(say(clients[0], ping[at : at + 1]) for at in range(len(ping))) or not hear(clients[0]):
            clients.pop().close()

    return step


def through_tls(attack):
    def begin(attacker):
        attacker.through_tls()
        return attack(attacker)

    return begin


ATTACKS = {
    "TLS garbage": garbage,
    "TLS never begun": stalled(0),
    "TLS begun and left open": stalled(0.5),
    "TLS answered and left open": stalled(1),
    "TLS answered and gone": left(b""),
    "TLS answered with garbage": left(NO_RECORD),
    "TLS done and gone": completed_and_left,
    "TLS byte by byte": byte_by_byte,
    "TLS in records of a byte": small_records,
} | {secured: through_tls(attacks_http2.ATTACKS[name]) for secured, name in SECURED.items()}
