"""What a container leaves to be read when it has ended: its termination message.

The container writes to a file of its own, which is mounted where the manifest says: nothing that it does to the path in
its root decides what is read here. As with kubelet the end of the file counts, and of the log where that is asked for.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kernel.record import Record

DEFAULT_PATH = "/dev/termination-log"
FILE, FALLBACK = "File", "FallbackToLogsOnError"

MAX_MESSAGE = 4096
"""Bytes that a container's message has at most."""

MAX_OF_POD = 12 * 1024
"""Bytes that the messages of all containers of a pod have together at most."""

MAX_LOG, MAX_LOG_LINES = 2048, 80
"""Bytes and lines of the log that stand for a message."""


class TerminationMessage(Record):
    """Where an attempt's message is: the file on the host, whether the log stands in, and how many bytes count."""

    path: Path
    falls_back: bool
    limit: int

    def create(self, owner: int) -> None:
        """The empty file, for every user of the container to write; `owner` is the container's root on the host."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            os.fchown(fd, owner, owner)
            os.fchmod(fd, 0o666)
        finally:
            os.close(fd)

    def read(self, *, failed: bool, logs: Path) -> str:
        """The message; the end of the container's log in `logs` if there is none, it `failed` and this is wanted."""
        try:
            text = _end_of(self.path, self.limit)
        except OSError as error:
            return f"Error on reading termination log: {(error.strerror or '').lower()}"
        if not text and failed and self.falls_back:
            return _end_of_log(logs)[-self.limit :].decode(errors="replace")
        return text.decode(errors="replace")


def limit_of(containers: int) -> int:
    """Bytes of each message in a pod of that many containers. Pure."""
    return min(MAX_MESSAGE, MAX_OF_POD // containers)


def _end_of(path: Path, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no file")
        return os.pread(fd, limit, max(0, status.st_size - limit))
    finally:
        os.close(fd)


def _end_of_log(logs: Path) -> bytes:
    from runtime.pod import logread

    output = b"".join(entry.output for entry in logread.read(logs, tail=MAX_LOG_LINES))
    return output[-MAX_LOG:]
