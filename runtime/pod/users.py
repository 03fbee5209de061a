"""Who a container's process runs as: `USER[:GROUP]` by number or by name, looked up in the image's own accounts.

The accounts are read from the image's layers before anything of it runs, so a container cannot change who its next run
is. Only regular files of bounded size are read, below the layer's directory, and nothing in them is trusted: ids out of
range and homes with line breaks are refused (CVE-2016-3697, CVE-2022-4318, CVE-2024-9676 and their kin).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel.errors import BadInput, ContainerError, SystemCallError
from kernel.names import MAX_ID
from kernel.record import Record
from runtime.pod.faults import shown

MAX_ACCOUNTS_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?\Z")
_NUMBER = re.compile(r"[0-9]+\Z")
_RIGHT = f"a name or a number from 0 to {MAX_ID}, and optionally ':' and a group"


class Accounts(Record):
    """The contents of an image's /etc/passwd and /etc/group; empty where it has none."""

    passwd: bytes = b""
    group: bytes = b""


class ResolvedUser(Record):
    """Ids as the kernel takes them; `groups` is the exact list for setgroups(2), the primary group included."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    named: bool = False


def parse(text: str) -> tuple[int | str, int | str | None]:
    """`USER[:GROUP]` as two ids or names; raises BadInput for anything else, also an id of (uid_t) -1 or more."""
    user, colon, group = text.partition(":")
    return _id_or_name(user, text), _id_or_name(group, text) if colon else None


def _id_or_name(part: str, text: str) -> int | str:
    if _NUMBER.match(part) and len(part) <= 10 and int(part) <= MAX_ID:
        return int(part)
    if not _NAME.match(part):
        raise BadInput(f"user {shown(text)} is neither a name nor an id", remedy=_RIGHT)
    return part


def resolve(
    text: str, accounts: Accounts, *, gid: int | None = None, extra: Sequence[int] = (), strict: bool = False
) -> ResolvedUser:
    """Look `USER[:GROUP]` up; `gid` overrides the primary group and `extra` are further groups.

    With `strict` these are all: who is a member of what in the image's /etc/group counts for nothing.
    An id need not have an account: then its group is 0 and its home is "/". Raises BadInput for a name without account
    and for an account that is malformed.
    """
    user, group = parse(text or "0")
    entry = _account(user, accounts)
    if entry is None and isinstance(user, str):
        raise BadInput(f"user {shown(user)} is not in the image's /etc/passwd", remedy="use a number")
    uid = entry.uid if entry else int(user)
    if gid is None:
        gid = entry.gid if group is None and entry else _group_id(group or 0, accounts)
    member_of = _memberships(entry.name, accounts) if entry and group is None and not strict else []
    groups = (gid, *sorted({*member_of, *extra} - {gid}))
    return ResolvedUser(uid, gid, groups, entry.home if entry else "/", named=isinstance(user, str))


class _Account(Record):
    name: str
    uid: int
    gid: int
    home: str


def _account(user: int | str, accounts: Accounts) -> _Account | None:
    for fields in _lines(accounts.passwd, 7):
        name, uid, gid = fields[0], fields[2], fields[3]
        if name == user or (_NUMBER.match(uid) and len(uid) <= 10 and int(uid) == user):
            if not (_is_id(uid) and _is_id(gid)):
                raise BadInput(f"user {shown(name)} has no valid ids in the image's /etc/passwd")
            return _Account(name, int(uid), int(gid), _home(fields[5]))
    return None


def _home(text: str) -> str:
    if any(ord(character) < 32 or character == "\x7f" for character in text):
        raise BadInput("a home directory in the image's /etc/passwd contains control characters")
    return text if text.startswith("/") else "/"


def _group_id(group: int | str, accounts: Accounts) -> int:
    if isinstance(group, int):
        return group
    for fields in _lines(accounts.group, 4):
        if fields[0] == group and _is_id(fields[2]):
            return int(fields[2])
    raise BadInput(f"group {shown(group)} is not in the image's /etc/group", remedy="use a number")


def _memberships(name: str, accounts: Accounts) -> list[int]:
    return [int(f[2]) for f in _lines(accounts.group, 4) if name in f[3].split(",") and _is_id(f[2])]


def _is_id(text: str) -> bool:
    return bool(_NUMBER.match(text)) and len(text) <= 10 and int(text) <= MAX_ID


def _lines(content: bytes, fields: int) -> Iterator[list[str]]:
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        parts = line.split(":")
        if len(parts) == fields and not line.startswith("#"):
            yield parts


def read_accounts(layers: Sequence[Path]) -> Accounts:
    """/etc/passwd and /etc/group of an image, from its layers, topmost first; raises ContainerError for odd files."""
    return Accounts(_read("etc/passwd", layers), _read("etc/group", layers))


def _read(name: str, layers: Sequence[Path]) -> bytes:
    for layer in layers:
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            content = _read_in(root, name)
            if content is not None:
                return content
            if _is_opaque(root, "etc"):
                return b""
        finally:
            os.close(root)
    return b""


def _read_in(root: int, name: str) -> bytes | None:
    """The file's content; None where the layer has no such file, so that the layers below decide; b"" if deleted."""
    from kernel import paths

    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        place = paths.open_in_root(root, name, flags)
    except SystemCallError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise ContainerError(f"/{name} of the image cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(place)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:  # overlayfs' whiteout
            return b""
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_ACCOUNTS_BYTES:
            raise ContainerError(f"/{name} of the image is not a regular file of at most {MAX_ACCOUNTS_BYTES} bytes")
        with open(f"/proc/self/fd/{place}", "rb") as file:  # what O_PATH found and fstat judged, and no other
            return file.read(MAX_ACCOUNTS_BYTES + 1)[:MAX_ACCOUNTS_BYTES]
    finally:
        os.close(place)


def _is_opaque(root: int, directory: str) -> bool:
    """Whether the layer hides the directory of the layers below, or has deleted it."""
    from kernel import paths

    try:
        place = paths.open_in_root(root, directory, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except SystemCallError:
        return False
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            return True
        return os.getxattr(f"/proc/self/fd/{place}", "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
    finally:
        os.close(place)
