"""A small HTTP client for the supervisor's door.

http.client takes 26 ms to import (it brings email and ssl), more than a whole `rawpod get` may spend, and
little of it is of use here: one request a connection, bodies of JSON with a length or in chunks (RFC 9112).
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from kernel.errors import BadInput, Conflict, NotFound, NotSupported, RawpodError

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"


class Rejected(BadInput):
    """The supervisor found faults in an object: `causes` are pairs of field and what is wrong there."""

    def __init__(self, message: str, causes: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {text}" for field, text in causes) or message)
        self.causes = causes


class Refused(RawpodError):
    """The supervisor refused a request; `status` is the Kubernetes Status it gave."""

    def __init__(self, status: Object) -> None:
        super().__init__(str(status.get("message") or status.get("reason") or "the supervisor refused the request"))
        self.status = status


class Response:
    """A response whose body is read as it comes. Closing it ends a watch."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        words = self._line().split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1."):
            raise RawpodError("the supervisor's answer is not HTTP", remedy="is --socket another program's?")
        self.code = int(words[1])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _line(self) -> str:
        return self._file.readline(65536).decode("latin-1").rstrip("\r\n")

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. Raises RawpodError if the connection ends before the body does."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().partition(";")[0] or "0", 16):
                yield self._exactly(size)
                self._line()
            return
        length = self.headers.get("content-length")
        yield self._file.read() if length is None else self._exactly(int(length))

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise RawpodError("the supervisor closed the connection in the middle of an answer")
        return data

    def body(self) -> bytes:
        """All of the body."""
        with self:
            return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """The body line by line, as it arrives."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def wait_until(self, deadline: float) -> None:
        """Have the next read raise TimeoutError at `deadline` (time.monotonic())."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._connection.close()


class Client:
    """Requests to the supervisor that listens at `path`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def open(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", **query: object
    ) -> Response:
        """Sends a request and returns its response unread. Raises what `explain` makes of a refusal."""
        payload = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"{method} {_target(path, query)} HTTP/1.1\r\nHost: rawpod\r\nAccept: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(payload)}\r\n"
        )
        if payload:
            head += f"Content-Type: {content_type}\r\n"
        connection = self._connect()
        try:
            connection.sendall(head.encode() + b"\r\n" + payload)
            response = Response(connection)
        except OSError as error:
            connection.close()
            raise RawpodError(f'the supervisor at "{self.path}" went away: {error.strerror}') from None
        except BaseException:
            connection.close()
            raise
        if response.code >= 400:
            raise explain(_decode(response.body(), response.code))
        return response

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", **query: object
    ) -> Object:
        """Sends a request and returns the object it answers with."""
        return _decode(self.open(method, path, body, content_type, **query).body(), 200)

    def watch(self, path: str, deadline: float | None = None, **query: object) -> Iterator[Object]:
        """The events of a watch, until the supervisor ends it. TimeoutError if none came before time.monotonic()."""
        response = self.open("GET", path, None, "", watch="true", **query)
        with response:
            lines = response.lines()
            while True:
                if deadline is not None:
                    response.wait_until(deadline)
                line = next(lines, None)
                if line is None:
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise explain(event["object"])
                yield event

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                raise RawpodError(
                    f'no supervisor listens at "{self.path}"', remedy="start `rawpod supervisor`, or name its --socket"
                ) from None
            if isinstance(error, PermissionError):
                raise RawpodError(f'the supervisor at "{self.path}" is root\'s', remedy="run rawpod as root") from None
            raise RawpodError(f'cannot reach the supervisor at "{self.path}": {error.strerror or error}') from None
        return connection


def _target(path: str, query: Mapping[str, object]) -> str:
    from urllib.parse import quote, urlencode

    given = {key: value for key, value in query.items() if value is not None}
    return quote(path) + ("?" + urlencode(given) if given else "")


def _decode(body: bytes, code: int) -> Object:
    try:
        decoded = json.loads(body)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise RawpodError(f"the supervisor answered {code} without a JSON object", remedy="see its log")
    return decoded


def explain(status: Object) -> RawpodError:
    """The error for a Kubernetes Status: its kind decides the exit status, its causes are told one a line."""
    message = str(status.get("message") or "the supervisor refused the request")
    match status.get("reason"):
        case "NotFound":
            return NotFound(message)
        case "AlreadyExists" | "Conflict":
            return Conflict(message)
        case "Invalid" | "BadRequest":
            causes = (status.get("details") or {}).get("causes") or ()
            return Rejected(message, [(cause.get("field", ""), cause.get("message", "")) for cause in causes])
        case "MethodNotAllowed" | "UnsupportedMediaType":
            return NotSupported(message)
    return Refused(status)
