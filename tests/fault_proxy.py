"""A proxy in front of a registry that fails as networks and bad registries do: one fault a request, as a plan says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self


class Answer(NamedTuple):
    """What a registry sent for `path`, as it passes the proxy."""

    status: int
    headers: dict[str, str]
    body: bytes
    path: str = ""


class Fault(NamedTuple):
    """What to do to answers for paths that match `path`, the first `times` times.

    `change` makes another answer of it; `cut` ends the connection after so many bytes of the body, by a reset if
    `reset`; `stall` keeps it open there and says nothing; `refuse` does so before any answer; `length` is added to
    Content-Length.
    """

    path: str
    times: int = 1
    change: Callable[[Answer], Answer] = lambda answer: answer
    cut: int | None = None
    reset: bool = False
    stall: bool = False
    refuse: bool = False
    length: int = 0
    method: str = "GET"


class Seen(NamedTuple):
    """A request that passed. Headers have names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class FaultProxy:
    """Listens at `host` as long as it is entered. `seen` are the requests in order."""

    def __init__(self, upstream: str, *faults: Fault) -> None:
        self._upstream = upstream
        self._faults = [[fault, fault.times] for fault in faults]
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []
        self.host = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def bodies(self, path: str) -> list[Seen]:
        """The GETs for paths that match."""
        return [seen for seen in self.seen if seen.method == "GET" and re.search(path, seen.path)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, headers = await _head(reader)
        method, path, _ = first.split(" ")
        self.seen.append(Seen(method, path, headers))
        fault = self._fault(method, path)
        if fault and fault.refuse:
            await asyncio.sleep(3600 if fault.stall else 0)
            return
        host, _, port = self._upstream.partition(":")
        upstream, out = await asyncio.open_connection(host, int(port))
        try:
            headers["connection"] = "close"
            out.write(_text(first, headers))
            await self._request_body(reader, out, int(headers.get("content-length", "0")), fault, writer)
            answer = (await _answer(upstream, method))._replace(path=path)
        finally:
            out.close()
        await _reply(writer, method, answer, fault)

    async def _request_body(
        self,
        reader: asyncio.StreamReader,
        out: asyncio.StreamWriter,
        left: int,
        fault: Fault | None,
        writer: asyncio.StreamWriter,
    ) -> None:
        """What is uploaded passes as it comes; a `cut` of a request with a body is one of that body."""
        sent = 0
        while left:
            chunk = await reader.read(min(left, 1 << 16))
            if not chunk:
                raise ConnectionResetError
            if fault and fault.cut is not None and sent + len(chunk) > fault.cut:
                out.write(chunk[: fault.cut - sent])
                await out.drain()
                writer.transport.abort()
                raise ConnectionResetError
            out.write(chunk)
            await out.drain()
            left -= len(chunk)
            sent += len(chunk)

    def _fault(self, method: str, path: str) -> Fault | None:
        for entry in self._faults:
            fault, left = entry
            assert isinstance(fault, Fault)
            assert isinstance(left, int)
            if left and fault.method == method and re.search(fault.path, path):
                entry[1] = left - 1
                return fault
        return None


async def _reply(writer: asyncio.StreamWriter, method: str, answer: Answer, fault: Fault | None) -> None:
    if fault:
        answer = fault.change(answer)
    headers = answer.headers | {"connection": "close"}
    if method != "HEAD":
        headers["content-length"] = str(len(answer.body) + (fault.length if fault else 0))
    writer.write(_text(f"HTTP/1.1 {answer.status} Whatever", headers))
    body = answer.body if fault is None or fault.cut is None or method != "GET" else answer.body[: fault.cut]
    writer.write(body)
    await writer.drain()
    if fault and fault.stall:
        await asyncio.sleep(3600)
    if fault and fault.reset:
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    return lines[0], {name.lower(): value for name, value in pairs}


async def _answer(upstream: asyncio.StreamReader, method: str) -> Answer:
    first, headers = await _head(upstream)
    body = b"" if method == "HEAD" else await upstream.read()
    headers.pop("transfer-encoding", None)
    return Answer(int(first.split(" ")[1]), headers, body)


def _text(first: str, headers: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
