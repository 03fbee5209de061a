"""What a seccomp profile must fulfil. A profile fails closed: what is not understood is refused, never passed over."""

from __future__ import annotations

from runtime.seccomp.architectures import ARCHITECTURES, FOREIGN
from runtime.seccomp.compiler import FLAGS
from runtime.seccomp.conditions import OPERATORS
from runtime.seccomp.rules import ACTIONS, WITH_ERRNO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime import spec

_NOTIFY = "SCMP_ACT_NOTIFY"
_MAX_ERRNO, _MAX_TRACE = 4095, 0xFFFF

# The listener's descriptor is handed on by sendmsg(2), when the filter is in force already and nobody answers yet.
# runc does it by write(2) and its callers have learned that it is refused: an agent is not to depend on the runtime.
_NOT_NOTIFIED = ("sendmsg", "write")


def faults(profile: spec.Seccomp, place: str = "linux.seccomp") -> Iterator[str]:
    """What is wrong, one `JSON path: what` each."""
    yield from _action(place, "defaultAction", profile.default_action, "defaultErrnoRet", profile.default_errno_ret)
    if profile.default_action == _NOTIFY:
        yield f"{place}.defaultAction: {_NOTIFY!r} is for rules, the listener would be waited for before it is there"
    for index, name in enumerate(profile.architectures):
        if name not in ARCHITECTURES and name not in FOREIGN:
            yield f"{place}.architectures[{index}]: unknown architecture {name!r} ({', '.join(ARCHITECTURES)})"
    for index, name in enumerate(profile.flags):
        if name not in FLAGS:
            yield f"{place}.flags[{index}]: unknown flag {name!r} ({', '.join(FLAGS)})"
    if profile.listener_metadata and not profile.listener_path:
        yield f"{place}.listenerMetadata: set without listenerPath"
    notified = False
    for index, group in enumerate(profile.syscalls):
        notified = notified or group.action == _NOTIFY
        yield from _group(f"{place}.syscalls[{index}]", group)
    if notified and (not profile.listener_path or "\0" in profile.listener_path):
        yield f"{place}.listenerPath: {profile.listener_path!r} is no path, and {_NOTIFY} needs a listener"


def _group(place: str, group: spec.SeccompSyscall) -> Iterator[str]:
    if not group.names:
        yield f"{place}.names: empty (the system calls' names)"
    for index, name in enumerate(group.names):
        if not name:
            yield f"{place}.names[{index}]: empty (a system call's name)"
        elif group.action == _NOTIFY and name in _NOT_NOTIFIED:
            refused = f"{_NOTIFY} cannot be used for the {name} syscall"
            yield f"{place}.names[{index}]: {refused}, which is needed to hand the listener on"
    yield from _action(place, "action", group.action, "errnoRet", group.errno_ret)
    for index, arg in enumerate(group.args):
        here = f"{place}.args[{index}]"
        if not 0 <= arg.index <= 5:
            yield f"{here}.index: {arg.index} is out of range (0 to 5)"
        if arg.op not in OPERATORS:
            yield f"{here}.op: unknown operator {arg.op!r} ({', '.join(OPERATORS)})"
        for name, value in (("value", arg.value), ("valueTwo", arg.value_two)):
            if not 0 <= value < 2**64:
                yield f"{here}.{name}: {value} is out of range (0 to 2^64 - 1)"


def _action(place: str, name: str, action: str, errno_name: str, errno: int | None) -> Iterator[str]:
    if action not in ACTIONS:
        yield f"{place}.{name}: unknown action {action!r} ({', '.join(ACTIONS)})"
    elif errno is not None and action not in WITH_ERRNO:
        yield f"{place}.{errno_name}: {action} answers no errno ({' and '.join(WITH_ERRNO)} do)"
    elif errno is not None and not 0 <= errno <= (_MAX_ERRNO if action == "SCMP_ACT_ERRNO" else _MAX_TRACE):
        yield f"{place}.{errno_name}: {errno} is out of range (0 to {_MAX_ERRNO}, for a tracer to {_MAX_TRACE})"
