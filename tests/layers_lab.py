"""Everything that a layer has to carry of a tree, to compare trees by."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One file, directory, link or device. `twins` are all its names in the tree, where there are several."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    contents: str
    device: int
    attributes: dict[str, bytes]
    twins: tuple[str, ...]


def entries(root: Path, *, overlay: bool = False) -> dict[str, Entry]:
    """All of a tree by path, the root itself as ".". Overlay's own attributes count with `overlay`."""
    found: dict[str, Entry] = {}
    names: dict[tuple[int, int], list[str]] = {}
    paths = [Path(".")]
    for directory, below, files in os.walk(root):
        paths += [(Path(directory) / name).relative_to(root) for name in (*below, *files)]
    for path in paths:
        status = os.lstat(root / path)
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault((status.st_dev, status.st_ino), []).append(str(path))
    for path in paths:
        full = root / path
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        contents = ""
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                contents = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind == stat.S_IFLNK:
            contents = os.readlink(full)
        attributes = {
            name: os.getxattr(full, name, follow_symlinks=False)
            for name in os.listxattr(full, follow_symlinks=False)
            if name.startswith(("user.", "security.capability")) or (overlay and name.startswith("trusted."))
        }
        twins = sorted(names.get((status.st_dev, status.st_ino), []))
        found[str(path)] = Entry(
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if kind == stat.S_IFREG else 0,
            contents,
            status.st_rdev,
            attributes,
            tuple(twins) if len(twins) > 1 else (),
        )
    return found


def allocated(root: Path) -> int:
    """Bytes on disk of all regular files."""
    found = [(root / path).lstat() for path in entries(root)]
    return sum(status.st_blocks * 512 for status in found if stat.S_ISREG(status.st_mode))
