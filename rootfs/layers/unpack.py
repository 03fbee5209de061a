"""Unpacking the tar of a root filesystem in a process of its own, with limits on everything an archive can claim."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

from kernel.credentials import set_parent_death_signal
from kernel.errors import RawpodError, SystemCallError
from kernel.pidfd import pidfd_open
from rootfs.layers.extract import Extractor
from rootfs.layers.limits import FILE
from rootfs.layers.limits import Limits as Limits
from rootfs.layers.stream import Stream, StreamLimits
from rootfs.layers.tar import HeaderLimits, Member, members
from rootfs.layers.tar_header import TarError

_MEMORY_MAX = 1 << 30  # address space of the worker, bytes; zstd's largest window takes an eighth of it


class LayerError(RawpodError):
    """A layer was refused or damaged. Names the layer, the member and the offset in bytes of the uncompressed tar."""

    def __init__(
        self, layer: str, reason: str, *, offset: int | None = None, member: str = "", remedy: str | None = None
    ):
        where = "" if offset is None else f" at offset {offset}"
        which = f", member {member!r}" if member else ""
        super().__init__(f"layer {layer!r}{where}{which}: {reason}", remedy=remedy)
        self.layer = layer
        self.reason = reason
        self.offset = offset
        self.member = member


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
        env={"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},  # mallopt(3): chunks go from thread to thread
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
            reason = f"not unpacked within {self._limit:g} seconds"
            raise LayerError(self._layer, reason, remedy=_set_by("deadline")) from None
        try:
            answer = json.loads(output)
        except ValueError:
            last = errors.decode(errors="replace").strip().rpartition("\n")[2]
            status = self._process.returncode
            raise LayerError(self._layer, f"the worker ended with status {status}: {last}") from None
        if "reason" in answer:
            limit = answer["limit"]
            raise LayerError(
                self._layer,
                answer["reason"],
                offset=answer["offset"],
                member=answer["member"],
                remedy=_set_by(limit) if limit else None,
            )
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
        answer = {"reason": error.reason, "offset": error.offset, "member": error.member, "limit": error.limit}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # a thread may still wait for more of a pipe


def unpack_here(archive: int, target: int, limits: Limits) -> Unpacked:
    """Unpack in this process, whose umask has to be 0. Raises TarError."""
    size = entries = 0
    stream = Stream(archive, StreamLimits(limits.total_bytes, limits.ratio, time.monotonic() + limits.deadline))
    extractor = Extractor(target, limits.depth)
    member: Member | None = None
    try:
        for member in members(stream, HeaderLimits(limits.member_bytes, limits.extended_bytes, limits.segments)):
            entries += 1
            if entries > limits.entries:
                raise TarError(f"more than {limits.entries} members", member.offset, member.name, limit="entries")
            extractor.add(member, stream)
            size += member.stored
            member = None
        extractor.finish()
        if not entries:
            raise TarError("an archive without members", stream.offset)
        stream.drain()
    except OSError as error:
        raise _located(_lower(os.strerror(error.errno or 0)), stream.offset, member) from None
    except SystemCallError as error:
        raise _located(str(error), stream.offset, member) from None
    except TarError as error:
        raise _located(error.reason, error.offset, member, error.member, error.limit) from None
    finally:
        extractor.close()
        stream.close()
    return Unpacked(stream.digest(), size, entries)


def _located(reason: str, offset: int, member: Member | None, name: str = "", limit: str = "") -> TarError:
    """The error with the member that was being made."""
    return TarError(reason, offset, name or (member.name if member else ""), limit=limit)


def _set_by(limit: str) -> str:
    return f"{limit!r} in the image store's {FILE} sets this limit"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
