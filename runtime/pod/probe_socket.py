"""Connections of probes, from the monitor's loop and without waiting: in the clear and by TLS."""

from __future__ import annotations

import errno
import os
import socket
from functools import cache
from typing import TYPE_CHECKING, Protocol

from kernel.process import CLONE_NEWNET, setns
from kernel.record import Record
from runtime.pod.loop import READ, WRITE, Loop

if TYPE_CHECKING:
    import ssl

_CHUNK = 16 * 1024


class Place(Record):
    """Where a pod is found: at `address`, from the monitor's own network namespace or, if it is given, from another."""

    address: str
    namespace: str = ""


class Peer(Protocol):
    """Who uses a connection."""

    def opened(self) -> None:
        """It may be written to."""

    def received(self, data: bytes) -> None:
        """Some bytes came."""

    def ended(self) -> None:
        """No more will come."""

    def broke(self, reason: str) -> None:
        """It could not be made, or is of no more use."""


class Connection:
    """A connection to `host`; after `close` its peer hears no more. Raises OSError when there is no socket for it."""

    def __init__(self, loop: Loop, place: Place, host: str, port: int, peer: Peer) -> None:
        self._loop, self._peer = loop, peer
        self._rest = b""
        self._socket = _socket_in(place.namespace, socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._fd = self._socket.fileno()
        code = self._socket.connect_ex((host, port))
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(code, os.strerror(code))
        loop.add(self._fd, self._connected, WRITE)

    def _connected(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._peer.broke(os.strerror(code).lower())
            return
        self._loop.remove(self._fd)
        self._loop.add(self._fd, self._ready)
        self._began()

    def _began(self) -> None:
        self._peer.opened()

    def send(self, data: bytes) -> None:
        """Write all of it, as there is room."""
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._rest += data
        try:
            sent = self._socket.send(self._rest)
        except BlockingIOError:
            sent = 0
        self._rest = self._rest[sent:]
        self._loop.change(self._fd, READ | WRITE if self._rest else READ)

    def _ready(self) -> None:
        try:
            if self._rest:
                self._write(b"")
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._peer.broke(os.strerror(error.errno or 0).lower())
            return
        self._arrived(data)

    def _arrived(self, data: bytes) -> None:
        if data:
            self._peer.received(data)
        else:
            self._peer.ended()

    def close(self) -> None:
        """Be done with it, at whatever point it is."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            self._socket.close()
            self._fd = -1


class TlsConnection(Connection):
    """The same by TLS. As with kubelet no certificate is verified: the pod is known by its address."""

    def __init__(self, loop: Loop, place: Place, host: str, port: int, peer: Peer) -> None:
        import ssl

        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _tls_context().wrap_bio(self._in, self._out)
        self._want = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._shaken = False
        super().__init__(loop, place, host, port, peer)

    def _began(self) -> None:
        self._step()

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._write(self._out.read())

    def _arrived(self, data: bytes) -> None:
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        self._step()

    def _step(self) -> None:
        """Go on with the handshake, or with what the other side says."""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
                self._flush()
                self._peer.opened()
            while self._fd >= 0:
                data = self._tls.read(_CHUNK)
                super()._arrived(data)
                if not data:
                    return
        except self._want:
            self._flush()
        except OSError as error:  # ssl.SSLError is one; many servers end without a close_notify
            if self._shaken and self._in.eof:
                self._peer.ended()
            else:
                reason = getattr(error, "reason", None) or str(error)
                self._peer.broke(f"tls: {reason.lower().replace('_', ' ')}")

    def _flush(self) -> None:
        if self._fd >= 0 and (data := self._out.read()):
            self._write(data)


@cache
def _tls_context() -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Small keys are refused by default even where nothing is verified.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _socket_in(namespace: str, family: int) -> socket.socket:
    """A socket belongs to the namespace it was made in, wherever its process goes (network_namespaces(7))."""
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    if not namespace:
        return socket.socket(family, kind)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            return socket.socket(family, kind)
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
