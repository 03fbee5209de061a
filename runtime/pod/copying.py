"""`rawpod cp`: between the host and a container of a pod, whether that runs or has ended."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgroups.cgroup import Cgroup
from kernel.credentials import set_file_owner
from kernel.errors import BadInput, Conflict, NotFound
from kernel.record import Record
from rootfs.copying import places, rules
from rootfs.copying.items import Owners
from rootfs.copying.places import Root
from rootfs.copying.receiver import Receiver
from rootfs.copying.rules import STREAM, Place
from rootfs.copying.trees import copy_tree
from runtime import spec, state
from runtime.pod.directory import pod_name
from runtime.pod.freezing import frozen
from runtime.pod.rootview import ended_root, running_root

Json = dict[str, Any]

_HOST = Root()


class Options(Record):
    """`keep_owner` is -a, `follow` is -L."""

    keep_owner: bool = False
    follow: bool = False


class View(Record):
    """A container as it is copied from or to: its root, the first id of the host that its users have, None for the
    host's own users, and what the user should know about it.
    """

    root: Root
    ids: int | None
    warning: str = ""


class Copied(Record):
    """What was done: bytes of regular files, and how often something was left out or could not be kept."""

    size: int
    notes: dict[str, int]


@contextmanager
def view(bundle: Path, status: Json, *, pause: bool) -> Iterator[View]:
    """The container of a bundle, from outside; with `pause` it stands still if it runs.

    Raises Conflict for one between two attempts, NotFound without files.
    """
    ids = _first_id(bundle)
    if runs(bundle):
        with standing_still(bundle, status, pause) as warning, running_root(bundle) as root:
            yield View(Root(root), ids, warning)
        return
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if one["name"] == bundle.name and "waiting" in one["state"]:
            raise Conflict(
                f"container {bundle.name!r} of pod {pod_name(status)!r} waits to be started"
                f" ({one['state']['waiting'].get('reason', '')})",
                remedy="what it wrote before is thrown away: try again when it runs",
            )
    with ended_root(bundle) as root:
        yield View(Root(root), ids)


@contextmanager
def standing_still(bundle: Path, status: Json, pause: bool) -> Iterator[str]:
    """Freeze a running container meanwhile, if wanted; yields what the user should know, "" for nothing."""
    cgroup = Cgroup(status["rawpod"]["containers"][bundle.name].get("cgroup", ""))
    if not pause:
        yield ""
    elif not cgroup.path or not cgroup.exists():
        yield "the container has no cgroup: it goes on while it is copied"
    else:
        with frozen(cgroup, bundle) as failure:
            yield f"the container goes on while it is copied: {failure}" if failure else ""


def runs(bundle: Path) -> bool:
    """Whether the container has processes that may write."""
    try:
        return state.load(bundle).status.can_kill
    except NotFound:
        return False


def _first_id(bundle: Path) -> int | None:
    try:
        config = spec.load((bundle / "config.json").read_bytes())
    except FileNotFoundError:
        raise NotFound(f"container {bundle.name!r} was never started: it has no files") from None
    rows = config.linux.uid_mappings if config.linux else []
    return rows[0].host_id if rows else None


def copy_out(container: View, source: Place, target: Place, options: Options) -> Copied:
    """From the container to the host; a target of "-" is a tar on standard output."""
    owners = Owners(options.keep_owner, os.geteuid(), os.getegid(), source_ids=container.ids)
    receiver = Receiver(owners)
    place = places.source(container.root, source, follow=options.follow)
    try:
        directory = stat.S_ISDIR(os.fstat(place).st_mode)
        if target.path == STREAM:
            _write_archive(place, directory, source, receiver, owners)
        else:
            _land(place, directory, source, _HOST, target, receiver)
    finally:
        os.close(place)
    return Copied(receiver.size, receiver.notes)


def copy_in(container: View, source: Place, target: Place, options: Options) -> Copied:
    """From the host into the container; a source of "-" is a tar on standard input. Files made are its root's."""
    receiver = Receiver(Owners(options.keep_owner, target_ids=container.ids))
    if container.ids is not None:
        set_file_owner(container.ids, container.ids)
    if source.path == STREAM:
        _read_archive(container.root, target, receiver)
        return Copied(receiver.size, receiver.notes)
    place = places.source(_HOST, source, follow=options.follow)
    try:
        _land(place, stat.S_ISDIR(os.fstat(place).st_mode), source, container.root, target, receiver)
    finally:
        os.close(place)
    return Copied(receiver.size, receiver.notes)


def _land(place: int, directory: bool, source: Place, root: Root, target: Place, receiver: Receiver) -> None:
    found = places.target(root, target)
    landing = rules.land(source, directory, target.replace(path=found.path), found.kind)
    top = places.directory(root, target, landing.directory)
    try:
        copy_tree(place, landing.name, top, receiver, source.shown())
    finally:
        os.close(top)


def _write_archive(place: int, directory: bool, source: Place, receiver: Receiver, owners: Owners) -> None:
    from rootfs.layers.copies import send

    if os.isatty(1):
        raise BadInput("a tar archive is not for a terminal", remedy="redirect standard output, or name a target")
    if rules.asserts_directory(source.path) and not directory:
        raise BadInput(f"{source.shown()!r} is not a directory")
    name = "." if directory and rules.means_contents(source.path) else rules.base_name(source.path)
    with io.BufferedWriter(io.FileIO(1, "w", closefd=False), 1 << 18) as output:
        send(place, name, output.write, owners, source.shown(), receiver.note)


def _read_archive(root: Root, target: Place, receiver: Receiver) -> None:
    from rootfs.layers.copies import receive

    found = places.target(root, target)
    if found.kind != "directory":
        raise BadInput(f"{target.shown()!r} is no directory, which a tar archive needs")
    receive(0, root, found.path, receiver)
