"""`state`: what a container is doing, as runtime.md, section State, has it and with what runc adds."""

from __future__ import annotations

import os

from runtime import jsontext, state
from runtime.state import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.oci.main import Invocation
    from runtime.oci.options import Option
    from runtime.state import State

OPTIONS: tuple[Option, ...] = ()
WORDS = "ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Print the state as JSON."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    print(jsontext.dumps(shown(current(invocation.directory(container_id)))).decode())
    return 0


def current(directory: str) -> State:
    """The state as the kernel sees it now; "paused" where the cgroup is frozen. Raises NotFound."""
    record = state.load(directory)
    if record.status == Status.RUNNING and record.cgroup:
        from cgroups.cgroup import Cgroup

        if Cgroup(record.cgroup).frozen():
            record.status = Status.PAUSED
    return record


def shown(record: State) -> dict[str, Any]:
    """The properties in the order that runc prints them."""
    made = os.path.join(record.bundle, record.rootfs) if record.rootfs else ""
    return {
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": record.pid if record.status.can_kill else 0,
        "status": record.status,
        "bundle": record.bundle,
        "rootfs": made,
        "created": record.created,
        "annotations": record.annotations,
        "owner": "root",
    }
