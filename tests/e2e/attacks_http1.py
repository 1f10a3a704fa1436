"""Attacks on the HTTP port, a table of them."""

import time


def get(path):
    return b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path


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


ATTACKS = {
    "unread scrapes": scrapes_nobody_reads,
    "heads never finished over HTTP/1": endless_heads,
}
