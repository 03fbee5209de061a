"""Container logs, the reading side: the last lines, and following with inotify(7)."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kernel.record import Record
from runtime.pod.logs import parse_name

_CHUNK = 256 * 1024

# Files that a reader who falls behind keeps open although they were rotated away: 160 MiB at the usual size.
_KEPT_OPEN = 16
_GAP = b"rawpod: the log was rotated faster than it was read, lines are missing here"


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
        self.inode = os.fstat(self.fd).st_ino
        self.attempt = path.name.partition(".")[0]
        self.after_gap = False
        self._rest = b""

    def go_back(self, lines: int) -> int:
        """Begin with the last `lines` lines; how many there are."""
        offset, count = tail_offset(self.fd, lines) if lines > 0 else (os.fstat(self.fd).st_size, 0)
        os.lseek(self.fd, offset, os.SEEK_SET)
        return count

    def entries(self, before_chunk: Callable[[], None] = lambda: None) -> Iterator[Entry]:
        """Everything up to the present end; `before_chunk` is called again and again on the way."""
        while data := os.read(self.fd, _CHUNK):
            before_chunk()
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            yield from (entry for line in lines if (entry := parse(line)) is not None)

    def close(self) -> None:
        os.close(self.fd)


def read(directory: Path, *, tail: int | None = None, back: int = 0) -> Iterator[Entry]:
    """The entries of the latest attempt or of the one `back` before it, all of them or the last `tail` lines."""
    with contextlib.closing(Reader(directory)) as reader:
        yield from reader.begin(tail, back)


def attempts(directory: Path) -> list[int]:
    """The numbers of the attempts that there are logs of, latest first."""
    parsed = (parse_name(path.name) for path in files(directory))
    return sorted({one[0] for one in parsed if one is not None}, reverse=True)


def _of_attempt(directory: Path, back: int) -> list[Path]:
    numbers = attempts(directory)[back : back + 1]
    return [path for path in files(directory) if numbers and path.name.startswith(f"{numbers[0]}.log")]


class Source(Record):
    """A container's log to follow.

    `ended` is asked whenever something changed in the log directory or in `watched`, the directory whose files tell
    the container's state; entries written before it became true are still delivered.
    """

    directory: Path
    watched: Path | None
    ended: Callable[[], bool]


def follow(
    directory: Path, *, tail: int | None = None, watched: Path | None = None, ended: Callable[[], bool] = lambda: False
) -> Iterator[Entry]:
    """As `read`, then what is written from now on, over rotations and restarts, until `ended()`."""
    for _, entry in follow_all([Source(directory, watched, ended)], tail=tail):
        yield entry


def follow_all(sources: list[Source], *, tail: int | None = None) -> Iterator[tuple[Source, Entry]]:
    """Several logs at once, each as `follow` does, until all have ended."""
    from kernel import inotify

    notify = inotify.inotify_init1()
    live = [(source, Reader(source.directory)) for source in sources]
    try:
        for source in sources:
            mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
            inotify.inotify_add_watch(notify, source.directory, mask)
            if source.watched is not None and source.watched.is_dir():
                mask = inotify.IN_MOVED_TO | inotify.IN_DELETE | inotify.IN_DELETE_SELF
                inotify.inotify_add_watch(notify, source.watched, mask)
        for source, reader in live:
            for entry in reader.begin(tail):
                yield source, entry
        while live:
            for source, reader in list(live):
                over = source.ended()
                for entry in reader.drain():
                    yield source, entry
                if over:
                    reader.close()
                    live.remove((source, reader))
            if live:
                inotify.read_changes(notify)
    finally:
        for _, reader in live:
            reader.close()
        os.close(notify)


class Reader:
    """Goes through a container's files from older to younger; `_cursor` is in the oldest one not read to its end.

    Younger files are opened as they are noticed, also while one is read: what is open can be rotated away.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cursor: _Cursor | None = None
        self._younger: deque[_Cursor] = deque()

    def begin(self, tail: int | None, back: int = 0) -> Iterator[Entry]:
        """The latest attempt (or the one `back` before it) up to its present end, or the last `tail` lines of it."""
        cursors: list[_Cursor] = []
        try:
            wanted = tail
            for path in reversed(_of_attempt(self._directory, back)):
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
            self.notice()
            over = bool(self._younger)
            if self._cursor is not None:
                yield from self._cursor.entries(self.notice)
            if not over:
                return
            cursor = self._younger.popleft()
            self._go_on(cursor)
            if cursor.after_gap:
                yield Entry(_now(), "stderr", True, _GAP)

    def notice(self) -> None:
        """Open the files that came after the youngest one known, as long as there are not too many."""
        while len(self._younger) < _KEPT_OPEN:
            known = self._younger[-1] if self._younger else self._cursor
            order = _order(self._directory)
            inodes = [inode for inode, _ in order]
            at = inodes.index(known.inode) + 1 if known is not None and known.inode in inodes else 0
            if at == len(order):
                return
            with contextlib.suppress(FileNotFoundError):
                cursor = _Cursor(order[at][1])
                if cursor.inode == order[at][0]:
                    # The youngest one known was rotated out of existence, and others may have been with it.
                    cursor.after_gap = known is not None and at == 0 and cursor.attempt == known.attempt
                    self._younger.append(cursor)
                else:  # another has its name by now: look once more
                    cursor.close()

    def _go_on(self, cursor: _Cursor) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = cursor

    def close(self) -> None:
        for cursor in (self._cursor, *self._younger):
            if cursor is not None:
                cursor.close()
        self._cursor = None
        self._younger.clear()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())


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
