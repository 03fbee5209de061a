"""Unpacking the tar of a root filesystem in a process of its own, with limits on everything an archive can claim."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Self

from kernel.credentials import set_parent_death_signal
from kernel.errors import RawpodError, SystemCallError
from kernel.pidfd import pidfd_open
from rootfs.layers.extract import Extractor
from rootfs.layers.tar import HeaderLimits, Member, members
from rootfs.layers.tar_header import TarError

_CHUNK = 1 << 20
_BUFFER = 1 << 16  # small reads are for headers; what was read ahead is lost to a damaged end
_MEMORY_MAX = 1 << 30  # address space of the worker, bytes; zstd's largest window takes an eighth of it

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
}


class LayerError(RawpodError):
    """A layer was refused or damaged. Names the layer, the member and the offset in bytes of the uncompressed tar."""

    def __init__(
        self, layer: str, reason: str, *, offset: int | None = None, member: str = "", remedy: str | None = None
    ):
        where = "" if offset is None else f" at offset {offset}"
        which = f", member {member!r}" if member else ""
        super().__init__(f"layer {layer!r}{where}{which}: {reason}")
        self.layer = layer
        self.reason = reason
        self.offset = offset
        self.member = member


class Limits(NamedTuple):
    """What one layer may ask for. Sizes in bytes, uncompressed; `deadline` in seconds for the whole of it."""

    total_bytes: int = 64 << 30
    member_bytes: int = 16 << 30
    entries: int = 2_000_000
    extended_bytes: int = 1 << 20
    segments: int = 65_536
    deadline: float = 1800.0


class Unpacked(NamedTuple):
    """What came of it: sha256 of the uncompressed archive (OCI's diff_id), bytes of all files, number of members."""

    digest: str
    size: int
    entries: int


def unpack(archive: int, layer: str, target: int, limits: Limits = Limits()) -> Unpacked:  # noqa: B008
    """Unpack the tar behind descriptor `archive` into the empty directory `target`, in a worker process.

    gzip and zstd are recognised by their first bytes. `layer` names it in errors. After an error `target` holds
    whatever was written until then. Raises LayerError.
    """
    with start_unpack(archive, layer, target, limits) as unpacking:
        return unpacking.result()


def start_unpack(archive: int, layer: str, target: int, limits: Limits = Limits()) -> Unpacking:  # noqa: B008
    """As unpack(), without waiting for it. Both descriptors can be closed when this returns.

    The worker is killed if the thread that called this ends before it (PR_SET_PDEATHSIG, prctl(2)).
    """
    # -I leaves the working directory and the environment out of the search for modules.
    code = "import sys; sys.path.insert(0, sys.argv[1]); from rootfs.layers.unpack import worker; worker(*sys.argv[2:])"
    home = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code, home, str(target), json.dumps(limits)],
        stdin=archive,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(target,),
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
    )
    return Unpacking(process, layer, limits.deadline)


class Unpacking:
    """A worker at work. A context manager that ends it, should it still run; to be closed in any case."""

    def __init__(self, process: subprocess.Popen[bytes], layer: str, deadline: float) -> None:
        self._process = process
        self._layer = layer
        self._limit = deadline
        self._deadline = time.monotonic() + deadline
        try:
            self._pidfd = pidfd_open(process.pid)
        except BaseException:
            self._end()
            raise

    def fileno(self) -> int:
        """A pidfd: readable once the worker has ended, when result() does not wait any more."""
        return self._pidfd

    def result(self) -> Unpacked:
        """Wait for the end. Raises LayerError."""
        try:
            # What it says is shorter than a pipe holds, so it ends before anybody reads.
            output, errors = self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            raise LayerError(self._layer, f"not unpacked within {self._limit:g} seconds") from None
        try:
            answer = json.loads(output)
        except ValueError:
            last = errors.decode(errors="replace").strip().rpartition("\n")[2]
            status = self._process.returncode
            raise LayerError(self._layer, f"the worker ended with status {status}: {last}") from None
        if "reason" in answer:
            raise LayerError(self._layer, answer["reason"], offset=answer["offset"], member=answer["member"])
        return Unpacked(answer["digest"], answer["size"], answer["entries"])

    def kill(self) -> None:
        """End the worker; what it wrote stays. Nothing happens if it has ended."""
        self._process.kill()

    def close(self) -> None:
        """End the worker if need be, and let go of everything."""
        self._end()
        os.close(self._pidfd)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def worker(target: str, limits_json: str) -> None:
    """The worker process: the archive is its standard input, the answer its standard output."""
    set_parent_death_signal(signal.SIGKILL)
    limits = Limits(*json.loads(limits_json))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MAX, _MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.member_bytes, limits.member_bytes))
    os.umask(0)
    answer: dict[str, object]
    try:
        answer = unpack_here(0, int(target), limits)._asdict()
    except TarError as error:
        answer = {"reason": error.reason, "offset": error.offset, "member": error.member}
    print(json.dumps(answer), flush=True)


def unpack_here(archive: int, target: int, limits: Limits) -> Unpacked:
    """Unpack in this process, whose umask has to be 0. Raises TarError."""
    size = entries = 0
    with _decompressed(archive) as file:
        source = Stream(file, archive, limits.total_bytes, time.monotonic() + limits.deadline)
        extractor = Extractor(target)
        try:
            for member in members(source, HeaderLimits(limits.member_bytes, limits.extended_bytes, limits.segments)):
                entries += 1
                if entries > limits.entries:
                    raise TarError(f"more than {limits.entries} members", member.offset, member.name)
                with _located(member):
                    extractor.add(member, source)
                size += member.stored
            extractor.finish()
        finally:
            extractor.close()
        if not entries:
            raise TarError("an archive without members", source.offset)
        source.drain()
    return Unpacked(source.digest(), size, entries)


class Stream:
    """The uncompressed archive: counts, hashes and bounds what is read of it."""

    def __init__(self, file: IO[bytes], archive: int, total: int, deadline: float) -> None:
        self.offset = 0
        self._archive = archive
        self._file = file
        self._total = total
        self._deadline = deadline
        self._sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises TarError where there are not as many, or for a limit."""
        data = self._some(size)
        if len(data) < size:
            parts = [data]
            missing = size - len(data)
            while missing:
                data = self._some(missing)
                if not data:
                    raise TarError("the archive is truncated", self.offset)
                parts.append(data)
                missing -= len(data)
            data = b"".join(parts)
        return data

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, which are hashed all the same."""
        while size:
            size -= len(self.read(min(size, _CHUNK)))

    def drain(self) -> None:
        """Read what follows the end of the archive: it counts for the digest."""
        while self._some(_CHUNK):
            pass

    def digest(self) -> str:
        """sha256 of all that was read."""
        return "sha256:" + self._sha256.hexdigest()

    def _undecompressed(self, error: Exception) -> TarError:
        near = os.lseek(self._archive, 0, os.SEEK_CUR)
        return TarError(f"cannot decompress, near byte {near} of the file: {_lower(str(error))}", self.offset)

    def _some(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except (OSError, EOFError, ValueError) as error:
            raise self._undecompressed(error) from None
        except Exception as error:  # the decompressors' own errors have no common class
            if type(error).__module__.partition(".")[0] not in ("isal", "backports", "compression"):
                raise
            raise self._undecompressed(error) from None
        self.offset += len(data)
        if self.offset > self._total:
            raise TarError(f"more than {self._total} bytes uncompressed", self.offset)
        if time.monotonic() > self._deadline:
            raise TarError("not unpacked within the time allowed", self.offset)
        self._sha256.update(data)
        return data


@contextmanager
def _located(member: Member) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TarError(_lower(os.strerror(error.errno or 0)), member.offset, member.name) from None
    except SystemCallError as error:
        raise TarError(str(error), member.offset, member.name) from None
    except TarError as error:
        if error.member:
            raise
        raise TarError(error.reason, error.offset, member.name) from None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


@contextmanager
def _decompressed(archive: int) -> Iterator[IO[bytes]]:
    start = os.pread(archive, 6, 0)
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "tar")
    with open(archive, "rb", buffering=_CHUNK, closefd=False) as raw:
        if kind == "tar":
            yield raw
        elif kind == "gzip":
            from isal.igzip import IGzipFile

            yield io.BufferedReader(IGzipFile(fileobj=raw, mode="rb"), _BUFFER)  # type: ignore[no-untyped-call]
        elif kind == "zstd":
            if sys.version_info >= (3, 14):
                from compression.zstd import ZstdFile
            else:
                from backports.zstd import ZstdFile

            yield io.BufferedReader(ZstdFile(raw), _BUFFER)
        else:
            raise TarError(f"{kind} is not supported: a tar is plain, or compressed with gzip or zstd", 0)
