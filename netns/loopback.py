"""The loopback link, by the ioctls of netdevice(7): a container's start has no time to load netlink for one flag."""

from __future__ import annotations

import _socket
import fcntl
import struct

from kernel import events
from kernel.errors import SystemCallError

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = "16sH22x"


def raise_loopback() -> None:
    """Set lo up in the network namespace of the caller, who needs CAP_NET_ADMIN there."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        answer = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, struct.pack(_IFREQ, b"lo", 0))
        _set_flags(control.fileno(), struct.unpack(_IFREQ, answer)[1] | _IFF_UP)
    finally:
        control.close()


def _set_flags(control: int, flags: int) -> None:
    arguments = {"request": "SIOCSIFFLAGS", "ifr_name": "lo", "ifr_flags": f"{flags:#x}"}
    try:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags))
    except OSError as error:
        events.emit("ioctl", arguments, None, error.errno or 0)
        raise SystemCallError("ioctl", arguments, error.errno or 0) from None
    events.emit("ioctl", arguments, 0)
