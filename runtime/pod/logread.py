"""Container logs, the reading side: the last lines, and following with inotify(7)."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from runtime.pod.logs import parse_name

_CHUNK = 256 * 1024


class Entry(NamedTuple):
    """One entry: RFC 3339 time, "stdout" or "stderr", whether its text ends a line, and the text."""

    time: str
    stream: str
    full: bool
    text: bytes

    @property
    def output(self) -> bytes:
        """What the payload wrote: the line end belongs to full entries only."""
        return self.text + b"\n" if self.full else self.text


def parse(line: bytes) -> Entry | None:
    """One line of a log file without its line end; None if it is not in the format, as one torn by a crash."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr") or parts[2][:1] not in (b"F", b"P"):
        return None
    return Entry(parts[0].decode("ascii", "replace"), parts[1].decode(), parts[2][:1] == b"F", parts[3])


def files(directory: Path) -> list[Path]:
    """All log files of a container, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if (parsed := parse_name(name)) is not None:
                found.append(((parsed[0], -parsed[1]), directory / name))
    return [path for _, path in sorted(found)]


def tail_offset(fd: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of an open file begin, and how many lines there are from there."""
    end = os.fstat(fd).st_size
    position, found = end, 0
    while position > 0:
        start = max(0, position - _CHUNK)
        block = os.pread(fd, position - start, start)
        at = len(block)
        # The line end of the last line ends it; it does not begin another one.
        if position == end and block.endswith(b"\n"):
            at -= 1
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return start + at + 1, lines
        position = start
    return 0, found + (1 if end else 0)


class _Cursor:
    """Reads one file from a position on, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._rest = b""

    @property
    def inode(self) -> int:
        return os.fstat(self.fd).st_ino

    def go_back(self, lines: int) -> int:
        """Begin with the last `lines` lines; how many there are."""
        offset, count = tail_offset(self.fd, lines) if lines > 0 else (os.fstat(self.fd).st_size, 0)
        os.lseek(self.fd, offset, os.SEEK_SET)
        return count

    def entries(self) -> Iterator[Entry]:
        """Everything up to the present end."""
        while data := os.read(self.fd, _CHUNK):
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            yield from (entry for line in lines if (entry := parse(line)) is not None)

    def close(self) -> None:
        os.close(self.fd)


def read(directory: Path, *, tail: int | None = None) -> Iterator[Entry]:
    """The entries of the latest attempt, all of them or the last `tail` lines."""
    with contextlib.closing(Reader(directory)) as reader:
        yield from reader.begin(tail)


def _latest_attempt(directory: Path) -> list[Path]:
    paths = files(directory)
    attempt = paths[-1].name.partition(".")[0] if paths else ""
    return [path for path in paths if path.name.partition(".")[0] == attempt]


def follow(
    directory: Path, *, tail: int | None = None, watched: Path | None = None, ended: Callable[[], bool] = lambda: False
) -> Iterator[Entry]:
    """As `read`, then what is written from now on, over rotations and restarts, until `ended()`.

    `ended` is asked whenever something changed in the log directory or in `watched`, the directory whose files tell
    the container's state; entries written before it became true are still delivered.
    """
    from kernel import inotify

    notify = inotify.inotify_init1()
    reader = Reader(directory)
    try:
        mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
        inotify.inotify_add_watch(notify, directory, mask)
        if watched is not None and watched.is_dir():
            inotify.inotify_add_watch(notify, watched, inotify.IN_MOVED_TO | inotify.IN_DELETE | inotify.IN_DELETE_SELF)
        yield from reader.begin(tail)
        while True:
            over = ended()
            yield from reader.drain()
            if over:
                return
            inotify.read_changes(notify)
    finally:
        reader.close()
        os.close(notify)


class Reader:
    """Goes through a container's files from older to younger; `_cursor` is in the youngest one reached."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cursor: _Cursor | None = None

    def begin(self, tail: int | None) -> Iterator[Entry]:
        """The latest attempt up to its present end, or the last `tail` lines of it."""
        cursors: list[_Cursor] = []
        try:
            wanted = tail
            for path in reversed(_latest_attempt(self._directory)):
                if cursors and wanted is not None and wanted <= 0:
                    break
                with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
                    cursors.append(_Cursor(path))
                    if wanted is not None:
                        wanted -= cursors[-1].go_back(wanted)
            while cursors:
                self._go_on(cursors.pop())
                assert self._cursor is not None
                yield from self._cursor.entries()
        finally:
            for cursor in cursors:
                cursor.close()

    def drain(self) -> Iterator[Entry]:
        """Everything there is now, in younger files, too."""
        while True:
            # Looked up before reading: a file that has a younger one by now receives nothing after the read below.
            younger = _younger(self._directory, self._cursor)
            if self._cursor is not None:
                yield from self._cursor.entries()
            if younger is None:
                return
            self._go_on_with(*younger)

    def _go_on_with(self, inode: int, path: Path) -> None:
        """Go on with that file; with nothing if another has its name by now, so that the caller looks once more."""
        with contextlib.suppress(FileNotFoundError):
            cursor = _Cursor(path)
            if cursor.inode == inode:
                self._go_on(cursor)
            else:
                cursor.close()

    def _go_on(self, cursor: _Cursor) -> None:
        self.close()
        self._cursor = cursor

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


def _younger(directory: Path, cursor: _Cursor | None) -> tuple[int, Path] | None:
    """Inode and name of the file after the one being read.

    The oldest there is, when the one being read was rotated out of existence.
    """
    order = _order(directory)
    inodes = [inode for inode, _ in order]
    if cursor is None or cursor.inode not in inodes:
        return order[0] if order else None
    following = inodes.index(cursor.inode) + 1
    return order[following] if following < len(order) else None


def _order(directory: Path) -> list[tuple[int, Path]]:
    """Inode and name of every file, oldest first, at one moment: a rotation renames all of them in turn."""
    before: list[tuple[int, Path]] | None = None
    while True:
        try:
            now = [(path.stat(follow_symlinks=False).st_ino, path) for path in files(directory)]
        except FileNotFoundError:
            before = None
            continue
        if now == before:
            return now
        before = now
