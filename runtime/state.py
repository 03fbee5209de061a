"""A container's state on disk: `state.json`, written to a temporary file and renamed, checked against the kernel."""

from __future__ import annotations

import os

from kernel.errors import NotFound
from kernel.pidfd import pidfd_open, process_life
from runtime import spec
from runtime.channel import Gate
from runtime.spec import State, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    Directory = str | os.PathLike[str]

FILE = "state.json"


def save(directory: Directory, state: State) -> None:
    """Replace the state at once: a reader sees the old or the new one."""
    replace_file(os.path.join(directory, FILE), spec.dump_state(state))


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
            state = spec.load_state(file.read())
    except FileNotFoundError:
        raise NotFound(f"no container in {os.fspath(directory)!r}") from None
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
