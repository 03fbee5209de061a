"""What the init stage and its parent say to each other, over one SOCK_SEQPACKET socket pair.

From the child: `event`s of its system calls where somebody listens, `console` with the terminal's descriptor, `created`
when the container is assembled, `failed` with the error. From the parent: `start`. After `start` the end of the
stream, the socket being close-on-exec, is the news that execve succeeded.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

from kernel import events
from kernel.errors import (
    BadInput,
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    HostError,
    NotSupported,
    RawpodError,
)

# One message is one packet; an event that does not fit (a path is at most 4 KiB) is cut to its name.
MAX_PACKET = 64 * 1024

_ERRORS: dict[str, type[RawpodError]] = {
    kind.__name__: kind
    for kind in (BadInput, CommandNotExecutable, CommandNotFound, ContainerError, HostError, NotSupported)
}


class Channel:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends, both close-on-exec."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: str, *, fds: tuple[int, ...] = (), **body: object) -> None:
        """Send one message with descriptors beside it."""
        packet = json.dumps({"kind": kind, **body}, default=str).encode()
        if fds:
            self._socket.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        else:
            self._socket.send(packet)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """The next message and its descriptors; None at the end of the stream.

        Events are handed to this side's instruments on the way.
        """
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(
                    MAX_PACKET, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                return None, []
            fds = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if not packet:
                return None, list(fds)
            message = json.loads(packet)
            if message["kind"] != "event":
                return message, list(fds)
            events.deliver(events.Event(*message["event"]))

    def send_error(self, error: BaseException, doing: str) -> None:
        """Tell the parent what failed while doing what."""
        remedy = error.remedy if isinstance(error, RawpodError) else None
        message = error.message if isinstance(error, RawpodError) else _plain(error)
        self.send("failed", type=type(error).__name__, message=f"{doing}: {message}", remedy=remedy)

    def forward_events(self) -> None:
        """In the child: send every event to the parent, whose instruments are the ones that matter."""
        if events.observed():
            events.instruments[:] = [lambda event: self.send("event", event=list(event))]


def error_from(message: dict[str, Any]) -> RawpodError:
    """The error that a `failed` message tells of; a failed system call arrives as a ContainerError."""
    kind = _ERRORS.get(message["type"], ContainerError)
    return kind(message["message"], remedy=message["remedy"])


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{os.strerror(error.errno).lower()}: {error.filename!r}" if error.filename else str(error.strerror)
    return f"{type(error).__name__}: {error}"
