"""How much of a disk a directory takes."""

from __future__ import annotations

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512  # of st_blocks, whatever the filesystem's own are (stat(2))


def usage(path: str) -> int:
    """The bytes that the tree below `path` takes on its filesystem, files of several names once, holes not at all.

    By descriptors, one at a time, so that a tree of any depth is measured; a directory that is moved away while it is
    measured ends the walk, and what was found until then is the answer. What cannot be opened any more is passed over.
    """
    seen: set[int] = set()
    held = os.open(path, _DIRECTORY)
    try:
        top = os.fstat(held)
        total, names = _listed(held, top.st_dev, seen)
        levels = [(top.st_ino, names)]
        while True:
            names = levels[-1][1]
            if names:
                try:
                    below = os.open(names.pop(), _DIRECTORY, dir_fd=held)
                except OSError:
                    continue
                os.close(held)
                held = below
                size, inner = _listed(held, top.st_dev, seen)
                total += size
                levels.append((os.fstat(held).st_ino, inner))
                continue
            levels.pop()
            if not levels:
                return total
            above = os.open("..", _DIRECTORY, dir_fd=held)
            os.close(held)
            held = above
            status = os.fstat(held)
            if (status.st_dev, status.st_ino) != (top.st_dev, levels[-1][0]):
                return total
    finally:
        os.close(held)


def _listed(directory: int, device: int, seen: set[int]) -> tuple[int, list[str]]:
    """What a directory and its files take, and its directories that are on `device`."""
    total = os.fstat(directory).st_blocks * _BLOCK
    names: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if status.st_dev != device:
                continue
            if stat.S_ISDIR(status.st_mode):
                names.append(entry.name)
            elif status.st_nlink == 1 or status.st_ino not in seen:
                total += status.st_blocks * _BLOCK
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
    return total, names
