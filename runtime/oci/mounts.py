"""`mounts add|remove`: change the mounts of a container that runs, as crun has it.

FILE holds an array of mounts as in config.json, or an object with one under "mounts".
"""

from __future__ import annotations

import os

from kernel.errors import BadInput, NotFound
from kernel.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
from kernel.operation import Assembly
from kernel.process import CLONE_NEWNS, setns
from rootfs.binds import Bind, PinSource
from rootfs.mounts import from_oci
from runtime import jsontext, spec, spec_codec, state
from runtime.oci.state import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Operation
    from runtime.oci.main import Invocation
    from runtime.oci.options import Option

OPTIONS: tuple[Option, ...] = ()
WORDS = "add|remove ID FILE"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Add the mounts in order, or remove what is mounted at their destinations, last first."""
    action = invocation.parsed.words.pop(0) if invocation.parsed.words else ""
    if action not in ("add", "remove"):
        raise BadInput(f"mounts {action!r} is neither add nor remove")
    container_id = invocation.container_id()
    if len(invocation.parsed.words) < 2:
        raise BadInput("a file with the mounts is needed")
    invocation.no_more_words(2)
    mounts = _load(invocation.parsed.words[1])
    record = current(invocation.directory(container_id))
    if not record.status.can_kill:
        raise NotFound(f"container {container_id!r} is {record.status}: not running")
    (_add if action == "add" else _remove)(record, mounts)
    return 0


def _load(path: str) -> list[spec.Mount]:
    try:
        with open(path, "rb") as file:
            tree = jsontext.loads(file.read())
    except FileNotFoundError:
        raise BadInput(f"no file {path!r}") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None
    entries = tree.get("mounts") if isinstance(tree, dict) else tree
    if not isinstance(entries, list):
        raise BadInput(f"{path}: neither an array of mounts nor an object with one")
    try:
        return [spec_codec.struct(spec.Mount, entry, f"$[{index}]") for index, entry in enumerate(entries)]
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None


def _add(record: state.State, mounts: list[spec.Mount]) -> None:
    assembly = Assembly()
    steps: list[Operation] = []
    for index, mount in enumerate(mounts):
        step = from_oci(mount.destination, mount.type, mount.source, mount.options)
        if isinstance(step, Bind):
            # The source is the host's: taken before we are inside.
            step = step.replace(pinned=f"mounts[{index}]")
            PinSource(step.source, step.pinned, step.recursive).execute(assembly)
        steps.append(step)
    _enter(record)
    assembly.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for step in steps:
        step.execute(assembly)


def _remove(record: state.State, mounts: list[spec.Mount]) -> None:
    _enter(record)
    for mount in reversed(mounts):
        umount2(mount.destination, MNT_DETACH | UMOUNT_NOFOLLOW)


def _enter(record: state.State) -> None:
    """Move into the container's mount namespace, whose root becomes ours; the way back ends with the process."""
    pidfd = state.open_process(record)
    try:
        setns(pidfd, CLONE_NEWNS)
    finally:
        os.close(pidfd)
