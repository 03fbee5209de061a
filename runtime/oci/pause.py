"""`pause` and `resume`: the freezer of the container's cgroup."""

from __future__ import annotations

from cgroups.cgroup import Cgroup
from kernel.errors import Conflict
from runtime.oci.state import current
from runtime.state import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation
    from runtime.oci.options import Option

OPTIONS: tuple[Option, ...] = ()
WORDS = "ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Freeze or thaw, and wait until it is done."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    record = current(invocation.directory(container_id))
    if not record.cgroup:
        raise Conflict(f"container {container_id!r} has no cgroup of its own: it cannot be paused")
    if invocation.command == "pause":
        if record.status not in (Status.CREATED, Status.RUNNING):
            raise Conflict(f"container {container_id!r} is {record.status}, not running")
        Cgroup(record.cgroup).freeze()
    else:
        if record.status != Status.PAUSED:
            raise Conflict(f"container {container_id!r} is {record.status}, not paused")
        Cgroup(record.cgroup).thaw()
    return 0
