"""The one door to cgroupfs: every write, mkdir and rmdir of this room goes through here.

Each is reported to the event stream under the name of what was done, and a refusal by the kernel becomes an error that
says what the kernel's bare errno does not (Documentation/admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

import errno as errnos
import os

from kernel import events
from kernel.errors import (
    BadInput,
    Conflict,
    ControllerMissing,
    HostError,
    NotFound,
    NotSupported,
    RawpodError,
    SystemCallError,
)


def read(path: str) -> str:
    """A cgroup file's text. Raises what `refusal` makes of the kernel's errno."""
    try:
        return read_raw(path)
    except OSError as error:
        raise refusal("read", path, None, error) from error


def read_raw(path: str) -> str:
    """A cgroup file's text, with OSError as the kernel gave it; a fifth of the time of Path.read_text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode()
    finally:
        os.close(descriptor)


def write(path: str, value: str) -> None:
    """Write `value` in one write(2): cgroupfs takes each write as one whole request."""
    try:
        with events.report("cgroup_write", path=path, value=value):
            # No O_CREAT: a file that is not there means a controller that is not enabled.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
    except OSError as error:
        raise refusal("write", path, value, error) from error


def mkdir(path: str) -> None:
    """Create a cgroup; one that is there already is left as it is."""
    try:
        with events.report("cgroup_mkdir", path=path):
            os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except OSError as error:
        raise refusal("create", path, None, error) from error


def rmdir(path: str) -> None:
    """Remove one cgroup without children; one that is gone already is no error."""
    try:
        with events.report("cgroup_rmdir", path=path):
            os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal("remove", path, None, error) from error


def refusal(action: str, path: str, value: str | None, error: OSError) -> RawpodError:
    """The typed error for an errno that cgroupfs gave for `action` on `path`."""
    number = error.errno or 0
    kind = _kind(action, path, value)
    found = _REFUSALS.get((kind, number)) or _REFUSALS.get(("", number))
    if found is None:
        return SystemCallError(action, {"path": path, "value": value}, number)
    error_type, remedy = found
    reason = os.strerror(number)
    what = f'cannot {action} "{path}"' + ("" if value is None else f' with "{value}"')
    what += f": {reason[:1].lower()}{reason[1:]}"
    if kind in ("read", "limit") and number == errnos.ENOENT and not os.path.isdir(os.path.dirname(path)):
        return NotFound(what, remedy="there is no such cgroup")
    if kind == "limit" and number == errnos.ENOENT and _has_controller(path):
        return NotSupported(
            what, remedy="this kernel has no such file; see its Documentation/admin-guide/cgroup-v2.rst"
        )
    if kind == "limit" and number == errnos.EINVAL and path.endswith("/cpu.weight"):
        remedy = "the kernel refuses the value, or the cgroup is idle: set cpu.idle to 0 first"
    if error_type is ControllerMissing:
        controller = value.lstrip("+") if kind == "enable" and value else os.path.basename(path).partition(".")[0]
        return ControllerMissing(controller, what, remedy=remedy)
    return error_type(what, remedy=remedy)


def _has_controller(path: str) -> bool:
    directory, name = os.path.split(path)
    try:
        return name.partition(".")[0] in read_raw(f"{directory}/cgroup.controllers").split()
    except OSError:
        return False


def _kind(action: str, path: str, value: str | None) -> str:
    if action != "write":
        return action
    name = os.path.basename(path)
    if name == "cgroup.subtree_control":
        return "disable" if value and value.startswith("-") else "enable"
    if name == "cgroup.procs":
        return "move"
    return "core" if name.startswith("cgroup.") else "limit"


NO_INTERNAL_PROCESS = "a cgroup with processes of its own cannot enable controllers: evacuate them into a child first"
_NOT_PERMITTED = "run as root where the cgroup2 mount is writable"
_GONE = "the cgroup was removed"

# What was tried (any, if "") and what the kernel answered, to what that means.
_REFUSALS: dict[tuple[str, int], tuple[type[RawpodError], str]] = {
    ("enable", errnos.EBUSY): (Conflict, NO_INTERNAL_PROCESS),
    ("enable", errnos.ENOENT): (ControllerMissing, "the parent cgroup does not hand it on, or it is not on cgroup v2"),
    ("enable", errnos.EINVAL): (ControllerMissing, "the kernel has no such controller on cgroup v2"),
    ("disable", errnos.EBUSY): (Conflict, "a child cgroup hands the controller on to its own children"),
    ("move", errnos.EBUSY): (
        Conflict,
        "the cgroup hands controllers on to children, so processes must go into a child",
    ),
    ("move", errnos.ESRCH): (NotFound, "the process is gone"),
    ("move", errnos.EINVAL): (Conflict, "a kernel thread, or the thread of a process elsewhere, cannot be moved"),
    ("move", errnos.ENOENT): (NotFound, "there is no such cgroup"),
    ("core", errnos.ENOENT): (NotFound, "there is no such cgroup, or the kernel is older than 6.1"),
    ("core", errnos.EINVAL): (BadInput, "the kernel refuses the value"),
    ("core", errnos.ERANGE): (BadInput, "the kernel refuses the value"),
    ("limit", errnos.ENOENT): (ControllerMissing, "the parent cgroup does not hand the controller on"),
    ("limit", errnos.ENODEV): (BadInput, "no such block device; io.max wants a whole disk, not a partition"),
    ("limit", errnos.EINVAL): (BadInput, "the kernel refuses the value"),
    ("limit", errnos.ERANGE): (BadInput, "the kernel refuses the value"),
    ("read", errnos.ENOENT): (ControllerMissing, "the parent cgroup does not hand the controller on"),
    ("create", errnos.EINVAL): (BadInput, "cgroup names hold no newline"),
    ("create", errnos.ENAMETOOLONG): (BadInput, "a cgroup's name has at most 255 bytes"),
    ("create", errnos.EAGAIN): (HostError, "an ancestor's cgroup.max.descendants or cgroup.max.depth is reached"),
    ("remove", errnos.EBUSY): (Conflict, "it still has processes or children: kill them and wait until it is empty"),
    ("", errnos.ENOENT): (NotFound, "there is no such cgroup"),
    ("", errnos.ENODEV): (NotFound, _GONE),
    ("", errnos.EACCES): (HostError, _NOT_PERMITTED),
    ("", errnos.EPERM): (HostError, _NOT_PERMITTED),
    ("", errnos.EROFS): (HostError, _NOT_PERMITTED),
    ("", errnos.EOPNOTSUPP): (NotSupported, "the cgroup is threaded, or invalid below a threaded one: use type domain"),
}
