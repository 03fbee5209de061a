"""The numbers and texts of tar headers, none of them believed before it was checked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s6s2s64s8s8s155s12s")
"""name, mode, uid, gid, size, mtime, checksum, type, link, magic, version, owners' names, major, minor, prefix."""

_TIME_MAX = 1 << 40  # seconds: what filesystems can hold is less


class TarError(Exception):
    """The archive is damaged or malicious. `offset` is in bytes of the uncompressed archive, `member` where known.

    `limit` is the key of limits.toml that it goes over, if it does.
    """

    def __init__(self, reason: str, offset: int, member: str = "", *, limit: str = "") -> None:
        super().__init__(reason)
        self.limit = limit
        self.reason = reason
        self.offset = offset
        self.member = member


class Header(NamedTuple):
    """One block of 512 bytes, decoded."""

    name: str
    type: str
    link: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    major: int
    minor: int
    raw: bytes
    offset: int


Fail = Callable[[str], TarError]


def failing(offset: int, name: str) -> Fail:
    """Makes the errors about one member."""
    return lambda reason: TarError(reason, offset, name)


def parse_header(block: bytes, offset: int) -> Header:
    """Decode one header block. Raises TarError if it is none."""
    (name, mode, uid, gid, _, time, _, kind, link, magic, _, _, major, minor, prefix, _) = FIELDS.unpack(block)
    length = checked_size(block, offset)
    shown = text(name.partition(b"\0")[0])
    if magic == b"ustar\0" and prefix[0]:
        # star has times behind a shorter prefix (star(5)).
        start = text((prefix[:131] if is_star(block) else prefix).partition(b"\0")[0])
        shown = f"{start}/{shown}"
    if magic[:5] != b"ustar":
        major = minor = b"\0"
    return Header(
        shown,
        chr(kind[0]),
        text(link.partition(b"\0")[0]),
        number(mode, offset),
        number(uid, offset),
        number(gid, offset),
        number(time, offset),
        length,
        number(major, offset),
        number(minor, offset),
        block,
        offset,
    )


def checked_size(block: bytes, offset: int) -> int:
    """What a header says of the bytes that follow. Raises TarError if it is no header."""
    checksum = number(block[148:156], offset)
    if checksum != byte_sum(block) and checksum != _signed_sum(block):
        raise TarError("not a tar header, or a damaged one: the checksum differs", offset)
    size = number(block[124:136], offset)
    if size < 0:
        raise TarError(f"size of {size} bytes", offset, text(block[:100].partition(b"\0")[0]))
    return size


def is_star(block: bytes) -> bool:
    """Whether Schilling's star wrote it, in its own format."""
    return block[508:] == b"tar\0"


def byte_sum(block: bytes) -> int:
    """The checksum of a header: the sum of its bytes, those of the checksum itself taken for spaces."""
    # The low half of an Adler-32 is one more than the sum modulo 65521, which 256 bytes do not reach.
    whole = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    return whole - sum(block[148:156]) + 8 * 32


def _signed_sum(block: bytes) -> int:
    """As some old programs have it, whose bytes were signed (GNU tar manual, "Basic Tar Format")."""
    high = sum(byte >= 0x80 for byte in block[:148]) + sum(byte >= 0x80 for byte in block[156:])
    return byte_sum(block) - 256 * high


def number(field: bytes, offset: int) -> int:
    """A number of a header: octal text, or GNU's base 256 where the first bit is set."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return octal(field)
    except ValueError as error:
        raise TarError(f"{error} is not an octal number", offset) from None


@lru_cache(maxsize=4096)
def octal(field: bytes) -> int:
    """An octal number, 0 for none. Raises ValueError. Owners, modes and times are the same again and again."""
    written = field.split(b"\0", 1)[0].strip()
    if not written:
        return 0
    if written.strip(b"01234567"):
        raise ValueError(repr(text(written)))
    return int(written, 8)


def digits(value: bytes, fail: Fail) -> int:
    """A decimal number of a pax record."""
    if not value.isdigit() or len(value) > 20:
        raise fail(f"{text(value[:40])!r} is not a number")
    return int(value)


def decimal(records: Mapping[str, bytes], key: str, default: int, fail: Fail) -> int:
    """The number of record `key`, or `default`; never negative."""
    value = digits(records[key], fail) if key in records else default
    if value < 0:
        raise fail(f"{key} of {value}")
    return value


def within(value: int, most: int, what: str, fail: Fail) -> int:
    """`value`, which is at most `most`."""
    if value > most:
        raise fail(f"{what} {value} is over {most}")
    return value


def mtime(records: Mapping[str, bytes], default: int, fail: Fail) -> int:
    """Nanoseconds since 1970. pax writes a decimal fraction."""
    if "mtime" not in records:
        seconds, nanoseconds = default, 0
    else:
        written = text(records["mtime"])
        whole, _, fraction = written.removeprefix("-").partition(".")
        if not (whole + fraction).isdecimal() or not whole or len(written) > 64:
            raise fail(f"mtime {written[:64]!r} is not a number")
        seconds, nanoseconds = int(whole), int((fraction + "0" * 9)[:9])
        if written.startswith("-"):
            seconds, nanoseconds = -seconds, -nanoseconds
    if abs(seconds) > _TIME_MAX:
        raise fail(f"mtime {seconds} is out of range")
    return seconds * 1_000_000_000 + nanoseconds


def text(data: bytes) -> str:
    """A name as Python has it."""
    # As os.fsdecode(), whatever the locale: every byte comes back as it was.
    return data.decode("utf-8", "surrogateescape")
