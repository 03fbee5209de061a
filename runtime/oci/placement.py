"""Which cgroup a container gets, from `linux.cgroupsPath` (config-linux.md, "Cgroups Path")."""

from __future__ import annotations

import os

from cgroups.cgroup import Cgroup, hand_down
from kernel.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.hierarchy import Hierarchy
    from cgroups.systemd import Scope
    from runtime import spec

PARENT = "rawpod-oci"


def cgroup_of(config: spec.Config, container_id: str, manager: str, hierarchy: Hierarchy) -> Cgroup | None:
    """The container's cgroup, with the controllers that are to be had handed down to it; None for "disabled".

    An absolute path begins at the hierarchy's mount, a relative one beside the caller's own cgroup, as with runc.
    Without one it is rawpod-oci/ID in the delegated subtree.
    """
    if manager == "disabled":
        return None
    path = config.linux.cgroups_path if config.linux else ""
    if ".." in path.split("/"):
        raise BadInput(f"linux.cgroupsPath: {path!r} leaves the hierarchy")
    if path.startswith("/"):
        top, directory = hierarchy.mount, os.path.join(hierarchy.mount, path.strip("/"))
    elif path:
        # The caller's own cgroup has processes, the caller for one, so nothing with controllers can be below it.
        top = os.path.dirname(hierarchy.own) if hierarchy.own != hierarchy.mount else hierarchy.mount
        directory = os.path.join(top, path)
    else:
        top, directory = hierarchy.root, os.path.join(hierarchy.root, PARENT, container_id)
    cgroup = Cgroup(os.path.normpath(directory))
    hand_down(top, cgroup, hierarchy.controllers)
    return cgroup


def scope_of(config: spec.Config, container_id: str, manager: str) -> Scope | None:
    """The scope that systemd is to make, if it is the manager."""
    if manager != "systemd":
        return None
    from cgroups import systemd

    return systemd.scope_of(config.linux.cgroups_path if config.linux else "", container_id, config.annotations)


def forget_parent(cgroup: Cgroup | None) -> None:
    """Remove the directory that `cgroup_of` made above a container's cgroup, if that was the last one in it."""
    if cgroup is not None and os.path.basename(os.path.dirname(cgroup.path)) == PARENT:
        try:
            os.rmdir(os.path.dirname(cgroup.path))
        except OSError:
            pass  # others are in it, or somebody was faster
