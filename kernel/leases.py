"""Names that one owner has at a time, as files: leases that survive crashes, and allocation among many processes.

A lease is one inode with two names, `OWNERS/OWNER` and `NAMES/NAME`. link(2) makes the second name only where it is
free, so nothing is given twice, and a process killed at any step leaves either no lease or one that is found by its
owner. What the file holds (the owner, then the name) is for readers; the names and the inode are the truth.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel import events

Candidates = Callable[[int], Iterable[tuple[int, str]]]
"""From the number given last (0 for none) to all names in the order they are to be tried, each with its number."""


class Leases:
    """The leases below three paths; `kind` says in the event stream what is leased."""

    def __init__(self, owners: Path, names: Path, cursor: Path, kind: str) -> None:
        self._owners, self._names, self._cursor, self._kind = owners, names, cursor, kind

    def acquire(self, owner: str, candidates: Candidates) -> str | None:
        """The owner's name: the one it has, or the first that is free; None when none is.

        Callers who go on after the number given last (next fit) let what was just freed rest for as long as possible.
        """
        file = self._owners / owner
        with self._locked() as cursor:
            name = self.find(owner)
            if name is not None:
                return name
            with self._reported("lease", uid=owner):
                file.write_text(f"{owner}\n")
            found = self._link_first(file, candidates(_read_number(cursor)))
            if found is None:
                file.unlink()
                return None
            number, name = found
            os.pwrite(cursor, b"%010d\n" % number, 0)
            with self._reported("lease", uid=owner, name=name):
                file.write_text(f"{owner}\n{name}\n")
        return name

    def find(self, owner: str) -> str | None:
        """The owner's name, if it has one."""
        file = self._owners / owner
        try:
            status = file.stat()
            hint = file.read_bytes().split(b"\n")[1:2]
        except FileNotFoundError:
            return None
        if status.st_nlink < 2:
            return None
        if hint and hint[0]:
            try:
                name = hint[0].decode()
                if "/" not in name and os.path.samestat((self._names / name).stat(), status):
                    return name
            except (OSError, ValueError):
                pass  # the file was damaged: the inode tells
        return next((entry.name for entry in entries(self._names) if entry.inode() == status.st_ino), None)

    def release(self, owner: str) -> None:
        """Free the owner's name; nothing to do where it has none."""
        file = self._owners / owner
        if not file.exists():
            return
        with self._locked():
            name = self.find(owner)
            if name is not None:
                with self._reported("release", uid=owner, name=name):
                    (self._names / name).unlink(missing_ok=True)
            with self._reported("release", uid=owner):
                file.unlink(missing_ok=True)

    def all(self) -> dict[str, str]:
        """Every lease: name to owner. One whose owner's name is gone is known by what the file says, or as ""."""
        owners = {entry.inode(): entry.name for entry in entries(self._owners)}
        return {entry.name: owners.get(entry.inode()) or _first_line(entry.path) for entry in entries(self._names)}

    def forget(self, name: str) -> None:
        """Free a name whose owner's name is gone."""
        with self._reported("release", name=name):
            (self._names / name).unlink(missing_ok=True)

    def empty(self) -> bool:
        """Whether nothing is leased."""
        return not entries(self._names)

    def _link_first(self, file: Path, candidates: Iterable[tuple[int, str]]) -> tuple[int, str] | None:
        taken: frozenset[str] = frozenset()
        for number, name in candidates:
            if name in taken:
                continue
            try:
                with self._reported("link", name=name):
                    os.link(file, self._names / name)
                return number, name
            except FileExistsError:
                taken = frozenset(os.listdir(self._names))
        return None

    def _reported(self, what: str, *, uid: str = "", name: str = "") -> events.report:
        given = {"uid": uid, self._kind: name}
        return events.report(what, **{key: value for key, value in given.items() if value})

    @contextmanager
    def _locked(self) -> Iterator[int]:
        for directory in (self._names, self._owners):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._cursor, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def entries(directory: Path) -> list[os.DirEntry[str]]:
    """What is in a directory; nothing where there is none."""
    try:
        with os.scandir(directory) as found:
            return list(found)
    except FileNotFoundError:
        return []


def _read_number(fd: int) -> int:
    text = os.pread(fd, 16, 0).strip()
    return int(text) if text.isdigit() else 0


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""
