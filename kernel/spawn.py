"""A program of the host as a child process, with nothing of ours: posix_spawn(3)."""

from __future__ import annotations

import _signal
import os

from kernel import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def spawn(path: str, args: Sequence[str], env: Mapping[str, str], stdin: int, stdout: int) -> int:
    """Execute `path` in a process group of its own; its pid. `stdout` is its standard error as well.

    Signals are as a program finds them by default, and it has no other descriptors. Raises OSError.
    """
    actions: list[tuple[int, int, int] | tuple[int, int]] = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stdout, 2),
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    catchable = [number for number in _signal.valid_signals() if number not in (_signal.SIGKILL, _signal.SIGSTOP)]
    try:
        pid = os.posix_spawn(
            path, list(args), env, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=catchable
        )
    except OSError as error:
        events.emit("posix_spawn", {"path": path, "args": list(args)}, None, error.errno or -1)
        raise
    events.emit("posix_spawn", {"path": path, "args": list(args)}, pid)
    return pid


def _inheritable() -> list[int]:
    """Descriptors that were passed to us, and would be passed on."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    found = []
    for name in names:
        try:
            if name.isdigit() and int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # the one by which the directory was read
    return found
