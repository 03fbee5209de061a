"""Network namespaces (and their siblings) as files: pinned, entered, left again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.errors import SystemCallError
from kernel.mounts import MNT_DETACH, MS_BIND, mount, umount2
from kernel.process import CLONE_NEWNET, setns

_EINVAL, _ENOENT = 22, 2


def pin(pid: int | str, kind: str, path: Path) -> None:
    """Keep the namespace of a process alive by binding /proc/PID/ns/KIND to `path` (namespaces(7)).

    `pid` may be "self" or "thread-self". A file left there by a crash before the mount is taken over.
    """
    path.touch(mode=0o444)
    mount(f"/proc/{pid}/ns/{kind}", path, None, MS_BIND)


def unpin(path: Path) -> None:
    """Let go of a pinned namespace; nothing to do where nothing is pinned."""
    try:
        umount2(path, MNT_DETACH)
    except SystemCallError as error:
        if error.errno not in (_EINVAL, _ENOENT):  # not a mount point, no such file
            raise
    path.unlink(missing_ok=True)


def enter(path: Path, flags: int = CLONE_NEWNET) -> None:
    """Join the namespace pinned at `path`; `flags` is the CLONE_NEW* it has to be, 0 for any (setns(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, flags)
    finally:
        os.close(fd)


@contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """Run the body in another network namespace and come back. It concerns the calling thread alone.

    /proc/sys/net and new sockets are those of the namespace entered; a socket keeps the namespace it was opened in.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
