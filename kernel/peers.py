"""Who is at the other end of a unix socket: SO_PEERCRED of getsockopt(2)."""

from __future__ import annotations

import _socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class _Socket(Protocol):
        def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
            """As getsockopt(2) has it."""


_UCRED = struct.Struct("3i")


def peer_uid(end: _Socket) -> int:
    """The peer's uid when it connected, as this user namespace has it; of a listening socket who made it listen.

    Source: unix(7).
    """
    _, uid, _ = _UCRED.unpack(end.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
