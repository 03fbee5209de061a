"""`delete`: remove what a stopped container left; with --force stop it first."""

from __future__ import annotations

import os

from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from runtime.container import Container
from runtime.oci import placement
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (
    Option("--force -f", help="kill it first if it has not stopped; no error if there is none"),
    Option("--regex", help="all containers in whose id the expression ID is found, as crun has it"),
)
WORDS = "[--force] [--regex] ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Delete the container, or all that match."""
    invocation.no_more_words(1)
    force = invocation.parsed.flag("--force")
    if invocation.parsed.flag("--regex"):
        for container_id in matching(invocation):
            _delete_one(invocation, container_id, force)
    else:
        container_id = invocation.container_id()
        _delete_one(invocation, container_id, force)
    return 0


def matching(invocation: Invocation) -> list[str]:
    """The ids in which the expression is found. Raises BadInput for a malformed one."""
    import re

    expression = next(iter(invocation.parsed.words), "")
    if not expression:
        raise BadInput("an expression is needed")
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise BadInput(f"expression {expression!r}: {error}") from None
    try:
        names = sorted(os.listdir(invocation.root))
    except FileNotFoundError:
        return []
    return [name for name in names if pattern.search(name) and os.path.isdir(invocation.directory(name))]


def _delete_one(invocation: Invocation, container_id: str, force: bool) -> None:
    directory = invocation.directory(container_id)
    try:
        container = Container.load(directory)
    except NotFound:
        # Killed while it was created: there is a directory and no state yet.
        if force:
            remove_directory(directory)
            return
        raise NotFound(f"container {container_id!r} does not exist") from None
    except RawpodError:
        if not force:
            raise
        remove_directory(directory)
        return
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
    if "notify" in names:
        from runtime.oci import notify

        notify.forget(directory)
        names.remove("notify")
    for name in names:
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
