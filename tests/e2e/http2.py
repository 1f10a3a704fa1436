"""An HTTP/2 client that does what no gRPC library would: every frame is the test's own."""

import collections
import contextlib
import socket
import struct
import urllib.parse

import h2.config
import h2.connection
import h2.errors
import h2.events

SERVICE = "/cache.CacheService/"


def frame(message=b"", compressed=0, length=None):
    """A gRPC message in its frame, with a wrong length where a test wants one."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


def address_of(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Stream:
    """What came back on one stream."""

    def __init__(self):
        self.headers, self.trailers, self.data = None, None, b""
        self.reset, self.ended = None, False

    @property
    def status(self):
        """The gRPC status code, as a number."""
        return int({**(self.headers or {}), **(self.trailers or {})}["grpc-status"])

    @property
    def message(self):
        return urllib.parse.unquote({**(self.headers or {}), **(self.trailers or {})}.get("grpc-message", ""))

    @property
    def done(self):
        return self.ended or self.reset is not None


class Connection(h2.connection.H2Connection):
    """h2's, which takes a GOAWAY for the end; but what was asked before it is still to be answered."""

    def _receive_goaway_frame(self, frame):
        told = h2.events.ConnectionTerminated()
        told.error_code, told.last_stream_id = frame.error_code, frame.last_stream_id
        told.additional_data = frame.additional_data or None
        return [], [told]


def ask_and_read_nothing(address, method, body, connections, calls):
    """Connections with calls under way, whose answers nobody takes though there is room for them on the way."""
    readers = []
    for _ in range(connections):
        reader = Http2(address)
        reader.h2.increment_flow_control_window(1 << 30)
        reader.h2.update_settings({4: 1 << 24})
        reader.flush()
        for _ in range(calls):
            reader.send(reader.open(method), body)
        readers.append(reader)
    return readers


class Http2:
    """A connection."""

    def __init__(self, address, timeout=10, wrap=lambda socket: socket, connect=socket.create_connection):
        plain = connect(address_of(address), timeout)
        # A head and its message are two writes, and the second one is not to wait until the first is acknowledged.
        if plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = wrap(plain)
        self.h2 = Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams = collections.defaultdict(Stream)
        self.goaway, self.closed = None, False
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def open(self, method="Get", headers=(), end=False, service=SERVICE, verb="POST"):
        """Begins a call; its stream's id."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", verb), (":scheme", "http"), (":path", service + method), (":authority", "localhost")]
        head += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        self.h2.send_headers(stream, head, end_stream=end)
        self.streams[stream] = Stream()
        self.flush()
        return stream

    def send(self, stream, data, end=True):
        # Cut from where it lies: to copy the rest for each frame would take seconds for a large message.
        left = memoryview(data)
        while len(left) > (size := min(self.h2.max_outbound_frame_size, self.h2.local_flow_control_window(stream))):
            if size <= 0:
                assert not self.closed, "nobody will ever take it"
                self.pump()
                continue
            self.h2.send_data(stream, bytes(left[:size]))
            left = left[size:]
            self.flush()
        self.h2.send_data(stream, bytes(left), end_stream=end)
        self.flush()

    def call(self, method, body, headers=()):
        """A whole call: its answer."""
        stream = self.open(method, headers)
        self.send(stream, body)
        return self.answer(stream)

    def answer(self, stream):
        self.pump_until(lambda: self.streams[stream].done or self.closed)
        return self.streams[stream]

    def pump_until(self, condition):
        while not condition():
            self.pump()

    def pump(self):
        """Takes what has come, or waits for some."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        # The server may have closed already; what it said before that is still to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.flush()

    def _take(self, event):
        match event:
            case h2.events.ResponseReceived():
                self.streams[event.stream_id].headers = dict(event.headers)
            case h2.events.TrailersReceived():
                self.streams[event.stream_id].trailers = dict(event.headers)
            case h2.events.DataReceived():
                self.streams[event.stream_id].data += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.streams[event.stream_id].reset = event.error_code
            case h2.events.ConnectionTerminated():
                self.goaway = event

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
