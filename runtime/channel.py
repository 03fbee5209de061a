"""What the init stage and its parent say to each other, over one SOCK_SEQPACKET socket pair.

From the child: `event`s of its system calls where somebody listens, `ask` for what only the parent can do, `console`
with the terminal's descriptor, `created` when the container is assembled, `failed` with the error. From the parent:
`done` after `ask`, `kept` where another process will start the container, and `start`. After `start` the end of the
stream, the socket being close-on-exec, is the news that execve succeeded. The relay between the two (kernel/relay.py)
writes the bare errno if it did not.

A container that is started by another process than its creator waits at a `Gate` instead: a socket in its state
directory, where the starting process connects and says the same `start` on a channel of its own.
"""

from __future__ import annotations

import _socket
import os
import struct

from kernel import events
from kernel.errors import (
    BadInput,
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    HostError,
    NotFound,
    NotSupported,
    RawpodError,
)
from kernel.peers import peer_uid
from runtime import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What ps(1) shows for the init stage until execve(2) gives it the payload's name.
INIT_NAME = "rawpod:init"

# One message is one packet; an event that does not fit (a path is at most 4 KiB) is cut to its name.
MAX_PACKET = 64 * 1024
_ERRNO_PACKET = 8  # no message in JSON is that short

_ERRORS: dict[str, type[RawpodError]] = {
    kind.__name__: kind
    for kind in (BadInput, CommandNotExecutable, CommandNotFound, ContainerError, HostError, NotSupported)
}


class Channel:
    """One end of the pair."""

    def __init__(self, end: _socket.socket) -> None:
        self._socket = end
        self._program = ""

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends, both close-on-exec."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: str, *, fds: tuple[int, ...] = (), **body: object) -> None:
        """Send one message with descriptors beside it."""
        packet = jsontext.dumps({"kind": kind, **body})
        if fds:
            self._socket.sendmsg(
                [packet], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
            )
        else:
            self._socket.send(packet)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """The next message and its descriptors; None at the end of the stream.

        Events are handed to this side's instruments on the way.
        """
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(
                    MAX_PACKET, _socket.CMSG_SPACE(4 * 4), _socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                return None, []
            fds: list[int] = []
            for level, kind, data in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
            if not packet:
                return None, fds
            if len(packet) == _ERRNO_PACKET:
                return self._refused(packet), fds
            message = jsontext.loads(packet)
            if message["kind"] == "program":
                self._program = message["path"]
            elif message["kind"] == "event":
                events.deliver(events.Event(*message["event"]))
            else:
                return message, fds

    def _refused(self, packet: bytes) -> dict[str, Any]:
        """What the relay wrote in place of a `failed` message, which no interpreter was left to write."""
        from kernel.relay import errno_in
        from runtime.program import refusal

        return _failed(refusal(self._program, errno_in(packet)), "execute")

    def ask(self, what: str) -> None:
        """In the child: have the parent do `what`, and wait until it is done. Raises ContainerError if it is gone."""
        self.send("ask", what=what)
        message, _ = self.receive()
        if message is None or message["kind"] != "done":
            raise ContainerError("the creating process ended before the container was assembled")

    def send_error(self, error: BaseException, doing: str) -> None:
        """Tell the parent what failed while doing what."""
        self.send(**_failed(error, doing))

    def tell_program(self, path: str) -> None:
        """In the child: say what is about to be executed, for the message should the relay fail."""
        self.send("program", path=path)

    def forward_events(self) -> None:
        """In the child: send every event to the parent, whose instruments are the ones that matter."""
        if events.observed():
            events.instruments[:] = [lambda event: self.send("event", event=list(event))]


class Gate:
    """Where a created container waits for whoever starts it: a listening socket, bound in its state directory."""

    FILE = "gate"

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/{self.FILE}"
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        # bind(2) gives the file the mode of the socket's own inode: it is never open to others, not for a moment.
        os.fchmod(self._socket.fileno(), 0o600)
        self._at(directory, self._socket.bind)
        self._socket.listen(1)

    def close(self) -> None:
        """Close this process's descriptor; the file stays."""
        self._socket.close()

    def wait(self) -> Channel:
        """In the child: wait until the user who made the container comes, and answer the channel to it.

        A listening socket's own peer is who called listen(2). In a user namespace that is the overflow uid, as all of
        the outside are: there it is the container's own users who are turned away, and the file's mode does the rest.
        """
        while True:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
            end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
            if peer_uid(end) == peer_uid(self._socket):
                return Channel(end)
            end.close()

    @classmethod
    def connect(cls, directory: str) -> Channel:
        """A channel to the container that waits in `directory`. Raises NotFound when none does."""
        end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            cls._at(directory, end.connect)
        except (FileNotFoundError, ConnectionRefusedError):
            end.close()
            raise NotFound(f"no container waits to be started in {directory!r}") from None
        return Channel(end)

    @classmethod
    def _at(cls, directory: str, call: Callable[[str], object]) -> None:
        # A socket's path has at most 107 bytes (unix(7)): the directory may be longer, its descriptor is not.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            call(f"/proc/self/fd/{fd}/{cls.FILE}")
        finally:
            os.close(fd)


def _failed(error: BaseException, doing: str) -> dict[str, Any]:
    remedy = error.remedy if isinstance(error, RawpodError) else None
    message = error.message if isinstance(error, RawpodError) else _plain(error)
    return {"kind": "failed", "type": type(error).__name__, "message": f"{doing}: {message}", "remedy": remedy}


def error_from(message: dict[str, Any]) -> RawpodError:
    """The error that a `failed` message tells of; a failed system call arrives as a ContainerError."""
    kind = _ERRORS.get(message["type"], ContainerError)
    return kind(message["message"], remedy=message["remedy"])


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{os.strerror(error.errno).lower()}: {error.filename!r}" if error.filename else str(error.strerror)
    return f"{type(error).__name__}: {error}"
