"""Container logs, the writing side: the CRI log format, bounded lines, rotation.

A line is `2026-01-02T03:04:05.678901234Z stdout F text`; tag P marks a piece of a line that was longer than
`LINE_LIMIT` or that its writer never ended, and its text continues in the stream's next entry. Attempt N of a container
writes N.log, which is renamed to N.log.1, N.log.2 … when it has grown to its limit, .1 the youngest.

Source: kubernetes/design-proposals-archive, node/kubelet-cri-logging.md
"""

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

from kernel.errors import BadInput, RawpodError
from kernel.record import Record

LINE_LIMIT = 16 * 1024
MAX_SIZE = 10 * 1024 * 1024
MAX_FILES = 5

# Only the last two attempts of a container are kept: a crash loop must not fill the disk.
KEPT_ATTEMPTS = 2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LogDirectory(Record):
    """Where a container's logs are. The names are single path components, checked when it is opened."""

    logs: Path
    pod: str
    container: str

    @classmethod
    def of(cls, logs: Path, namespace: str, name: str, uid: str, container: str) -> "LogDirectory":
        """LOGS/pods/NAMESPACE_NAME_UID/CONTAINER."""
        return cls(logs, f"{namespace}_{name}_{uid}", container)

    @property
    def path(self) -> Path:
        return self.logs / "pods" / self.pod / self.container

    def open(self) -> int:
        """Make what is missing and open it; a symbolic link or a stranger's directory on the way is refused."""
        for name in (self.pod, self.container):
            if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
                raise BadInput(f"log directory name {name!r} is not a file name")
        self.logs.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(self.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in ("pods", self.pod, self.container):
            fd = _descend(fd, name, self.path)
        return fd


def _descend(parent: int, name: str, path: Path) -> int:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o750, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise RawpodError(f"log directory {str(path)!r}: {name!r}: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        os.close(parent)
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise RawpodError(f"log directory {str(path)!r}: {name!r} belongs to another user")
    return fd


class LogWriter:
    """Writes the output of one attempt of a container.

    A full disk never stops the payload: what cannot be written is counted, and a line says so once there
    is space again.
    """

    def __init__(
        self, directory: LogDirectory, attempt: int, *, max_size: int = MAX_SIZE, max_files: int = MAX_FILES
    ) -> None:
        self._directory = directory.open()
        self._name = f"{attempt}.log"
        self._max_size, self._max_files = max_size, max_files
        self._pending: dict[str, bytes] = {}
        self._lost = 0
        self._second, self._date = -1, ""
        try:
            self._fd = self._open()
        except OSError as error:
            os.close(self._directory)
            raise RawpodError(f"log file {str(directory.path / self._name)!r}: {error.strerror}") from error
        self._size = os.fstat(self._fd).st_size
        _remove_attempts_before(self._directory, attempt - KEPT_ATTEMPTS + 1)

    def _open(self) -> int:
        # O_NONBLOCK: a FIFO planted here would otherwise block the open for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._name, flags, 0o640, dir_fd=self._directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file")
        return fd

    def write(self, stream: str, data: bytes) -> None:
        """Log what a stream ("stdout" or "stderr") delivered; an unfinished last line waits for its rest."""
        pending = self._pending.get(stream)
        if pending:
            data = pending + data
        entry = self._now() + b" " + stream.encode() + b" "
        full, partial = entry + b"F ", entry + b"P "
        between = b"\n" + full
        start = 0
        out: list[bytes] = []
        while True:
            # The last line end that leaves no line longer than the limit; replace() then makes all entries at once.
            end = data.rfind(b"\n", start, start + LINE_LIMIT + 1)
            if end >= 0:
                out += (full, data[start:end].replace(b"\n", between), b"\n")
                start = end + 1
            elif len(data) - start > LINE_LIMIT:
                out += (partial, data[start : start + LINE_LIMIT], b"\n")
                start += LINE_LIMIT
            else:
                break
        self._pending[stream] = data[start:]
        if out:
            self._append(b"".join(out))

    def _now(self) -> bytes:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second, self._date = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{self._date}.{nanoseconds:09}Z".encode()

    def _append(self, data: bytes) -> None:
        try:
            if self._size and self._size + len(data) > self._max_size:
                self._rotate()
            if self._lost:
                notice = self._now() + f" stderr F rawpod: {self._lost} bytes of log lost: no space left\n".encode()
                self._write_all(notice)
                self._lost = 0
            self._write_all(data)
        except OSError:
            self._lost += len(data)

    def _write_all(self, data: bytes) -> None:
        """All or nothing: an entry cut short by a full disk would spoil the next one."""
        written = os.write(self._fd, data)
        while written < len(data):
            try:
                written += os.write(self._fd, memoryview(data)[written:])
            except OSError:
                os.ftruncate(self._fd, self._size)
                raise
        self._size += len(data)

    def _rotate(self) -> None:
        directory = self._directory
        for index in range(self._max_files - 1, 0, -1):
            older = self._name if index == 1 else f"{self._name}.{index - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(older, f"{self._name}.{index}", src_dir_fd=directory, dst_dir_fd=directory)
        fd = self._open()
        os.close(self._fd)
        self._fd, self._size = fd, 0

    def close(self) -> None:
        """Write what was left without a line end, as tag P, and close."""
        for stream, pending in self._pending.items():
            if pending:
                self._append(self._now() + f" {stream} P ".encode() + pending + b"\n")
        self._pending.clear()
        os.close(self._fd)
        os.close(self._directory)


def parse_name(name: str) -> tuple[int, int] | None:
    """(attempt, age) of a log file's name: 2.log -> (2, 0), 2.log.1 -> (2, 1); None for any other file."""
    attempt, dot, rest = name.partition(".log")
    if not dot or not attempt.isdecimal() or not (rest == "" or (rest[0] == "." and rest[1:].isdecimal())):
        return None
    return int(attempt), int(rest[1:] or 0)


def _remove_attempts_before(directory: int, first: int) -> None:
    for name in os.listdir(directory):
        parsed = parse_name(name)
        if parsed and parsed[0] < first:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


def remove(logs: Path, uid: str) -> None:
    """Delete the logs of the pod with this uid, whatever its name was."""
    from rootfs.removal import remove_tree

    try:
        pods = os.open(logs / "pods", _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(pods):
            if name.endswith(f"_{uid}"):
                remove_tree(pods, name)  # which follows no link
    finally:
        os.close(pods)
