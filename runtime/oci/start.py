"""`start`: execute the process of a created container."""

from __future__ import annotations

import os

from runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation
    from runtime.oci.options import Option

OPTIONS: tuple[Option, ...] = ()
WORDS = "ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Open the gate; returns once the process executes."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    start(Container.load(invocation.directory(container_id)), invocation)
    return 0


def start(container: Container, invocation: Invocation, *, aside: bool = False) -> None:
    """Start it and, if a supervisor waits for that, wait until it says that it is ready; not us if `aside`."""
    if "NOTIFY_SOCKET" not in os.environ:
        container.start()
        invocation.warn(container)
        return
    from runtime.oci import notify

    end = notify.listen(invocation.directory(container.id))
    container.start()
    invocation.warn(container)
    if end is not None:
        forward = notify.forward_aside if aside else notify.forward
        forward(end, container.pid, container.pidfd)
