"""`start`: execute the process of a created container."""

from __future__ import annotations

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
    container = Container.load(invocation.directory(container_id))
    container.start()
    invocation.warn(container)
    return 0
