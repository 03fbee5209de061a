"""A container that stands still while something is copied, and surely runs on afterwards.

A guard, a process of its own, lets it run again at the end of the pipe that the copying process holds: also when that
one was killed. Several copies at a time share a file: it is locked by all of them, and the last one to go lets the
container run. What the file holds says that it was a copy that froze it; one that its owner has frozen stays so.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgroups.cgroup import Cgroup
from kernel.credentials import set_name
from kernel.errors import HostError, RawpodError

FILE = "copying"

_OURS = b"by a copy\n"


@contextmanager
def frozen(cgroup: Cgroup, directory: Path) -> Iterator[str]:
    """Freeze every process of a cgroup for as long as the block takes; yields why not all are, "" if they are.

    `directory` is the container's bundle. The calling process has one thread.
    """
    lock = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        first = _join(lock, cgroup)
        ending, ours = os.pipe2(os.O_CLOEXEC)
        guard = os.fork()
        if guard == 0:
            _guard(ending, lock, cgroup)
        os.close(ending)
        try:
            yield _freeze(cgroup, lock) if first else ""
        finally:
            os.close(ours)
            _, status = os.waitpid(guard, 0)
        if status:
            raise HostError(
                f"cgroup {cgroup.path!r} may still be frozen", remedy=f"echo 0 > {cgroup.file('cgroup.freeze')}"
            )
    finally:
        os.close(lock)


def _join(lock: int, cgroup: Cgroup) -> bool:
    """Become one of those who copy: the first one, still alone, or one of several, the container frozen already."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            # Waits for one that is about to freeze it, or to let it run.
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.pread(lock, 1, 0) or cgroup.frozen():
                return False


def _freeze(cgroup: Cgroup, lock: int) -> str:
    """Freeze it, unless somebody else has, and let others who copy join."""
    try:
        if cgroup.frozen():
            return ""
        os.pwrite(lock, _OURS, 0)
        cgroup.freeze()
        return ""
    except RawpodError as error:
        return str(error)
    finally:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _guard(ending: int, lock: int, cgroup: Cgroup) -> None:
    """In a process of its own, which ends here: wait for the end, and let the container run if nobody else copies."""
    status = 1
    try:
        set_name("rawpod-guard")
        os.setsid()  # what a terminal sends is for the one who copies
        _close_others(ending, lock)
        os.read(ending, 1)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            status = 0
            return
        if os.pread(lock, 1, 0):
            cgroup.thaw()
            os.ftruncate(lock, 0)
        status = 0
    finally:
        os._exit(status)


def _close_others(*kept: int) -> None:
    """The pipe's other end would keep it from ending, and standard output whoever reads there from seeing its end."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # that of the listing itself
