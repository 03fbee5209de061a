"""Blobs while they arrive: in files of their own, one that survives its writer, and one that does not."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING, Self

from kernel.errors import Conflict
from rootfs.files import write_all
from rootfs.images.document import ImageError
from rootfs.images.places import Places, hex_of, sync_directory, try_lock

if TYPE_CHECKING:
    from rootfs.images.ingest import Ingest

_CHUNK = 1 << 20
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    """An unfinished blob of `size` bytes, locked while this is open. A context manager; not for two threads at once.

    `offset` bytes of it are there already. `complete` says that somebody else has finished it: commit() does nothing
    then. What is left without commit() can be resumed.
    """

    def __init__(self, places: Places, digest: str, size: int, *, wait: bool = True) -> None:
        self.digest = digest
        self.size = size
        self.offset = 0
        self._places = places
        self._path = places.root / "ingest" / hex_of(digest)
        self._sha256 = hashlib.sha256()
        self._fd = self._open(wait)
        self.complete = os.path.exists(places.blob(digest))
        self._gone = False
        if self.complete:
            self.discard()
        else:
            self._resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.offset:
            self.discard()
        os.close(self._fd)

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises ImageError, and gives the blob up, if there is more than was announced."""
        self.offset += len(data)
        if self.offset > self.size:
            self.discard()
            raise ImageError(f"blob {self.digest}", f"has more than the {self.size} bytes announced")
        write_all(self._fd, data)
        self._sha256.update(data)

    def restart(self) -> None:
        """Begin anew, where a registry cannot continue."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.offset = 0
        self._sha256 = hashlib.sha256()

    def commit(self) -> None:
        """Make it a blob of the store. Raises ImageError, and gives it up, unless size and sha256 are right."""
        if self.complete:
            return
        found = "sha256:" + self._sha256.hexdigest()
        if self.offset != self.size:
            self.discard()
            raise ImageError(f"blob {self.digest}", f"ended after {self.offset} of {self.size} bytes")
        if found != self.digest:
            self.discard()
            raise ImageError(f"blob {self.digest}", f"its {self.size} bytes have the digest {found}")
        os.fsync(self._fd)
        target = self._places.blob(self.digest)
        os.rename(self._path, target)
        self._gone = True
        sync_directory(target.parent)
        self.complete = True

    def discard(self) -> None:
        """Remove what is there of it."""
        if not self._gone:
            os.unlink(self._path)
            self._gone = True

    def _open(self, wait: bool) -> int:
        while True:
            fd = os.open(self._path, _FILE, 0o600)
            if not wait and not try_lock(fd):
                os.close(fd)
                raise Conflict(f"blob {self.digest} is being written by another process", remedy="wait for its end")
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Who had the lock may have finished the blob or given it up, and so moved or removed the file.
            try:
                if os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False)):
                    return fd
            except FileNotFoundError:
                pass
            os.close(fd)

    def _resume(self) -> None:
        if os.fstat(self._fd).st_size > self.size:
            self.restart()
        while chunk := os.read(self._fd, _CHUNK):
            self._sha256.update(chunk)
            self.offset += len(chunk)


class Stream:
    """A blob that is written before its digest is known: to `fd`, then keep(). Gone at the end if it was not kept."""

    def __init__(self, ingest: Ingest, places: Places) -> None:
        self._ingest = ingest
        self._places = places
        self._path = places.root / "ingest" / f"stream-{os.getpid()}-{time.monotonic_ns()}"
        with places.locked(shared=True):
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try_lock(self.fd)

    def keep(self, digest: str) -> None:
        """Make it the blob of that digest, which is that of all that was written."""
        if self._ingest.has_blob(digest):
            return
        os.fsync(self.fd)
        self._ingest.added(digest)
        target = self._places.blob(digest)
        os.rename(self._path, target)
        sync_directory(target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self.fd)
