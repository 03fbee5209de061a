"""Writing tar headers: ustar, with pax records (POSIX.1-2008 pax(1)) for what ustar cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rootfs.layers.tar import BLOCK

_ID_MAX = 0o7777777  # seven octal digits
_SIZE_MAX = 0o77777777777  # eleven, as for the time


class Common(NamedTuple):
    """What every member has. Nanoseconds since 1970."""

    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


def encode(
    name: bytes,
    kind: str,
    common: Common = Common(),  # noqa: B008
    *,
    size: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
    records: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of one member, of which `size` bytes follow.

    Names of users and groups are left empty, so the same member gives the same bytes on every machine.
    """
    mode, uid, gid, mtime_ns = common
    pax = dict(records or {})
    prefix, short = _split(name)
    if not short or not name.isascii():
        pax[b"path"] = name
        prefix, short = b"", name.rstrip(b"/")[-90:]
    if len(link) > 100 or not link.isascii():
        pax[b"linkpath"] = link
        link = link[:90]
    seconds, fraction = divmod(mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds <= _SIZE_MAX:
        pax[b"mtime"] = _decimal(mtime_ns)
        seconds = min(max(seconds, 0), _SIZE_MAX)
    for key, value, most in ((b"uid", uid, _ID_MAX), (b"gid", gid, _ID_MAX), (b"size", size, _SIZE_MAX)):
        if value > most:
            pax[key] = b"%d" % value
    header = _block(
        short, kind, mode, min(uid, _ID_MAX), min(gid, _ID_MAX), min(size, _SIZE_MAX), seconds, link, major, minor,
        prefix,
    )  # fmt: skip
    return (_extended(pax) + header) if pax else header


def padding(size: int) -> bytes:
    """What fills a member's contents up to a whole block."""
    return bytes(-size % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """ustar's prefix and name; an empty name if `name` does not fit."""
    if len(name) <= 100:
        return b"", name
    # The slash between the two is not stored. One at the end, of a directory, stays with the name.
    slash = name.rfind(b"/", 0, 156 if len(name) > 156 else len(name) - 1)
    if slash < 1 or len(name) - slash - 1 > 100:
        return b"", b""
    return name[:slash], name[slash + 1 :]


def _block(
    name: bytes,
    kind: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    major: int,
    minor: int,
    prefix: bytes,
) -> bytes:
    start = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    end = b"%s%sustar\00000%s%07o\0%07o\0%s" % (
        kind.encode(),
        link.ljust(100, b"\0"),
        bytes(64),
        major,
        minor,
        prefix.ljust(167, b"\0"),
    )
    checksum = sum(start) + sum(end) + 8 * 32
    return b"%s%06o\0 %s" % (start, checksum, end)


def _extended(records: dict[bytes, bytes]) -> bytes:
    if not all(_is_utf8(records[key]) for key in (b"path", b"linkpath", b"GNU.sparse.name") if key in records):
        records = {b"hdrcharset": b"BINARY", **records}
    data = b"".join(_record(key, records[key]) for key in sorted(records, key=lambda key: (key != b"hdrcharset", key)))
    return _block(b"PaxHeaders/x", "x", 0o644, 0, 0, len(data), 0, b"", 0, 0, b"") + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    written = f"{'-' if nanoseconds < 0 else ''}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")
    return written.encode()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
