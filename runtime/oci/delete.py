"""`delete`: remove what a stopped container left; with --force stop it first."""

from __future__ import annotations

import os

from kernel.errors import Conflict, NotFound, RawpodError
from runtime.container import Container
from runtime.oci import placement
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (Option("--force -f", help="kill it first if it has not stopped; no error if there is none"),)
WORDS = "[--force] ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Delete the container."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    directory = invocation.directory(container_id)
    force = invocation.parsed.flag("--force")
    try:
        container = Container.load(directory)
    except NotFound:
        # Killed while it was created: there is a directory and no state yet.
        if force:
            remove_directory(directory)
            return 0
        raise NotFound(f"container {container_id!r} does not exist") from None
    except RawpodError:
        if not force:
            raise
        remove_directory(directory)
        return 0
    if not container.status.can_delete:
        # A created one, too: runtime.md, "Delete". runc and crun kill it.
        if not force:
            raise Conflict(
                f"container {container_id!r} is {container.status}, not stopped", remedy="kill it, or use --force"
            )
        container.kill()
        container.wait_end()
    delete(container, directory)
    invocation.warn(container)
    return 0


def delete(container: Container, directory: str) -> None:
    """Remove a stopped container's cgroup, state and directory."""
    container.delete()
    placement.forget_parent(container.cgroup)
    remove_directory(directory)


def remove_directory(directory: str) -> None:
    """Remove a container's directory with the few files in it; it is fine if there is none."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
