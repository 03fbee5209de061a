"""The uncompressed archive: read, decompressed and hashed in threads of their own, beside who extracts it.

isal, zstd, hashlib, read(2) and write(2) all leave the interpreter free meanwhile, so two processors are kept busy by
one layer. What is decompressed waits in bounded queues: memory does not grow with the archive.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from rootfs.files import write_all
from rootfs.layers.tar_header import TarError

_CHUNK = 1 << 18  # still in the second level's cache when it is hashed and written
_INPUT = 1 << 16  # what follows a member of gzip's is copied by the next one
_WAITING = 16  # chunks
_RATIO_FROM = 1 << 30  # bytes: a smaller layer may hold nothing but zeros

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
}
_LONGEST_MAGIC = max(map(len, _MAGIC))


class StreamLimits(NamedTuple):
    """`total` bytes uncompressed, `ratio` of them to those compressed, `end` of the time allowed (time.monotonic())."""

    total: int
    ratio: int
    end: float


class Stream:
    """Counts, hashes and bounds what is read of an archive, whose descriptor may be a pipe's."""

    def __init__(self, archive: int, limits: StreamLimits) -> None:
        self._chunk = b""
        self._view = memoryview(b"")
        self._at = 0
        self._before = 0
        self._end = limits.end
        self._producer = _Producer(archive, limits)

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises TarError where there are not as many, or for a limit."""
        at = self._at
        end = at + size
        if end <= len(self._chunk):
            self._at = end
            return self._chunk[at:end]
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, which are hashed all the same."""
        end = self._at + size
        if end <= len(self._chunk):
            self._at = end
        else:
            for _ in self._pieces(size):
                pass

    def copy(self, size: int, fd: int) -> None:
        """Write the next `size` bytes to `fd`, from where they were decompressed to."""
        at = self._at
        end = at + size
        if end <= len(self._chunk):
            self._at = end
            written = os.write(fd, self._view[at:end])
            if written < size:
                write_all(fd, self._view[at + written : end])
        else:
            for piece in self._pieces(size):
                write_all(fd, piece)

    def copy_all(self, fd: int) -> int:
        """Write all that is left to `fd`, up to the archive's end; how many bytes that were."""
        before = self.offset
        write_all(fd, self._view[self._at :])
        self._at = len(self._chunk)
        while self._next():
            write_all(fd, self._view)
            self._at = len(self._chunk)
        return self.offset - before

    def drain(self) -> None:
        """Read what follows the end of the archive: it counts for the digest."""
        while self._next():
            pass

    def digest(self) -> str:
        """sha256 of everything. Only after drain()."""
        return f"sha256:{self._producer.digest()}"

    def close(self) -> None:
        """Let the threads end; one that waits for a pipe ends when that does, or with the process."""
        self._producer.stop()

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if self._at == len(self._chunk) and not self._next():
                raise TarError("the archive is truncated", self.offset)
            piece = self._view[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def _next(self) -> bool:
        """Take the next chunk; False at the end."""
        if time.monotonic() > self._end:
            raise TarError("not unpacked within the time allowed", self.offset, limit="deadline")
        self._before += len(self._chunk)
        self._chunk = b""
        self._at = 0
        chunk = self._producer.take()
        if isinstance(chunk, bytes):
            self._chunk = chunk
            self._view = memoryview(chunk)
            return True
        if chunk is None:
            return False
        if isinstance(chunk, _Refused):
            raise TarError(chunk.reason, self.offset, limit=chunk.limit)
        raise chunk


class _Refused(Exception):
    """Where the archive's own offset is not known yet."""

    def __init__(self, reason: str, limit: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = limit


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Producer:
    """One thread that reads and decompresses, one that hashes what comes out."""

    def __init__(self, archive: int, limits: StreamLimits) -> None:
        self._archive = os.dup(archive)  # the thread may outlive the caller's, whose number another file then has
        self._limits = limits
        self._read = 0
        self._chunks: queue.Queue[bytes | Exception | None] = queue.Queue(_WAITING)
        self._hashed: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._sha256 = hashlib.sha256()
        self._stopped = False
        self._hasher = threading.Thread(target=self._hash, daemon=True)
        self._hasher.start()
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> bytes | Exception | None:
        """The next chunk, what went wrong, or None at the end."""
        chunk = self._chunks.get()
        if not isinstance(chunk, bytes):
            self._chunks.put(chunk)  # for who asks again
        return chunk

    def digest(self) -> str:
        self._hasher.join()
        return self._sha256.hexdigest()

    def stop(self) -> None:
        self._stopped = True
        try:
            while True:
                self._chunks.get_nowait()
        except queue.Empty:
            pass

    def _hash(self) -> None:
        while (chunk := self._hashed.get()) is not None:
            self._sha256.update(chunk)

    def _run(self) -> None:
        end: Exception | None = None
        try:
            produced = 0
            for chunk in _gathered(self._decompressed()):
                produced += len(chunk)
                if produced > self._limits.total:
                    raise _Refused(f"more than {self._limits.total} bytes uncompressed", "total-size")
                if produced > _RATIO_FROM and produced > self._limits.ratio * self._read:
                    raise _Refused(f"more than {self._limits.ratio} bytes for each one compressed", "ratio")
                self._hashed.put(chunk)
                self._chunks.put(chunk)
                if self._stopped:
                    return
        except Exception as error:
            end = error
        finally:
            self._hashed.put(None)
            os.close(self._archive)
        self._chunks.put(end)

    def _input(self) -> bytes:
        data = os.read(self._archive, _INPUT)
        self._read += len(data)
        return data

    def _decompressed(self) -> Iterator[bytes]:
        data = b""
        while len(data) < _LONGEST_MAGIC and (more := self._input()):
            data += more
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "tar")
        if kind == "tar":
            while data:
                yield data
                data = self._input()
            return
        new = _DECOMPRESSORS.get(kind, lambda: None)()
        if new is None:
            raise _Refused(f"{kind} is not supported: a tar is plain, or compressed with gzip or zstd")
        try:
            yield from self._members(data, new, padded=kind == "gzip")
        except (OSError, EOFError, ValueError) as error:
            raise self._undecompressed(error) from None
        except Exception as error:  # the decompressors' own errors have no common class
            if type(error).__module__.partition(".")[0] not in ("isal", "igzip_lib", "backports", "compression"):
                raise
            raise self._undecompressed(error) from None

    def _members(self, data: bytes, new: Callable[[], _Decompressor], *, padded: bool) -> Iterator[bytes]:
        """Both formats may be several streams, one after the other; gzip's may have zeros behind (gzip(1))."""
        while data:
            decompressor = new()
            while not decompressor.eof:
                if not decompressor.needs_input:
                    data = b""
                elif not data and not (data := self._input()):
                    raise EOFError("it ends in the middle of a compressed stream")
                chunk = decompressor.decompress(data, _CHUNK)
                data = b""
                if chunk:
                    yield chunk
            data = decompressor.unused_data
            while padded and not (data := data.lstrip(b"\0")) and (data := self._input()):
                pass
            data = data or self._input()

    def _undecompressed(self, error: Exception) -> _Refused:
        text = str(error)
        return _Refused(f"cannot decompress, near byte {self._read} of the file: {text[:1].lower()}{text[1:]}")


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, small pieces joined: some layers are thousands of short streams, one for each file."""
    held: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size >= _INPUT:
                yield chunk if len(held) == 1 else b"".join(held)
                held, size = [], 0
    except Exception:
        # What came before the damage still does, and the error has its offset.
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def _gzip() -> Callable[[], _Decompressor]:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor

    return lambda: IgzipDecompressor(flag=DECOMP_GZIP)


def _zstd() -> Callable[[], _Decompressor]:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor
    else:
        from backports.zstd import ZstdDecompressor
    return ZstdDecompressor


_DECOMPRESSORS: dict[str, Callable[[], Callable[[], _Decompressor]]] = {"gzip": _gzip, "zstd": _zstd}
