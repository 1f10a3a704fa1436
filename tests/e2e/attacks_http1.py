"""Attacks on the HTTP port, a table of them."""

import time

from attacker import again_and_again, hear, say


def get(path):
    return b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path


def post(field):
    return b"POST /stats HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n" % field


ENDLESS, CHUNKED = post(b"content-length: 1000000000"), post(b"transfer-encoding: chunked")


def scrapes_nobody_reads(attacker):
    def step():
        if attacker.connections < 200:
            time.sleep(0.01)
            attacker.raw(get(b"/metrics") * 3, port=attacker.http, receive_buffer=4096)

    return step


def endless_heads(attacker):
    def step():
        if attacker.connections < 100:
            attacker.raw(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 50_000, port=attacker.http)

    return step


def byte_by_byte(begun, connections=100, at_a_time=10):
    """Requests that go on, a byte at a time, and never end."""

    def attack(attacker):
        clients = []

        def step():
            if len(clients) < connections:
                clients.append(attacker.raw(begun, port=attacker.http))
            for client in clients[:at_a_time]:
                clients.remove(client)
                if say(client, b"x") and hear(client):
                    clients.append(client)
                else:
                    client.close()

        return step

    return attack


def asked_again_and_again(paths, connections=8, times=1):
    """What takes long to answer, asked for by several at once. Answers are read, as they come."""
    asked = b"".join(map(get, paths)) * times

    def attack(attacker):
        clients = [attacker.raw(b"", port=attacker.http) for _ in range(connections)]

        def step():
            for client in clients:
                say(client, asked)
                hear(client)

        return step

    return attack


ATTACKS = {
    "unread scrapes": scrapes_nobody_reads,
    "heads never finished over HTTP/1": endless_heads,
    "heads byte by byte over HTTP/1": byte_by_byte(b"GET /stats HTTP/1.1\r\nx: "),
    "bodies byte by byte over HTTP/1": byte_by_byte(ENDLESS),
    "bodies without end over HTTP/1": again_and_again(bytes(64 << 10), port="http", hello=ENDLESS),
    "chunks without end over HTTP/1": again_and_again(b"1\r\nx\r\n" * 5000, port="http", hello=CHUNKED),
    "chunks never finished over HTTP/1": byte_by_byte(CHUNKED + b"1;"),
    "many requests in a row over HTTP/1": again_and_again(get(b"/live") * 200, port="http", hello=b""),
    "many requests in a row over HTTP/1, unread": again_and_again(get(b"/live") * 200, reads=False, port="http", hello=b""),
    "scrapes by many": asked_again_and_again([b"/metrics"]),
    "figures by many": asked_again_and_again([b"/stats", b"/history?step=1", b"/history?step=30"], times=5),
}
