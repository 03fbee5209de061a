"""One cgroup: its life, its processes, its events (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os
import select
import time

from cgroups.files import NO_INTERNAL_PROCESS, mkdir, read, read_raw, refusal, rmdir, write
from kernel.errors import BadInput, Conflict, HostError, NotFound, RawpodError
from kernel.record import Record

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterable

_EVACUATION_PASSES = 100
_THREADED = frozenset({"cpu", "cpuset", "perf_event", "pids"})


class Cgroup(Record):
    """A cgroup by its directory. The object holds nothing: the kernel is asked each time."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The last component of its path."""
        return os.path.basename(self.path)

    @property
    def parent(self) -> Cgroup:
        """The cgroup above; its directory may lie outside of the hierarchy."""
        return Cgroup(os.path.dirname(self.path))

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return f"{self.path}/{name}"

    def child(self, name: str) -> Cgroup:
        """The cgroup `name` directly below this one, whether it exists or not."""
        return Cgroup(os.path.join(self.path, name))

    def exists(self) -> bool:
        """Whether the directory is there."""
        return os.path.isdir(self.path)

    def create(self, parents: bool = True) -> Cgroup:
        """Make the directory, with `parents` the ones above too; what is there already stays. Answers itself."""
        if parents and not self.parent.exists():
            self.parent.create()
        mkdir(self.path)
        return self

    def open(self) -> int:
        """A descriptor of the directory, as clone3(2) takes it with CLONE_INTO_CGROUP; the caller closes it."""
        try:
            return os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise refusal("open", self.path, None, error) from error

    def children(self) -> list[Cgroup]:
        """The cgroups directly below, by name."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [self.child(name) for name in sorted(names)]

    def controllers(self) -> frozenset[str]:
        """The controllers that act on this cgroup, so that its limit files are there."""
        return frozenset(read(self.file("cgroup.controllers")).split())

    def enabled(self) -> frozenset[str]:
        """The controllers this cgroup hands on to its children."""
        return frozenset(read(self.file("cgroup.subtree_control")).split())

    def enable(self, controllers: Iterable[str]) -> None:
        """Hand controllers on to the children (cgroup.subtree_control).

        Raises Conflict where the cgroup has processes of its own (the no-internal-process rule: `evacuate` first) and
        ControllerMissing where the parent does not hand the controller on. One write each, so the error names the one.
        """
        wanted = set(controllers) - self.enabled()
        # The kernel would let cpu, cpuset and pids be enabled beside processes, and make of this cgroup the root of a
        # threaded subtree, whose children take no process. The top of the hierarchy, without a type, is exempt.
        if wanted and os.path.exists(self.file("cgroup.type")) and self.processes():
            raise Conflict(f'cannot enable {", ".join(sorted(wanted))} in "{self.path}"', remedy=NO_INTERNAL_PROCESS)
        # Those that are refused beside processes come first, for a process that arrived meanwhile.
        for controller in sorted(wanted, key=lambda name: (name in _THREADED, name)):
            write(self.file("cgroup.subtree_control"), f"+{controller}")

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, into this cgroup."""
        write(self.file("cgroup.procs"), str(pid))

    def processes(self) -> list[int]:
        """The pids in this cgroup, not below; processes of other pid namespaces have none and are left out."""
        return [pid for line in read(self.file("cgroup.procs")).split() if (pid := int(line))]

    def all_processes(self) -> list[int]:
        """The pids in this cgroup and below."""
        pids = self.processes()
        for child in self.children():
            pids += child.all_processes()
        return pids

    def evacuate(self, into: Cgroup) -> list[int]:
        """Move every process of this cgroup into another and answer their pids.

        Repeats until none is left, since a process may fork while it is moved. Raises Conflict if they never end.
        """
        moved: dict[int, None] = {}
        for _ in range(_EVACUATION_PASSES):
            pids = self.processes()
            if not pids:
                return list(moved)
            for pid in pids:
                try:
                    into.add(pid)
                except NotFound:  # it ended meanwhile
                    continue
                moved[pid] = None
        raise Conflict(
            f'cgroup "{self.path}" still has processes', remedy="they fork faster than they can be moved: stop them"
        )

    def kill(self) -> None:
        """SIGKILL every process in this cgroup and below, forks in flight included (cgroup.kill, Linux 5.14)."""
        write(self.file("cgroup.kill"), "1")

    def freeze(self, timeout: float = 5.0) -> None:
        """Stop every process here and below, and wait until all are; raises HostError after `timeout` seconds."""
        write(self.file("cgroup.freeze"), "1")
        if not self._wait_event("frozen", "1", timeout):
            raise HostError(
                f'cgroup "{self.path}" is not frozen after {timeout:g} s',
                remedy="a process is in uninterruptible sleep: see the wchan in /proc/PID/stack",
            )

    def thaw(self, timeout: float = 5.0) -> None:
        """Let the processes run again, and wait until they may; an ancestor that is frozen still holds them."""
        write(self.file("cgroup.freeze"), "0")
        if not self._wait_event("frozen", "0", timeout):
            raise HostError(f'cgroup "{self.path}" is still frozen', remedy="thaw the ancestor that is frozen")

    def frozen(self) -> bool:
        """Whether all processes here and below are stopped by the freezer."""
        return self._events().get("frozen") == "1"

    def populated(self) -> bool:
        """Whether any process lives here or below; zombies do not count."""
        return self._events().get("populated") == "1"

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Wait until no process lives here or below; False if `timeout` seconds were not enough. Gone is empty."""
        return self._wait_event("populated", "0", timeout)

    def events_fd(self) -> int:
        """A descriptor of cgroup.events for a loop of the caller's own: it becomes ready for POLLPRI at each change."""
        try:
            return os.open(self.file("cgroup.events"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise refusal("open", self.file("cgroup.events"), None, error) from error

    def oom_kills(self) -> int:
        """How many processes here and below the kernel killed for want of memory; 0 without the memory controller."""
        try:
            return int(_pairs(read_raw(self.file("memory.events"))).get("oom_kill", "0"))
        except OSError:
            return 0

    def delete(self, timeout: float = 5.0) -> None:
        """Remove the cgroup and all below, deepest first; one that is gone is no error. Processes are not killed.

        Waits up to `timeout` seconds for processes that are about to end. Raises Conflict, naming the pids, for others.
        """
        for directory in self._deepest_first():
            try:
                rmdir(directory)
            except Conflict as error:
                cgroup = Cgroup(directory)
                if not cgroup.wait_empty(timeout):
                    pids = ", ".join(map(str, cgroup.processes())) or "of another pid namespace"
                    raise Conflict(f"{error.message}: processes {pids}", remedy="kill them first") from error
                rmdir(directory)

    def _deepest_first(self) -> list[str]:
        # A list grown while it is walked: cgroups may be nested deeper than Python recurses.
        directories = [self]
        for cgroup in directories:
            directories.extend(cgroup.children())
        return [cgroup.path for cgroup in reversed(directories)]

    def _events(self) -> dict[str, str]:
        try:
            return _pairs(read(self.file("cgroup.events")))
        except NotFound:
            return {}

    def _wait_event(self, key: str, value: str, timeout: float | None) -> bool:
        """Wait until cgroup.events says `key value`; the kernel wakes poll(2) with POLLPRI at each change."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            descriptor = self.events_fd()
        except NotFound:
            return True
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLPRI)
            # Read before each poll: a change between the two is then seen by the poll.
            while _read_again(descriptor).get(key, value) != value:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                poller.poll(None if left is None else left * 1000)
            return True
        finally:
            os.close(descriptor)


def hand_down(top: str, cgroup: Cgroup, controllers: Iterable[str]) -> None:
    """Enable controllers on the way from the directory `top` to the one above `cgroup`, as far as they are to be had.

    Moves no process: what a cgroup on the way refuses is missed, by name, when a limit needs it.
    """
    way = [cgroup.parent]
    while len(way[-1].path) > len(top):
        way.append(way[-1].parent)
    for step in reversed(way):
        if not step.exists():
            step.create(parents=False)
        for controller in sorted(frozenset(controllers) - step.enabled()):
            try:
                step.enable((controller,))
            except RawpodError:
                continue


def prepare(top: str, cgroup: Cgroup, controllers: Iterable[str], spare: str = "system") -> Cgroup:
    """Create `cgroup` below `top` and hand `controllers` down to its children. Answers `cgroup`.

    `top` is the delegated subtree's directory. Where a cgroup on the way has processes, as a delegated systemd unit
    has, all of them are moved into `cgroup`/`spare` first: below a delegation they are ours, and the kernel refuses to
    enable controllers while they are there. Raises ControllerMissing for a controller that `top` does not have.
    """
    wanted = frozenset(controllers)
    if not is_below(cgroup.path, top):
        raise BadInput(f'cgroup "{cgroup}" is outside of the delegated "{top}"', remedy="name one below it")
    cgroup.create()
    way = [cgroup]
    while len(way[-1].path) > len(top):
        way.append(way[-1].parent)
    for step in reversed(way):
        try:
            step.enable(wanted)
        except Conflict:
            if not step.processes():
                raise
            step.evacuate(cgroup.child(spare).create())
            step.enable(wanted)
    return cgroup


def is_below(path: str, top: str) -> bool:
    """Whether `path` is the directory `top` or lies in it, by their names."""
    return path == top or path.startswith(top if top.endswith("/") else f"{top}/")


def _read_again(descriptor: int) -> dict[str, str]:
    try:
        return _pairs(os.pread(descriptor, 4096, 0).decode())
    except OSError:  # ENODEV: the cgroup was removed
        return {}


def _pairs(text: str) -> dict[str, str]:
    """The keys and values of a flat keyed file."""
    return dict(line.split(" ", 1) for line in text.splitlines())
