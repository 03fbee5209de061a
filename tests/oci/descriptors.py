"""Descriptors that a runtime sends over sockets, the console's and a seccomp agent's, and those that it is handed."""

from __future__ import annotations

import array
import os
import select
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_SECONDS = 15


class Receiver:
    """A listening unix socket at a path that is short enough for sockaddr_un."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="oci-", dir="/tmp"))
        self.path = self.directory / "sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(os.fspath(self.path))
        self._listener.listen()
        self._fds: list[int] = []

    def receive(self) -> tuple[bytes, list[int]]:
        """All that one connection brings until its end, and the descriptors that came along."""
        assert select.select([self._listener], [], [], _WAIT_SECONDS)[0], "nobody connected"
        connection, _ = self._listener.accept()
        data = b""
        with connection:
            while select.select([connection], [], [], _WAIT_SECONDS)[0]:
                part, ancillary, _, _ = connection.recvmsg(65536, 4096, socket.MSG_CMSG_CLOEXEC)
                for _, kind, payload in ancillary:
                    if kind == socket.SCM_RIGHTS:
                        self._fds += array.array("i", payload)
                if not part:
                    break
                data += part
        return data, self._fds

    def terminal(self) -> int:
        """The master of the terminal that one connection brings."""
        fds = self.receive()[1]
        assert len(fds) == 1
        return fds[0]

    def connected(self) -> bool:
        """Whether another connection waits."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def hang_up(self) -> None:
        """Listen no longer."""
        self._listener.close()

    def close(self) -> None:
        self._listener.close()
        for fd in self._fds:
            os.close(fd)
        self.path.unlink()
        self.directory.rmdir()


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A socket for a runtime to connect to."""
    made = Receiver()
    try:
        yield made
    finally:
        made.close()


def read_until(fd: int, text: bytes) -> bytes:
    """What comes from a terminal, up to some text."""
    data = b""
    while text not in data:
        assert select.select([fd], [], [], _WAIT_SECONDS)[0], f"only {data!r} came"
        data += os.read(fd, 65536)
    return data


class numbered:
    """A descriptor as another number for a while, with what was there put back."""

    def __init__(self, number: int, fd: int) -> None:
        self.number, self.fd = number, fd
        self.saved: int | None = None

    def __enter__(self) -> int:
        try:
            self.saved = os.dup(self.number)
        except OSError:
            self.saved = None
        os.dup2(self.fd, self.number)
        return self.number

    def __exit__(self, *_: object) -> None:
        if self.saved is None:
            os.close(self.number)
        else:
            os.dup2(self.saved, self.number, inheritable=False)
            os.close(self.saved)
