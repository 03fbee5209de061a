"""The image store on disk: its directories, its lock, and what is being made or removed.

    IMAGES/blobs/sha256/HEX manifests, configurations, layers as they came; named by their digest
    IMAGES/layers/HEX/      the root of one layer, named by the sha256 of its uncompressed tar (OCI's diff_id)
    IMAGES/sizes/HEX        what that layer's files take, in bytes, as text
    IMAGES/names/REFERENCE  JSON: what a name stands for, see names.py
    IMAGES/leases/          what is being brought in, one file an ingest, locked by who does it
    IMAGES/ingest/HEX       unfinished blobs, each locked by who writes it; what is nobody's can be resumed
    IMAGES/tmp/             layers being unpacked (unpack-…), each locked by who does it, and removed (rubbish-…)
    IMAGES/host/            the `host` image, see host.py
    IMAGES/lock             held while names change or garbage is collected; shared while a lease grows

Nothing appears in blobs, layers or names but by one rename(2), after it has reached the disk. Whatever dies on the way
leaves a file that is locked by nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rootfs.images.image import InUse
from rootfs.removal import remove_tree

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_DIRECTORIES = ("blobs", "blobs/sha256", "layers", "sizes", "names", "leases", "ingest", "tmp")
_HEX = frozenset("0123456789abcdef")


class Temporary(NamedTuple):
    """A directory below tmp/ that is locked as long as `fd` is open."""

    path: Path
    fd: int


def hex_of(digest: object) -> str:
    """A digest's name as a file; digests come from files that may be damaged. Raises ValueError."""
    if isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71 and _HEX.issuperset(digest[7:]):
        return digest[7:]
    raise ValueError(f"{digest!r} is not a sha256 digest")


def sync_directory(path: Path) -> None:
    """fsync(2): the names in the directory are on disk."""
    fd = os.open(path, DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """flock(2), if nobody else has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Places:
    """The store below `root`. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self.root / "blobs" / "sha256" / hex_of(digest)

    def layer(self, digest: str) -> Path:
        """Where the unpacked layer is, or would be."""
        return self.root / "layers" / hex_of(digest)

    def size_file(self, digest: str) -> Path:
        """Where the layer's size is written."""
        return self.root / "sizes" / hex_of(digest)

    def size(self, digest: str) -> int:
        """What the layer's files take, in bytes; 0 if that was lost."""
        try:
            return int(self.size_file(digest).read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def write_size(self, digest: str, size: int) -> None:
        """Write down what a layer's files take."""
        new = self.root / "ingest" / f"size-{os.getpid()}-{time.monotonic_ns()}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, str(size).encode())
        finally:
            os.close(fd)
        os.rename(new, self.size_file(digest))

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """The store, complete with its directories, while nobody else changes it; or while nobody collects garbage."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            self._make_directories()
            yield
        finally:
            os.close(lock)

    def _make_directories(self) -> None:
        made = False
        for name in _DIRECTORIES:
            try:
                os.mkdir(self.root / name, 0o700)
                made = True
            except FileExistsError:
                pass
        if made:
            sync_directory(self.root)

    @contextmanager
    def temporary(self) -> Iterator[Temporary]:
        """A new directory for a layer; gone afterwards, unless it was moved away by then."""
        self.clear_unpacked()
        with self.locked(shared=True):
            # In one go for those who hold the lock alone: they find no directory that is not locked yet.
            path = self.root / "tmp" / f"unpack-{os.getpid()}-{time.monotonic_ns()}"
            os.mkdir(path, 0o755)
            fd = os.open(path, DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            os.fchmod(fd, 0o755)
            yield Temporary(path, fd)
        finally:
            # Still locked: nobody else removes it at the same time.
            self._remove(path.name)
            os.close(fd)

    def clear_unpacked(self) -> None:
        """Remove what unpackings left that died."""
        with self.locked():
            found = [fd for name in os.listdir(self.root / "tmp") if (fd := self._claim(name, "unpack-"))]
        self._remove_claimed(found)

    def discard_layer(self, name: str) -> None:
        """Move layer `name` out of the way. The store is locked; clear_rubbish() removes it."""
        target = self.root / "tmp" / f"rubbish-{name}-{os.getpid()}-{time.monotonic_ns()}"
        os.rename(self.root / "layers" / name, target)

    def clear_rubbish(self, in_use: InUse) -> None:
        """Remove discarded layers, and put back what a container was made of meanwhile.

        Who starts a container writes down what it is made of before it mounts that: either that is seen here, after
        the layer's name is gone, or the mount does not find the layer.
        """
        with self.locked():
            names = [name for name in os.listdir(self.root / "tmp") if name.startswith("rubbish-")]
            kept = {hex_of(layer) for stack in in_use() for layer in stack} if names else set()
            found: list[tuple[str, int]] = []
            for name in names:
                layer = name.split("-")[1]
                if layer in kept and not os.path.lexists(self.root / "layers" / layer):
                    os.rename(self.root / "tmp" / name, self.root / "layers" / layer)
                elif claimed := self._claim(name, "rubbish-"):
                    found.append(claimed)
        self._remove_claimed(found)

    def _claim(self, name: str, kind: str) -> tuple[str, int] | None:
        """Lock an entry of tmp/ that nobody else has."""
        if not name.startswith(kind):
            return None
        try:
            fd = os.open(self.root / "tmp" / name, DIRECTORY)
        except FileNotFoundError:
            return None  # whoever made it has removed it
        if try_lock(fd):
            return name, fd
        os.close(fd)
        return None

    def _remove_claimed(self, found: list[tuple[str, int]]) -> None:
        for name, fd in found:
            try:
                self._remove(name)
            finally:
                os.close(fd)

    def _remove(self, name: str) -> None:
        parent = os.open(self.root / "tmp", DIRECTORY)
        try:
            remove_tree(parent, name)
        finally:
            os.close(parent)
