"""An HTTP/1 response as it comes in, as far as a probe cares for it (RFC 9112). Pure."""

from __future__ import annotations

from runtime.pod.faults import shown

MAX_HEADER = 64 * 1024
MAX_BODY = 10 * 1024
"""Bytes of a body that are read; whatever follows is nobody's concern."""


class Malformed(Exception):
    """What came is no HTTP."""


class Response:
    """Fed with bytes until it is `done`; `status` is 0 before all headers are there, names of headers in lower case."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False
        self._buffer = b""
        self._length: int | None = None
        self._chunked = False
        self._in_chunk = 0

    def feed(self, data: bytes) -> None:
        """Raises Malformed."""
        self._buffer += data
        while not self.status:
            if not self._header():
                return
        if self._chunked:
            self._chunks()
        else:
            self._take(len(self._buffer))
            if self._length is not None and len(self.body) >= self._length:
                self.done = True
        if len(self.body) >= MAX_BODY:
            self.done = True

    def end(self) -> None:
        """Nothing more comes. Raises Malformed where something had to."""
        if not self.status:
            raise Malformed("the connection was closed before an answer" if not self._buffer else self._shown())
        if self._chunked or self._length is not None:
            raise Malformed("the connection was closed within the body")
        self.done = True

    def _shown(self) -> str:
        return f"malformed HTTP response {shown(self._buffer[:60].decode(errors='replace'))}"

    def _header(self) -> bool:
        """Take one header off the buffer, if all of it is there."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            head, found, rest = self._buffer.partition(b"\n\n")
        if not self._buffer.startswith(b"HTTP/"[: len(self._buffer)]):
            raise Malformed(self._shown())
        if not found:
            if len(self._buffer) > MAX_HEADER:
                raise Malformed(f"headers of more than {MAX_HEADER} bytes")
            return False
        lines = head.decode("latin-1").splitlines()
        version, _, after = lines[0].partition(" ")
        code = after[:3]
        if not version.startswith("HTTP/1.") or not (len(code) == 3 and code.isascii() and code.isdigit()):
            raise Malformed(self._shown())
        self._buffer = rest
        if code[0] == "1" and code != "101":  # something interim, the answer follows
            return True
        self.status = int(code)
        self._read_headers(lines[1:])
        return True

    def _read_headers(self, lines: list[str]) -> None:
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or name.strip() != name:
                raise Malformed(f"malformed header {shown(line)}")
            self.headers.setdefault(name.lower(), value.strip(" \t"))
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        if self.status in (101, 204, 304):
            self._chunked, self._length = False, 0
        elif length is not None and not self._chunked:
            if not (length.isascii() and length.isdigit() and len(length) < 19):
                raise Malformed(f"malformed Content-Length {shown(length)}")
            self._length = int(length)

    def _take(self, size: int) -> None:
        self.body = (self.body + self._buffer[:size])[:MAX_BODY]
        self._buffer = self._buffer[size:]

    def _chunks(self) -> None:
        while self._buffer and not self.done:
            if self._in_chunk:
                size = min(self._in_chunk, len(self._buffer))
                self._take(size)
                self._in_chunk -= size
                continue
            line, newline, rest = self._buffer.lstrip(b"\r\n").partition(b"\n")
            if not newline:
                if len(line) > MAX_HEADER:
                    raise Malformed("malformed chunk")
                return
            size_text = line.partition(b";")[0].strip()
            if not size_text or len(size_text) > 15 or size_text.strip(b"0123456789abcdefABCDEF"):
                raise Malformed("malformed chunk")
            self._buffer, self._in_chunk = rest, int(size_text, 16)
            self.done = self._in_chunk == 0
