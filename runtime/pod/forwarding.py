"""Connections of this machine carried into a pod's network namespace: what `rawpod port-forward` does.

Only the socket is opened in there: it keeps the namespace it was opened in (network_namespaces(7)), and this process
stays where it is. As with kubelet the other end is the pod's loopback, so that what listens there alone is reached too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernel.record import Record
from netns.namespace import entered
from runtime.pod.loop import WRITE, Loop

_CHUNK = 64 * 1024
_BACKLOG = 128


class Forward(Record):
    """A port of this machine (0: any that is free) and the pod's port it leads to."""

    local: int
    remote: int


def listen(addresses: list[str], port: int) -> list[socket.socket]:
    """Listening sockets at one port of several addresses; 0 is one free port. Raises OSError if all addresses fail."""
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((address, port))
            server.listen(_BACKLOG)
        except OSError as error:
            server.close()
            failure = error
            continue
        port = server.getsockname()[1]
        sockets.append(server)
    if failure is not None and not sockets:
        raise failure
    return sockets


class Forwarder:
    """Accepts connections and carries them to the pod whose namespace is pinned at `netns` (None: the host's)."""

    def __init__(self, loop: Loop, netns: Path | None, told: Callable[[str], None]) -> None:
        self._loop, self._netns, self._told = loop, netns, told
        self.connections = 0

    def serve(self, server: socket.socket, remote: int) -> None:
        """Take what connects to `server` to the pod's port."""
        self._loop.add(server.fileno(), lambda: self._accept(server, remote))

    def _accept(self, server: socket.socket, remote: int) -> None:
        try:
            client, _ = server.accept()
        except OSError:
            return  # the client has gone, or there is no descriptor left for it
        client.setblocking(False)
        _Dialling(self, client, remote)

    def open_inside(self, family: socket.AddressFamily) -> socket.socket:
        """A socket in the pod's network namespace. Raises OSError, SystemCallError."""
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        if self._netns is None:
            return socket.socket(family, kind)
        fd = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entered(fd):
                return socket.socket(family, kind)
        finally:
            os.close(fd)

    @property
    def loop(self) -> Loop:
        return self._loop

    def joined(self, client: socket.socket, inside: socket.socket) -> None:
        """Both ends are there: copy in both directions until both have ended."""
        self.connections += 1
        _Joined(self._loop, client, inside, self._parted)

    def _parted(self) -> None:
        self.connections -= 1

    def refused(self, client: socket.socket, remote: int, reason: str) -> None:
        """Nothing listens at the pod's port: the client is told by a reset, our user in words."""
        self._told(f"port {remote} of the pod: {reason}")
        with contextlib.suppress(OSError):
            # SO_LINGER of no time has close(2) send RST, socket(7).
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()


class _Dialling:
    """A connection on its way into the pod: to 127.0.0.1, then to ::1."""

    def __init__(self, owner: Forwarder, client: socket.socket, remote: int) -> None:
        self._owner, self._client, self._remote = owner, client, remote
        self._left = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
        self._reason = ""
        self._next()

    def _next(self) -> None:
        while self._left:
            family, address = self._left.pop(0)
            try:
                inside = self._owner.open_inside(family)
            except OSError as error:
                self._failed(error.errno or 0)
                continue
            code = inside.connect_ex((address, self._remote))
            if code in (0, errno.EINPROGRESS):
                self._owner.loop.add(inside.fileno(), partial(self._answered, inside), WRITE)
                return
            inside.close()
            self._failed(code)
        self._owner.refused(self._client, self._remote, self._reason)

    def _failed(self, code: int) -> None:
        self._reason = self._reason or os.strerror(code).lower()

    def _answered(self, inside: socket.socket) -> None:
        self._owner.loop.remove(inside.fileno())
        code = inside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            self._owner.joined(self._client, inside)
            return
        inside.close()
        self._failed(code)
        self._next()


class _Joined:
    """Two sockets, each copied to the other. A half that ends is shut down; a failure ends both."""

    def __init__(self, loop: Loop, one: socket.socket, other: socket.socket, ended: Callable[[], None]) -> None:
        self._sockets, self._ended = (one, other), ended
        self._halves = [_Half(loop, one, other, self._half_ended), _Half(loop, other, one, self._half_ended)]

    def _half_ended(self, broken: bool) -> None:
        if broken:
            for half in self._halves:
                half.close()
        if not any(half.open for half in self._halves) and self._sockets:
            for end in self._sockets:
                end.close()
            self._sockets = ()  # type: ignore[assignment]
            self._ended()


class _Half:
    """One direction. It has descriptors of its own, so that the loop can wait for each direction by itself."""

    def __init__(self, loop: Loop, source: socket.socket, target: socket.socket, ended: Callable[[bool], None]) -> None:
        self._loop, self._ended = loop, ended
        self._source, self._target = source.dup(), target.dup()
        self._rest = b""
        self.open = True
        loop.add(self._source.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._end(broken=True)
            return
        if not data:
            with contextlib.suppress(OSError):
                self._target.shutdown(socket.SHUT_WR)
            self._end(broken=False)
            return
        self._rest = data
        if self._send():
            return
        if self.open:
            self._loop.remove(self._source.fileno())
            self._loop.add(self._target.fileno(), self._writable, WRITE)

    def _send(self) -> bool:
        """Whether all is through."""
        try:
            self._rest = self._rest[self._target.send(self._rest) :]
        except BlockingIOError:
            return False
        except OSError:
            self._end(broken=True)
            return False
        return not self._rest

    def _writable(self) -> None:
        if self._send():
            self._loop.remove(self._target.fileno())
            self._loop.add(self._source.fileno(), self._readable)

    def _end(self, *, broken: bool) -> None:
        self.close()
        self._ended(broken)

    def close(self) -> None:
        if self.open:
            self.open = False
            for end in (self._source, self._target):
                self._loop.remove(end.fileno())
                end.close()
