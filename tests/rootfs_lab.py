"""Archives good and bad, and roots assembled in a child, for tests of rootfs/."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_uint
from pathlib import Path
from typing import Any

from kernel.operation import Assembly, Operation, run
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, clone3
from kernel.syscalls import SystemCall
from rootfs.files import write_all
from rootfs.mounts import BindRoot, MakePropagation

_RENAME_EXCHANGE = 2  # renameat2(2)
_ALL = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP


class Archive:
    """A tar, member by member; what the standard library refuses to write is written as raw bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, **fields: Any) -> Archive:
        """A member. `fields` are those of tarfile.TarInfo."""
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        self._bytes += info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + padded(data)
        return self

    def directory(self, name: str, **fields: Any) -> Archive:
        return self.add(name, kind=tarfile.DIRTYPE, **{"mode": 0o755, **fields})

    def symlink(self, name: str, target: str) -> Archive:
        return self.add(name, kind=tarfile.SYMTYPE, linkname=target)

    def hard_link(self, name: str, target: str) -> Archive:
        return self.add(name, kind=tarfile.LNKTYPE, linkname=target)

    def raw(self, data: bytes) -> Archive:
        self._bytes += data
        return self

    def extended(self, kind: bytes, data: bytes) -> Archive:
        """A pax or GNU header of type `kind` with `data` as it is."""
        return self.raw(header("extended", kind, len(data)) + padded(data))

    def bytes(self) -> bytes:
        """The archive with its end."""
        return bytes(self._bytes) + bytes(1024)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path


def header(name: str, kind: bytes = b"0", size: int | bytes = 0, **patches: bytes) -> bytes:
    """One ustar header block. `patches` replace fields, a `size` of bytes does, too."""
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "magic": 257}
    info = tarfile.TarInfo(name)
    if isinstance(size, bytes):
        patches["size"] = size
    else:
        info.size = size
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
    block[156:157] = kind
    for field, value in patches.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: str, value: str | bytes) -> bytes:
    """One pax record."""
    body = b" " + key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode()) + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


class BytesSource:
    """An archive in memory, for the header parser."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    @property
    def offset(self) -> int:
        return self._file.tell()

    def read(self, size: int) -> bytes:
        from rootfs.layers.tar_header import TarError

        data = self._file.read(size)
        if len(data) < size:
            raise TarError("the archive is truncated", self.offset)
        return data

    def skip(self, size: int) -> None:
        self.read(size)

    def copy(self, size: int, fd: int) -> None:
        write_all(fd, self.read(size))


class ChildError(Exception):
    """What a child raised: `kind` is the class's name."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def in_child(work: Callable[[], Any], flags: int = _ALL) -> Any:
    """What `work` returns, as JSON carries it, run in a child with namespaces of its own. Raises ChildError."""
    read, write = os.pipe()
    child = clone3(flags)
    if child.pid == 0:
        answer: dict[str, Any]
        try:
            answer = {"result": work()}
        except BaseException as error:
            message = str(error) if type(error).__module__ == "kernel.errors" else traceback.format_exc()
            answer = {"error": [type(error).__name__, message]}
        with os.fdopen(write, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    wait_pidfd(child.pidfd)
    os.close(child.pidfd)
    answer = json.loads(text)
    if "error" in answer:
        raise ChildError(*answer["error"])
    return answer["result"]


def assembled(root: Path, operations: Iterable[Operation], look: Callable[[Assembly], Any] = lambda _: None) -> Any:
    """What `look` sees after the operations were run on a bind of `root`, in a child."""
    operations = tuple(operations)

    def work() -> Any:
        assembly = Assembly()
        run((MakePropagation(), BindRoot(str(root)), *operations), assembly)
        return look(assembly)

    return in_child(work)


def tree(path: Path) -> dict[str, tuple[int, int, str]]:
    """What a directory holds: mode, inode and contents or target by path. Equal trees are untouched trees."""
    found = {}
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            full = Path(directory) / name
            status = full.lstat()
            held = os.readlink(full) if full.is_symlink() else full.read_text() if full.is_file() else ""
            found[str(full.relative_to(path))] = (status.st_mode, status.st_ino, held)
    return found


@contextmanager
def swapping(directory: Path, target: Path) -> Iterator[None]:
    """Another process that exchanges the directory `directory/x` for a link to `target` and back, all the time."""
    (directory / "x").mkdir()
    (directory / "y").symlink_to(target)
    exchange = SystemCall("renameat2", a=c_int, old=c_char_p, b=c_int, new=c_char_p, flags=c_uint)
    ready, started = os.pipe()
    swapper = os.fork()
    if swapper == 0:
        try:
            fd = os.open(directory, os.O_PATH)
            os.write(started, b"!")
            while True:
                exchange(fd, b"x", fd, b"y", _RENAME_EXCHANGE)
        finally:
            os._exit(1)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.close(ready)
        os.close(started)
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
