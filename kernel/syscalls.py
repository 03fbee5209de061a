"""The funnel: one way into the kernel, one way from errno to error, one place that reports to the event stream."""

from __future__ import annotations

import ctypes
import os

from kernel import events
from kernel.errors import SystemCallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# By soname: find_library() starts a compiler or ldconfig.
_LIBC = ctypes.CDLL("libc.so.6", use_errno=True)

# Calls without a libc wrapper. From 424 on, all architectures share the numbers (arch/*/tools/syscall*.tbl).
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {"pivot_root": 155, "capget": 125, "capset": 126, "keyctl": 250, "ioprio_set": 251, "bpf": 321}
    | {"set_mempolicy": 238, "sched_setattr": 314, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "capget": 90, "capset": 91, "keyctl": 219, "ioprio_set": 30, "bpf": 280}
    | {"set_mempolicy": 237, "sched_setattr": 274, "seccomp": 277},
}
_SHARED_NUMBERS = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}


def number_of(name: str) -> int | None:
    """The system call's number on this architecture, None where libc has a wrapper for us."""
    return _SHARED_NUMBERS.get(name) or _NUMBERS.get(os.uname().machine, {}).get(name)


class SystemCall:
    """A typed system call: `SystemCall("umount2", target=c_char_p, flags=c_int)`.

    Called with the arguments in that order it returns the kernel's answer, and raises SystemCallError for -1.
    """

    __slots__ = ("_function", "_prefix", "name", "parameters")

    def __init__(self, name: str, /, **parameters: Any) -> None:
        self.name = name
        self.parameters = tuple(parameters)
        number = number_of(name)
        types = list(parameters.values())
        if number is None:
            self._function = _LIBC[name]
            self._prefix: tuple[int, ...] = ()
        else:
            self._function = _LIBC["syscall"]
            self._prefix = (number,)
            types.insert(0, ctypes.c_long)
        self._function.argtypes = types
        self._function.restype = ctypes.c_long

    def __call__(self, *arguments: Any) -> int:
        result: int = self._function(*self._prefix, *arguments)
        # libc's own wrappers return an int: its -1 may arrive with the upper half of the register clear.
        if result in (-1, 0xFFFFFFFF):
            self.fail(arguments, ctypes.get_errno())
        if events.instruments:
            events.emit(self.name, self.shown(arguments), result)
        return result

    def shown(self, arguments: tuple[Any, ...]) -> dict[str, object]:
        """The arguments by name, as events and errors show them."""
        return {name: _decoded(value) for name, value in zip(self.parameters, arguments, strict=True)}

    def fail(self, arguments: tuple[Any, ...], errno: int) -> NoReturn:
        """Report and raise one failed call."""
        shown = self.shown(arguments)
        if events.instruments:
            events.emit(self.name, shown, None, errno)
        raise SystemCallError(self.name, shown, errno)


def _decoded(value: Any) -> object:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, ctypes.Structure):
        return {field[0]: _decoded(getattr(value, field[0])) for field in value._fields_}
    if isinstance(value, ctypes.Array):
        return list(value)
    return value
