"""Writing a regular file as a member of a tar: its contents, and where there are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from rootfs.copy import data_ranges
from rootfs.layers.tar import REGULAR
from rootfs.layers.tar_write import Common, encode, padding

Write = Callable[[bytes], object]

_CHUNK = 1 << 20
_SEGMENTS_MAX = 65_536
_HOLES_MIN = 1 << 20


def write_file(
    write: Write,
    name: bytes,
    fd: int,
    status: os.stat_result,
    common: Common,
    records: Mapping[bytes, bytes],
    missing: Callable[[int], bytes],
) -> None:
    """Write the file behind `fd` as `status` has it, headers and contents; holes of a megabyte are not written out.

    `missing` gives what stands for up to as many bytes that were cut off meanwhile, or raises.
    """
    size = status.st_size
    segments = _segments(fd, size) if size - status.st_blocks * 512 >= _HOLES_MIN else None
    if segments is None:
        write(encode(name, REGULAR, common, size=size, records=records))
        _write_contents(write, fd, size, missing)
        write(padding(size))
        return
    # image-spec would rather not have sparse members; Go's archive/tar, which the others use, reads this form.
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    data = b"".join(b"%d\n" % number for number in numbers)
    data += padding(len(data))
    stored = sum(length for _, length in segments)
    sparse = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }
    shown = b"GNUSparseFile.0/" + name.rpartition(b"/")[2][:80]
    write(encode(shown, REGULAR, common, size=len(data) + stored, records={**records, **sparse}) + data)
    for start, length in segments:
        os.lseek(fd, start, os.SEEK_SET)
        _write_contents(write, fd, length, missing)
    write(padding(stored))


def _write_contents(write: Write, fd: int, size: int, missing: Callable[[int], bytes]) -> None:
    while size:
        wanted = min(size, _CHUNK)
        data = os.read(fd, wanted) or missing(wanted)
        write(data)
        size -= len(data)


def _segments(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Where a file with holes has data, GNU's form: the last pair is its end. None if it has too many pieces."""
    found: list[tuple[int, int]] = []
    for start, end in data_ranges(fd, size):
        found.append((start, end - start))
        if len(found) >= _SEGMENTS_MAX:
            return None
    found.append((size, 0))
    return found
