"""A container's state on disk: `state.json`, written to a temporary file and renamed, checked against the kernel."""

from __future__ import annotations

import os
from pathlib import Path

from kernel.errors import NotFound
from kernel.process import pidfd_open, process_start_time
from runtime import spec
from runtime.spec import State, Status

FILE = "state.json"


def save(directory: Path, state: State) -> None:
    """Replace the state at once: a reader sees the old or the new one."""
    temporary = directory / f".{FILE}.{os.getpid()}"
    temporary.write_bytes(spec.dump_state(state))
    temporary.rename(directory / FILE)


def load(directory: Path) -> State:
    """The state, its status as the kernel sees the process now. Raises NotFound, or BadInput for a damaged file."""
    try:
        state = spec.load_state((directory / FILE).read_bytes())
    except FileNotFoundError:
        raise NotFound(f"no container in {str(directory)!r}") from None
    if state.status.can_kill and not alive(state):
        state.status = Status.STOPPED
    return state


def alive(state: State) -> bool:
    """Whether the process that the state names is there, and is no later one of the same pid."""
    try:
        return process_start_time(state.pid) == state.process_start_time
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
