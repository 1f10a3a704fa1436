"""What goes wrong during a soak, on a schedule that a seed decides. Each fault ends by itself within seconds and mends what it broke."""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import socket
import ssl
import struct
import threading
import time

import cache_pb2 as pb
from http2 import Http2, address_of, ask_and_read_nothing, frame
from load import be_killed

# Seconds between the end of a fault and the next, on average.
PAUSE = 12


def reset(connection):
    """Closes a socket so that the other side sees a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


class Faults:
    """Runs one fault after another in a thread, never while `quiet` is held."""

    def __init__(self, site, writer, began, seed):
        self._site, self._writer, self._began = site, writer, began
        self._rng = random.Random(seed)
        self.quiet = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    ALL = (
        "clients_killed",
        "connections_reset",
        "garbage",
        "idle_connections",
        "limits_changed",
        "wrong_configuration",
        "certificates_rotated",
        "slow_readers",
        "slow_writers",
        "descriptors_short",
        "collector_away",
        "server_halted",
        "burst",
        "access_log_rotated",
    )

    def _run(self):
        bag = []
        while not self._ended.wait(self._rng.expovariate(1 / PAUSE)):
            if not bag:
                bag = self._rng.sample(self.ALL, len(self.ALL))
            with self.quiet:
                if self._ended.is_set():
                    return
                name, begin = bag.pop(), time.monotonic() - self._began
                failure = {}
                try:
                    getattr(self, name)()
                except (OSError, AssertionError, EOFError) as error:
                    # The server may well refuse what a fault does to it.
                    failure = {"note": f"{type(error).__name__}: {error}"[:200]}
                self._writer.add("faults", fault=name, **{"from": begin}, until=time.monotonic() - self._began, **failure)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(timeout=60)

    def _wait(self, shortest, longest):
        self._ended.wait(self._rng.uniform(shortest, longest))

    # Clients

    def clients_killed(self):
        context = multiprocessing.get_context("spawn")
        factor, stopped = context.Value("d", 1.0), context.Event()
        target = self._rng.choice(list(self._site.targets.values()))
        victims = [
            context.Process(target=be_killed, args=(*target, self._rng.random(), 50, factor, stopped, None), daemon=True) for _ in range(2)
        ]
        for victim in victims:
            victim.start()
        self._wait(2.5, 5)
        for victim in victims:
            victim.kill()
            victim.join()

    def connections_reset(self):
        """In the middle of a frame, of a request, and of a TLS handshake."""
        open_ones = []
        for _ in range(20):
            half = Http2(self._site.tcp)
            stream = half.open("Set")
            half.send(stream, frame(b"\x0a\x03key\x12", length=5000), end=False)
            half.socket.sendall(b"\x00\x40\x00\x00")
            open_ones.append(half.socket)
            hello = socket.create_connection(address_of(self._site.tls), 10)
            hello.sendall(b"\x16\x03\x01\x02\x00\x01")
            open_ones.append(hello)
        self._wait(0.1, 0.5)
        for connection in open_ones:
            reset(connection)

    def garbage(self):
        for address in (self._site.tcp, self._site.tls, self._site.http):
            for size in (1, 24, 3000):
                with socket.create_connection(address_of(address), 10) as connection, contextlib.suppress(OSError):
                    connection.sendall(self._rng.randbytes(size))
                    connection.settimeout(0.2)
                    connection.recv(100)
        # The wrong protocol for the port.
        for address, words in ((self._site.tcp, b"GET / HTTP/1.1\r\n\r\n"), (self._site.http, b"GET /metrics HTTP/1.1\r\nhost: ")):
            with socket.create_connection(address_of(address), 10) as connection:
                connection.sendall(words)

    def idle_connections(self):
        addresses = [address_of(address) for address in (self._site.tcp, self._site.tls, self._site.http)]
        idle = [socket.create_connection(addresses[n % 3], 10) for n in range(300)]
        self._wait(1, 6)
        for connection in idle:
            connection.close()

    def slow_readers(self):
        """Ask for a lot, and read none of it."""
        keys = frame(pb.MultiCacheKeyRequest(keys=[f"key-{number:08d}" for number in range(200)]).SerializeToString())
        readers = ask_and_read_nothing(self._site.tcp, "MultiGet", keys, connections=5, calls=20)
        self._wait(3, 8)
        for reader in readers:
            reset(reader.socket)

    def slow_writers(self):
        """Send a request a byte at a time, and never end it."""
        context = ssl.create_default_context(cadata=self._site.authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        context.check_hostname = False
        identity = self._site.identity_files
        context.load_cert_chain(*identity)
        body = frame(pb.CacheItem(key="slow", value=bytes(1000)).SerializeToString())
        writers = [Http2(self._site.tcp) for _ in range(5)] + [Http2(self._site.tls, wrap=context.wrap_socket) for _ in range(5)]
        open_ones = [(writer, writer.open("Set")) for writer in writers]
        for number in range(self._rng.randint(20, 60)):
            for writer, stream in open_ones:
                writer.send(stream, body[number : number + 1], end=False)
            self._ended.wait(0.1)
        for number, (writer, stream) in enumerate(open_ones):
            if number % 2:
                writer.h2.reset_stream(stream)
                writer.flush()
                writer.socket.close()
            else:
                reset(writer.socket)

    def burst(self):
        self._site.factor.value = 4.0
        self._wait(2, 5)
        self._site.factor.value = 1.0

    # The server's surroundings

    def limits_changed(self):
        self._site.configure(self._rng.randrange(3_000, 30_000), self._rng.randrange(48, 129))
        if self._rng.random() < 0.5:
            self._site.signal(signal.SIGHUP)

    def wrong_configuration(self):
        good = self._site.config.read_text(encoding="utf-8")
        self._site.config.write_text("[store]\nmax_items = 'many'\n", encoding="utf-8")
        self._site.signal(signal.SIGHUP)
        self._wait(1, 3)
        self._site.config.write_text(good, encoding="utf-8")
        self._site.signal(signal.SIGHUP)

    def certificates_rotated(self):
        self._site.files.write(*self._site.authority.sign())
        if self._rng.random() < 0.5:
            self._site.signal(signal.SIGHUP)
        self._wait(1, 3)

    def access_log_rotated(self):
        old = self._site.access_log.with_suffix(".1")
        os.replace(self._site.access_log, old)
        if self._rng.random() < 0.7:
            self._site.signal(signal.SIGHUP)
        self._wait(2, 4)
        old.unlink()

    def collector_away(self):
        self._site.collector.stop()
        self._wait(3, 15)
        self._site.collector.start()

    def server_halted(self):
        self._site.signal(signal.SIGSTOP)
        time.sleep(1)
        self._site.signal(signal.SIGCONT)

    def descriptors_short(self):
        """There are no more file descriptors, and many who want one."""
        pid = self._site.server.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 5, hard))
        waiting = []
        try:
            for _ in range(30):
                waiting.append(socket.create_connection(address_of(self._site.tcp), 10))
            self._wait(1, 4)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            for connection in waiting:
                connection.close()
