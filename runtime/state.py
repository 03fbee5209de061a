"""A container's state on disk: `state.json`, written to a temporary file and renamed, checked against the kernel."""

from __future__ import annotations

import os

from kernel.errors import NotFound
from kernel.pidfd import pidfd_open, process_life
from runtime import spec_codec
from runtime.channel import Gate
from runtime.spec_codec import SpecStruct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self

    Directory = str | os.PathLike[str]

FILE = "state.json"


class Status(str):
    """The states of a container and what may be done in each (runtime.md, section Lifecycle).

    "paused" is runc's: a running container whose cgroup is frozen.
    """

    CREATING: ClassVar[Status]
    CREATED: ClassVar[Status]
    RUNNING: ClassVar[Status]
    PAUSED: ClassVar[Status]
    STOPPED: ClassVar[Status]

    def __new__(cls, name: str) -> Self:
        if name not in ("creating", "created", "running", "paused", "stopped"):
            raise ValueError(f"invalid status {name!r}")
        return super().__new__(cls, name)

    @property
    def can_start(self) -> bool:
        """Only a created container is started, and only once."""
        return self == Status.CREATED

    @property
    def can_kill(self) -> bool:
        """A signal needs a process."""
        return self in (Status.CREATED, Status.RUNNING, Status.PAUSED)

    @property
    def can_delete(self) -> bool:
        """Only what has stopped is deleted; forcing means to stop it first."""
        return self == Status.STOPPED


Status.CREATING, Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPED = map(
    Status, ("creating", "created", "running", "paused", "stopped")
)


class State(SpecStruct):
    """A container's state (runtime.md, section State).

    The last ones are rawpod's own. `process_start_time`, in clock ticks after boot (proc_pid_stat(5), field 22), tells
    the process from another one that was given the same pid later; `cgroup` is its directory, "" for none of its own,
    and `scope` the unit if systemd made it; `rootfs` is root.path, `created` the time in RFC 3339; `hooks` are those
    that are yet to be run, poststart and poststop; `keyring` is the session keyring's name, "" for its creator's.
    """

    oci_version: str
    id: str
    status: Status
    bundle: str
    pid: int = 0
    annotations: dict[str, str] = {}
    process_start_time: int = 0
    cgroup: str = ""
    scope: str = ""
    rootfs: str = ""
    created: str = ""
    hooks: dict[str, Any] = {}
    keyring: str = ""


def dump(state: State) -> bytes:
    """Encode as `state.json`; the version is always written, as the specification demands."""
    return spec_codec.dumps(state)


def save(directory: Directory, state: State) -> None:
    """Replace the state at once: a reader sees the old or the new one."""
    replace_file(os.path.join(directory, FILE), dump(state))


def forget(directory: Directory) -> None:
    """Remove what `save` and the gate left in the directory."""
    for name in (FILE, Gate.FILE):
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass


def replace_file(path: str, data: bytes) -> None:
    """Write a file by temporary file and rename."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb", opener=_private) as file:
        file.write(data)
    os.rename(temporary, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def load(directory: Directory) -> State:
    """The state, its status as the kernel sees the process now. Raises NotFound, or BadInput for a damaged file."""
    try:
        with open(os.path.join(directory, FILE), "rb") as file:
            state = spec_codec.loads(State, file.read(), FILE)
    except FileNotFoundError:
        # Callers of runc look for the words "does not exist".
        name = os.path.basename(os.fspath(directory))
        raise NotFound(f"container {name!r} does not exist (no {FILE} in {os.fspath(directory)!r})") from None
    if state.status.can_kill and not alive(state):
        state.status = Status.STOPPED
    return state


def alive(state: State) -> bool:
    """Whether the process that the state names runs: it is no later one of the same pid, and no zombie."""
    try:
        life = process_life(state.pid)
        return life.start_time == state.process_start_time and life.state not in ("Z", "X")
    except ProcessLookupError:
        return False


def open_process(state: State) -> int:
    """A pidfd of the container's first process. Raises NotFound when it has ended."""
    try:
        pidfd = pidfd_open(state.pid)
    except Exception as error:
        if getattr(error, "errno", None) != 3:  # ESRCH
            raise
        raise NotFound(f"container {state.id!r} is not running") from None
    # The pidfd first, the comparison afterwards: between the two the pid cannot change hands unnoticed.
    if not alive(state):
        os.close(pidfd)
        raise NotFound(f"container {state.id!r} is not running")
    return pidfd
