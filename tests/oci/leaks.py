"""What a test's containers leave in the machine: mounts, cgroups, processes, records."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.oci.bundle import eventually

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Traces:
    """The mounts of this namespace, the processes below this one, and what bears the name of a test's containers."""

    directory: Path
    mounts: frozenset[str]
    processes: frozenset[int]

    @classmethod
    def take(cls, directory: Path) -> Traces:
        """What is there before a test that makes its bundles in `directory`."""
        return cls(directory, _mounts(), _children())

    def compared_with_now(self, *, sweep_cgroups: bool) -> list[str]:
        """One line for each thing that is there and was not. Cgroups are removed, and may be left out of the lines."""
        eventually(lambda: not self._left())
        left = self._left()
        for path in self._cgroups():
            (path / "cgroup.kill").write_text("1")
            eventually(lambda path=path: _removed(path))
        return [line for line in left if not (sweep_cgroups and line.startswith("cgroup "))]

    def _names(self) -> set[str]:
        return {path.name for path in self.directory.iterdir() if (path / "rootfs").is_dir()}

    def _cgroups(self) -> list[Path]:
        """The deepest first."""
        found = [Path(directory) for directory, _, _ in os.walk(_CGROUP, topdown=False)]
        return [path for path in found if any(name in os.fspath(path) for name in self._names())]

    def _left(self) -> list[str]:
        names = self._names()
        left = [f"mount {line}" for line in sorted(_mounts() - self.mounts)]
        left += [f"process {_describe(pid)}" for pid in sorted(_children() - self.processes)]
        left += [f"cgroup {path}" for path in self._cgroups()]
        state = self.directory / "state"
        left += [f"record {path}" for path in (state.rglob("*") if state.is_dir() else ()) if path.name in names]
        return left


def _mounts() -> frozenset[str]:
    """Mounts as (id, root, place, type); the id tells one mount from another at its place."""
    fields = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return frozenset(f"{row[0]} {row[3]} {row[4]} {row[row.index('-') + 1]}" for row in fields)


def _children() -> frozenset[int]:
    """The processes that are this one's children, orphans of its descendants among them, the dead ones reaped."""
    found = set()
    for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                found.add(pid)
        except ChildProcessError:
            continue
    return frozenset(found)


def _removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _describe(pid: int) -> str:
    try:
        return f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()}"
    except OSError:
        return str(pid)
