"""What is being brought in, so that the garbage collector leaves it alone until a name stands for it."""

from __future__ import annotations

import os
import time

from rootfs.images.places import Places, hex_of, try_lock


class Lease:
    """The digests that one ingest holds. They are written to a file that is locked as long as this process lives.

    Somebody else's blob or layer is held before one looks whether it is there: either the collector reads the lease, or
    it has removed the thing by the time that one looks.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._held: set[str] = set()
        with places.locked(shared=True):
            self._path = places.root / "leases" / f"{os.getpid()}-{time.monotonic_ns()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            try_lock(self._fd)  # nobody else can have it: collectors hold the store's lock alone

    def hold(self, digest: str) -> None:
        """Keep the blob or layer, whether it is there or still to come, until close()."""
        if digest not in self._held:
            with self._places.locked(shared=True):
                os.write(self._fd, hex_of(digest).encode() + b"\n")
            self._held.add(digest)

    def close(self) -> None:
        """Let go of everything."""
        os.unlink(self._path)
        os.close(self._fd)


def held(places: Places) -> set[str]:
    """What leases hold, as names of files; leases of the dead are removed. The store is locked."""
    found: set[str] = set()
    for name in os.listdir(places.root / "leases"):
        path = places.root / "leases" / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # ended just now
        try:
            if try_lock(fd):
                path.unlink(missing_ok=True)
            else:
                with open(fd, closefd=False) as file:
                    found.update(line.strip() for line in file)
        finally:
            os.close(fd)
    return found
