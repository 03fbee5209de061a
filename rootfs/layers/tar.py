"""Reading tar headers: ustar, GNU and pax (POSIX.1-2008 pax(1); GNU tar manual, "Tar Internals").

Only headers are read here, nothing is written. Every number that an archive states is checked against limits before
it is believed. tarfile of the standard library is left out on purpose: it has looped for ever on a crafted header, and
what it extracts has left its root, whatever filter was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from rootfs.layers.tar_header import (
    FIELDS,
    Fail,
    Header,
    TarError,
    byte_sum,
    checked_size,
    decimal,
    digits,
    failing,
    is_star,
    mtime,
    number,
    octal,
    parse_header,
    text,
    within,
)

BLOCK = 512

REGULAR, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_TYPES = frozenset({REGULAR, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})

_PATH_MAX = 4096
_EXTENSIONS_MAX = 16
_EXTENSIONS = frozenset({b"x", b"L", b"K", b"V"})
_ID_MAX = (1 << 32) - 2  # 2^32 - 1 means "leave as it is" to chown(2)


class Source(Protocol):
    """Where the archive comes from."""

    @property
    def offset(self) -> int:
        """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; TarError at the end."""

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""

    def copy(self, size: int, fd: int) -> None:
        """Write the next `size` bytes to descriptor `fd`."""


class HeaderLimits(NamedTuple):
    """`member_bytes` of one file as it will be on disk, `extended_bytes` of one pax or GNU long name header."""

    member_bytes: int
    extended_bytes: int
    segments: int


class Member(NamedTuple):
    """One entry. `stored` bytes of contents follow in the archive; `segments` (offset, length) place them if sparse."""

    name: str
    type: str
    link: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    stored: int
    major: int
    minor: int
    segments: tuple[tuple[int, int], ...] | None
    xattrs: dict[str, bytes]
    offset: int


def members(source: Source, limits: HeaderLimits) -> Iterator[Member]:
    """Every entry, up to the two blocks of zeros that end an archive.

    The caller reads or skips each one's `stored` bytes before it goes on; padding is passed over here.
    """
    common: dict[str, bytes] = {}
    while True:
        offset = source.offset
        block = source.read(BLOCK)
        member = None if common else _plain(block, offset, limits)
        if member is None:
            reader = _Extended(source, limits, dict(common))
            header = reader.header(block, offset)
            if header is None:
                return
            if header.type == "g":
                common = reader.check_global(header)
                continue
            member = reader.member(header)
        end = source.offset + member.stored
        yield member
        if source.offset != end:
            raise AssertionError("the contents of a member were not read to their end")
        if member.stored % BLOCK:
            source.skip(-member.stored % BLOCK)


_PLAIN = {b"0": REGULAR, b"1": HARD_LINK, b"2": SYMBOLIC_LINK, b"5": DIRECTORY}
_NONE: dict[str, bytes] = {}


def _plain(block: bytes, offset: int, limits: HeaderLimits) -> Member | None:
    """The member of a header that says everything itself, as most do. None for all others, good or bad."""
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, _, _, prefix, _) = FIELDS.unpack(block)
    type = _PLAIN.get(kind)
    name = name.partition(b"\0")[0]
    if type is None or magic[:5] != b"ustar" or (type == REGULAR and name[-1:] == b"/") or is_star(block):
        return None
    try:
        owner, group, length = octal(uid), octal(gid), octal(size)
        if octal(checksum) != byte_sum(block) or length > limits.member_bytes or max(owner, group) > _ID_MAX:
            return None
        time, permissions = octal(mtime) * 1_000_000_000, octal(mode) & 0o7777
    except ValueError:
        return None
    if prefix[0] and magic == b"ustar\0":
        name = prefix.partition(b"\0")[0] + b"/" + name
    if type != REGULAR:
        length = 0
    target = text(link.partition(b"\0")[0]) if link[0] else ""
    return Member(
        text(name), type, target, permissions, owner, group, time, length, length, 0, 0, None, _NONE, offset
    )  # fmt: skip


class _Extended:
    """One member's headers: those that extend (x, L, K) and the one they are about."""

    def __init__(self, source: Source, limits: HeaderLimits, records: dict[str, bytes]) -> None:
        self.source = source
        self.limits = limits
        self.records = records
        self.sparse_pairs: list[bytes] = []
        self.long_name = ""
        self.long_link = ""

    def header(self, block: bytes, offset: int) -> Header | None:
        """The first header from `block` on that is not an extension, None at the end of the archive."""
        extended = 0
        while extended <= _EXTENSIONS_MAX:
            if not any(block):
                if extended:
                    raise TarError("the archive ends behind an extended header", offset)
                return None
            kind = block[156:157]
            if kind not in _EXTENSIONS:
                return parse_header(block, offset)
            data = self._contents(checked_size(block, offset), offset)
            if kind == b"x":
                self.records.update(self._pax(data, offset))
            elif kind == b"L":
                self.long_name = text(data.split(b"\0", 1)[0])
            elif kind == b"K":
                self.long_link = text(data.split(b"\0", 1)[0])
            else:
                extended -= 1  # GNU's volume label names the archive, not a file
            extended += 1
            offset, block = self.source.offset, self.source.read(BLOCK)
        raise TarError(f"more than {_EXTENSIONS_MAX} extended headers for one member", self.source.offset)

    def check_global(self, header: Header) -> dict[str, bytes]:
        """The records of a pax "g" header, for all members that follow."""
        records = self._pax(self._contents(header.size, header.offset), header.offset)
        for key in ("path", "linkpath", "size"):
            if key in records:
                raise TarError(f"a global header sets {key!r} for every member", header.offset)
        merged = {**self.records, **records}
        if sum(map(len, merged.values())) + sum(map(len, merged)) > self.limits.extended_bytes:
            raise TarError(f"global headers of more than {self.limits.extended_bytes} bytes", header.offset)
        return merged

    def _contents(self, size: int, offset: int) -> bytes:
        if size > self.limits.extended_bytes:
            reason = f"extended header of {size} bytes is over {self.limits.extended_bytes}"
            raise TarError(reason, offset, limit="header-size")
        data = self.source.read(size)
        self.source.skip(-size % BLOCK)
        return data

    def _pax(self, data: bytes, offset: int) -> dict[str, bytes]:
        records: dict[str, bytes] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 20)
            length = data[at:space]
            if space < 0 or not length.isdigit() or int(length) <= len(length) + 1:
                if not data[at:].strip(b"\0"):
                    break
                raise TarError("pax record without a length", offset)
            end = at + int(length)
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
                raise TarError("malformed pax record", offset)
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                self.sparse_pairs.append(value)
            records[text(key)] = value
            at = end
        charset = records.get("hdrcharset", b"BINARY")
        if charset not in (b"BINARY", b"ISO-IR 10646 2000 UTF-8"):
            raise TarError(f"pax header in character set {text(charset)!r}", offset)
        return records

    def member(self, header: Header) -> Member:
        """The member, with all that its headers say put together."""
        records = self.records
        name = self._name(header)
        fail = failing(header.offset, name)
        kind = REGULAR if header.type in ("0", "\0", "7", "S") else header.type
        if kind not in _TYPES:
            raise fail(f"member of type {header.type!r} is not supported")
        if kind == REGULAR and name.endswith("/"):
            kind = DIRECTORY  # as archives older than ustar have it
        link = text(records["linkpath"]) if "linkpath" in records else self.long_link or header.link
        stored = decimal(records, "size", header.size, fail)
        if kind in (HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, FIFO, DIRECTORY) and stored:
            # Some writers state a linked file's size again. Contents follow only a pax hard link, which nobody writes.
            stored = 0
        for path, what in ((name, "name"), (link, "link target")):
            if "\0" in path or len(path) > _PATH_MAX:
                raise fail(f"the {what} holds a zero byte or is over {_PATH_MAX} characters")
        size, stored, segments = self._sparse(header, stored, fail)
        if max(size, stored) > self.limits.member_bytes:
            reason = f"{max(size, stored)} bytes are over the limit of {self.limits.member_bytes} for one file"
            raise TarError(reason, header.offset, name, limit="file-size")
        return Member(
            name=name,
            type=kind,
            link=link,
            mode=header.mode & 0o7777,
            uid=within(decimal(records, "uid", header.uid, fail), _ID_MAX, "uid", fail),
            gid=within(decimal(records, "gid", header.gid, fail), _ID_MAX, "gid", fail),
            mtime_ns=mtime(records, header.mtime, fail),
            size=size,
            stored=stored,
            major=header.major,
            minor=header.minor,
            segments=segments,
            xattrs={
                key.removeprefix("SCHILY.xattr."): value
                for key, value in records.items()
                if key.startswith("SCHILY.xattr.")
            },
            offset=header.offset,
        )

    def _name(self, header: Header) -> str:
        for key in ("GNU.sparse.name", "path"):
            if key in self.records:
                return text(self.records[key])
        return self.long_name or header.name

    def _sparse(self, header: Header, stored: int, fail: Fail) -> tuple[int, int, tuple[tuple[int, int], ...] | None]:
        """(size on disk, bytes that follow, where they go) of a file with or without holes."""
        records = self.records
        if header.type == "S":
            numbers = self._old_gnu_map(header, fail)
            size = number(header.raw[483:495], header.offset)
        elif records.get("GNU.sparse.major") == b"1":
            before = self.source.offset
            numbers = self._map_in_contents(fail)
            stored -= self.source.offset - before
            size = decimal(records, "GNU.sparse.realsize", -1, fail)
        elif "GNU.sparse.map" in records or self.sparse_pairs:
            listed = records["GNU.sparse.map"].split(b",") if "GNU.sparse.map" in records else self.sparse_pairs
            numbers = [digits(item, fail) for item in listed[: 2 * self.limits.segments + 2]]
            size = decimal(records, "GNU.sparse.size", -1, fail)
        else:
            return stored, stored, None
        if len(numbers) % 2 or len(numbers) // 2 > self.limits.segments:
            raise fail(f"sparse map of {len(numbers)} numbers (at most {self.limits.segments} pairs)")
        segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        end = 0
        for start, length in segments:
            if start < end or length < 0:
                raise fail("sparse map is not in order")
            end = start + length
        if end > size or sum(length for _, length in segments) != stored:
            raise fail("sparse map does not fit the file")
        return size, stored, segments

    def _old_gnu_map(self, header: Header, fail: Fail) -> list[int]:
        numbers: list[int] = []
        block, first, count, more = header.raw, 386, 4, 482
        while True:
            for at in range(first, first + 24 * count, 24):
                if block[at : at + 24].strip(b"\0 "):
                    numbers += [
                        number(block[at : at + 12], header.offset),
                        number(block[at + 12 : at + 24], header.offset),
                    ]
            if not block[more]:
                return numbers
            if len(numbers) > 2 * self.limits.segments:
                raise fail(f"sparse map of more than {self.limits.segments} pairs")
            block, first, count, more = self.source.read(BLOCK), 0, 21, 504

    def _map_in_contents(self, fail: Fail) -> list[int]:
        """The map of GNU's sparse format 1.0: decimal lines, the first their number, filled up to whole blocks."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            *complete, rest = (rest + self.source.read(BLOCK)).split(b"\n")
            lines += complete
            if lines:
                wanted = 1 + 2 * within(digits(lines[0], fail), self.limits.segments, "number of segments", fail)
            if len(rest) > BLOCK:
                raise fail("malformed sparse map")
        return [digits(line, fail) for line in lines[1:wanted]]
