"""HOME for a process whose description names none: that of its account in the container's /etc/passwd.

The file belongs to the container. Only a regular file of bounded size, inside the root, is read (CVE-2024-9676,
CVE-2025-4437), and a home with a control character in it is refused (CVE-2022-4318).
"""

from __future__ import annotations

import os
import stat

from kernel.errors import ContainerError, SystemCallError
from kernel.paths import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PASSWD_BYTES = 1024 * 1024
_ABSENT = (2, 20, 40)  # ENOENT, ENOTDIR, ELOOP


def home_of(uid: int) -> str:
    """The home of `uid` by /etc/passwd below "/", where the caller's root is the container's; "/" where it has none."""
    for fields in _entries(_read_passwd()):
        if fields[2] == b"%d" % uid:
            return _checked(fields[5].decode(errors="surrogateescape"))
    return "/"


def _read_passwd() -> bytes:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # What O_PATH opens does nothing, whatever it is: a FIFO does not block, a device is not started.
        place = open_in_root(root, "etc/passwd", os.O_PATH)
        try:
            status = os.fstat(place)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_PASSWD_BYTES:
                raise ContainerError(
                    f"/etc/passwd in the container is not a regular file of at most {MAX_PASSWD_BYTES} bytes",
                    remedy="set HOME in process.env, then it is not read",
                )
            # Should another have taken the name meanwhile, it does not block either, and no more is read.
            fd = open_in_root(root, "etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                return os.read(fd, MAX_PASSWD_BYTES) if os.path.samestat(status, os.fstat(fd)) else b""
            finally:
                os.close(fd)
        finally:
            os.close(place)
    except SystemCallError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    finally:
        os.close(root)


def _entries(content: bytes) -> Iterator[list[bytes]]:
    for line in content.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7:
            yield fields


def _checked(home: str) -> str:
    if any(ord(character) < 32 or character == "\x7f" for character in home):
        raise ContainerError("a home directory in the container's /etc/passwd has control characters in it")
    return home or "/"
