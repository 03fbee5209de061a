"""grpc of a probe: grpc.health.v1.Health/Check over HTTP/2 with prior knowledge, in the clear.

As much of HTTP/2 (RFC 9113) and HPACK (RFC 7541) as one call takes. Huffman-coded text is not decoded, as all that
matters of the headers is grpc-status and its number: their codes are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, unpack

from runtime.pod.loop import Loop
from runtime.pod.probe_socket import Connection, Place
from runtime.pod.probes import FAILURE, SUCCESS, USER_AGENT, Grpc

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_MAX_FRAME = 16384
_MAX_HEADERS = 64 * 1024
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# No table of headers, so that each is written out; nothing pushed.
_OUR_SETTINGS = pack(">HIHI", 0x1, 0, 0x2, 0)

_HEALTH = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_CODES = """
    OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
    RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
    UNAUTHENTICATED
"""
_STATUS = _CODES.split()
_UNIMPLEMENTED = 12

# RFC 7541, appendix B: code and its length in bits.
_HUFFMAN = {"-": (0x16, 6), "a": (0x3, 5), "c": (0x4, 5), "g": (0x26, 6), "p": (0x2B, 6), "r": (0x2C, 6)}
_HUFFMAN |= {"s": (0x8, 5), "t": (0x9, 5), "u": (0x2D, 6), "0": (0x0, 5), "1": (0x1, 5), "2": (0x2, 5)}
_HUFFMAN |= {digit: (0x19 + index, 6) for index, digit in enumerate("3456789")}
# RFC 7541, appendix A: ":status" with its values.
_STATIC_STATUS = dict(zip(range(8, 15), ("200", "204", "206", "304", "400", "404", "500"), strict=True))


class Broken(Exception):
    """What came is no HTTP/2, or no answer of a health check."""


def huffman(text: str) -> bytes:
    """The Huffman code of the letters of grpc-status and of digits."""
    bits = length = 0
    for letter in text:
        code, size = _HUFFMAN[letter]
        bits, length = bits << size | code, length + size
    padding = -length % 8
    return ((bits << padding) | ((1 << padding) - 1)).to_bytes((length + padding) // 8, "big")


_NUMBERS = {str(number).encode(): number for number in range(len(_STATUS))}
_NUMBERS |= {huffman(str(number)): number for number in range(len(_STATUS))}
_STATUS_NAMES = (b"grpc-status", huffman("grpc-status"))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return pack(">I", len(payload))[1:] + pack(">BBI", kind, flags, stream) + payload


def request(authority: str, service: str, timeout: int) -> bytes:
    """All that is said before the answer."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", USER_AGENT),
        ("grpc-timeout", f"{min(timeout, 99_999_999)}S"),
    ]
    block = b"".join(b"\x10" + _string(name) + _string(value) for name, value in headers)
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    body = b"\0" + pack(">I", len(message)) + message
    chunks = [body[at : at + _MAX_FRAME] for at in range(0, len(body), _MAX_FRAME)]
    data = [frame(_DATA, 0, 1, chunk) for chunk in chunks[:-1]] + [frame(_DATA, _END_STREAM, 1, chunks[-1])]
    opening = _PREFACE + frame(_SETTINGS, 0, 0, _OUR_SETTINGS)
    return opening + frame(_HEADERS, _END_HEADERS, 1, block) + b"".join(data)


def _string(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data), 7) + data


def _integer(value: int, bits: int) -> bytes:
    largest = (1 << bits) - 1
    if value < largest:
        return bytes([value])
    return bytes([largest]) + _varint(value - largest)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


class _Reader:
    """HPACK from a block of headers."""

    def __init__(self, block: bytes) -> None:
        self.block, self.at = block, 0

    def byte(self) -> int:
        if self.at >= len(self.block):
            raise Broken("headers break off")
        self.at += 1
        return self.block[self.at - 1]

    def integer(self, first: int, bits: int) -> int:
        value = first & ((1 << bits) - 1)
        if value < (1 << bits) - 1:
            return value
        for shift in range(0, 35, 7):
            byte = self.byte()
            value += (byte & 127) << shift
            if byte < 128:
                return value
        raise Broken("headers with an absurd number")

    def string(self) -> bytes:
        length = self.integer(self.byte(), 7)
        if self.at + length > len(self.block):
            raise Broken("headers break off")
        self.at += length
        return self.block[self.at - length : self.at]


def statuses(block: bytes) -> tuple[str, int | None]:
    """HTTP's status, where it is one of the usual, and grpc-status in a block of headers. Raises Broken. Pure."""
    reader, http, grpc = _Reader(block), "", None
    while reader.at < len(block):
        first = reader.byte()
        if first & 0x80:
            http = _STATIC_STATUS.get(reader.integer(first, 7), http)
            continue
        if first & 0xE0 == 0x20:  # another size for the table that is not there
            reader.integer(first, 5)
            continue
        index = reader.integer(first, 6 if first & 0x40 else 4)
        name = reader.string() if index == 0 else b""
        value = reader.string()
        if 8 <= index <= 14:
            http = value.decode(errors="replace") if value.isdigit() else "?"
        elif name in _STATUS_NAMES:
            grpc = _NUMBERS.get(value, 2)
    return http, grpc


def health(body: bytes) -> int:
    """HealthCheckResponse.status of the message that a stream consists of. Raises Broken. Pure."""
    if len(body) < 5 or body[0] or len(body) - 5 != unpack(">I", body[1:5])[0]:
        raise Broken("not one message without compression")
    reader, status = _Reader(body[5:]), 0
    while reader.at < len(reader.block):
        tag = reader.byte()
        if tag & 7 == 0:
            value = _read_varint(reader)
            status = value if tag == 0x08 else status
        elif tag & 7 == 2:
            reader.at += _read_varint(reader)
        else:
            raise Broken("not a HealthCheckResponse")
    return status


def _read_varint(reader: _Reader) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = reader.byte()
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise Broken("not a HealthCheckResponse")


class Call:
    """The answer to a request, fed with bytes; `replies` is what has to be written back. Pure."""

    def __init__(self) -> None:
        self.replies = b""
        self.done = False
        self.status: int | None = None
        self.http = ""
        self.body = b""
        self._buffer = b""
        self._block: bytes | None = None
        self._ends = False

    def feed(self, data: bytes) -> None:
        """Raises Broken."""
        self._buffer += data
        while len(self._buffer) >= 9 and not self.done:
            length = unpack(">I", b"\0" + self._buffer[:3])[0]
            if length > _MAX_FRAME:
                raise Broken("not HTTP/2" if self._buffer.startswith(b"HTTP/1") else "a frame that is too large")
            kind, flags, stream = unpack(">BBI", self._buffer[3:9])
            if len(self._buffer) < 9 + length:
                return
            payload, self._buffer = self._buffer[9 : 9 + length], self._buffer[9 + length :]
            self._frame(kind, flags, stream & 0x7FFFFFFF, payload)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.replies += frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self.replies += frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY and payload[:4] == b"\0\0\0\0":  # it has not seen our stream, and will not
            raise Broken("the server refuses")
        elif stream != 1:
            return
        elif kind == _RST_STREAM:
            raise Broken("the server ended the call")
        elif kind == _HEADERS:
            self._ends = bool(flags & _END_STREAM)
            payload = _unpadded(flags, payload)
            self._headers(flags, payload[5:] if flags & _PRIORITY else payload)
        elif kind == _CONTINUATION and self._block is not None:
            self._headers(flags, payload)
        elif kind == _DATA:
            self.body += _unpadded(flags, payload)
            if len(self.body) > _MAX_FRAME:
                raise Broken("an answer that is too large")
            self.done = bool(flags & _END_STREAM)

    def _headers(self, flags: int, payload: bytes) -> None:
        self._block = (self._block or b"") + payload
        if len(self._block) > _MAX_HEADERS:
            raise Broken(f"headers of more than {_MAX_HEADERS} bytes")
        if flags & _END_HEADERS:
            http, status = statuses(self._block)
            self.http = self.http or http
            self.status = self.status if status is None else status
            self._block, self.done = None, self._ends

    def verdict(self) -> tuple[str, str]:
        """What the finished call comes to. Raises Broken."""
        if self.status is None:
            raise Broken(f"HTTP status {self.http}" if self.http not in ("", "200") else "no grpc-status")
        if self.status == _UNIMPLEMENTED:
            return FAILURE, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        if self.status:
            return FAILURE, f"error: health rpc probe failed: {_STATUS[self.status]}"
        status = health(self.body)
        if status != 1:
            return FAILURE, f'service unhealthy (responded with "{_HEALTH.get(status, status)}")'
        return SUCCESS, ""


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken("absurd padding")
    return payload[1 : len(payload) - payload[0]]


class GrpcAsk:
    """One call. `done` is called with the result and what there is to say of it, unless it is closed before."""

    def __init__(self, loop: Loop, place: Place, action: Grpc, timeout: int, done: Callable[[str, str], None]) -> None:
        self._done, self._call, self._timeout = done, Call(), timeout
        self._service, self._open = action.service, False
        address = place.address
        self._authority = f"[{address}]:{action.port}" if ":" in address else f"{address}:{action.port}"
        self._connection: Connection | None = Connection(loop, place, address, action.port, self)

    def opened(self) -> None:
        self._open = True
        self._write(request(self._authority, self._service, self._timeout))

    def _write(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.send(data)

    def received(self, data: bytes) -> None:
        try:
            self._call.feed(data)
            if self._call.done:
                self._finish(*self._call.verdict())
            elif self._call.replies:
                replies, self._call.replies = self._call.replies, b""
                self._write(replies)
        except Broken as error:
            self.broke(str(error))

    def ended(self) -> None:
        self.broke("the connection was closed")

    def broke(self, reason: str) -> None:
        said = "health rpc probe failed" if self._open else f"failed to connect service at {self._authority}"
        self._finish(FAILURE, f"error: {said}: {reason}")

    def overdue(self, seconds: int) -> tuple[str, str]:
        """The result when it has taken that long."""
        if self._open:
            return FAILURE, f"timeout: health rpc did not complete within {seconds} s"
        return FAILURE, f"timeout: failed to connect service {self._authority} within {seconds} s"

    def _finish(self, result: str, message: str) -> None:
        self.close()
        self._done(result, message)

    def close(self) -> None:
        """No more of it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
