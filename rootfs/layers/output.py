"""Where a packed layer goes: hashed, compressed and hashed again beside the walk that makes it, in bounded memory."""

from __future__ import annotations

import hashlib
import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from kernel.errors import RawpodError
from rootfs.files import write_all

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

Compression = Literal["gzip", "zstd"]

_CHUNK = 1 << 18
_WAITING = 8  # chunks, each up to a megabyte


class Packed(NamedTuple):
    """What was written: sha256 of the tar (OCI's diff_id), sha256 and bytes of what the descriptor got."""

    diff_id: str
    digest: str
    size: int


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Output:
    """Takes the tar in pieces. A context manager, which ends the threads behind it; finish() says what was written."""

    def __init__(self, fd: int, compression: Compression | None) -> None:
        self._fd = fd
        self._pieces: list[bytes] = []
        self._held = 0
        self._size = 0
        self._tar, self._written = hashlib.sha256(), hashlib.sha256()
        self._compressor = _compressor(compression) if compression else None
        self._stages = [_Stage(self._tar.update), _Stage(self._compress)] if compression else [_Stage(self._plain)]

    def write(self, data: bytes) -> None:
        """Add to the tar. Raises what went wrong with pieces before."""
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= _CHUNK:
            self._pass_on()

    def finish(self) -> Packed:
        """The end of the tar; waits until all of it is written."""
        self._pass_on()
        for stage in self._stages:
            stage.end()
        if self._compressor:
            self._put(self._compressor.flush())
            return Packed(_named(self._tar.hexdigest()), _named(self._written.hexdigest()), self._size)
        digest = _named(self._written.hexdigest())
        return Packed(digest, digest, self._size)

    def _pass_on(self) -> None:
        data = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        for stage in self._stages:
            stage.put(data)

    def _plain(self, data: bytes) -> None:
        self._put(data)

    def _compress(self, data: bytes) -> None:
        assert self._compressor
        self._put(self._compressor.compress(data))

    def _put(self, data: bytes) -> None:
        if data:
            self._written.update(data)
            self._size += len(data)
            try:
                write_all(self._fd, data)
            except OSError as error:
                raise RawpodError(f"cannot write the layer: {(error.strerror or '').lower()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for stage in self._stages:
            stage.abandon()


class _Stage:
    """A thread that does one thing with each piece, in order. hashlib, isal and write(2) leave the interpreter free."""

    def __init__(self, work: Callable[[bytes], None]) -> None:
        self._work = work
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        if self._error:
            raise self._error
        self._queue.put(data)

    def end(self) -> None:
        """Wait until all is done. Raises what went wrong."""
        self._queue.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def abandon(self) -> None:
        """Let the rest fall. Nothing happens after end()."""
        self._abandoned = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        # After an error what still comes is taken all the same: nobody is to wait for room in the queue.
        while (data := self._queue.get()) is not None:
            if self._error is None and not self._abandoned:
                try:
                    self._work(data)
                except BaseException as error:
                    self._error = error


def _named(hexadecimal: str) -> str:
    return f"sha256:{hexadecimal}"


def _compressor(kind: Compression) -> _Compressor:
    if kind == "gzip":
        from isal import isal_zlib

        # 16 more than the window's bits: gzip's header, without name and time (zlib.h, deflateInit2).
        compressor: _Compressor = isal_zlib.compressobj(2, wbits=31)
        return compressor
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdCompressor
    else:
        from backports.zstd import ZstdCompressor
    return ZstdCompressor(level=3)
