"""Where cgroup v2 is on this host, which part of it is ours, and which controllers it has.

Nothing is assumed about /sys/fs/cgroup. A pure host mounts cgroup2 there, a hybrid one at /sys/fs/cgroup/unified while
controllers stay on v1, and inside a cgroup namespace the mount shows only a part of the tree. The answer is read from
/proc/self/mountinfo and /proc/self/cgroup (cgroups(7), cgroup_namespaces(7)).
"""

from __future__ import annotations

import os

from cgroups.files import read, read_raw
from cgroups.membership import parse_membership
from kernel.errors import BadInput, HostError
from kernel.mountinfo import MountRow, parse_mountinfo
from kernel.record import Record

V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
"""The controllers rawpod sets limits with."""

V1_NAMES = {"io": "blkio"}
"""Controllers whose name on v1 differs."""

_MOUNT_REMEDY = (
    "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line, or for cgroups without limits "
    "`mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
)


class Hierarchy(Record):
    """The cgroup2 hierarchy as this process sees it.

    mount: where cgroup2 is mounted. mount_root: the cgroup shown there, as /proc/self/cgroup would name it.
    root: directory of the subtree that is ours to change. own: directory of the cgroup this process is in.
    controllers: those that can be enabled below root. v1_controllers: those taken by a v1 hierarchy, by their v1 name,
    with the mount point, or None where that hierarchy is not mounted here. hybrid: some controller is on v1.
    disabled: controllers that the kernel has and was told not to use.
    """

    mount: str
    root: str
    controllers: frozenset[str]
    v1_controllers: dict[str, str | None]
    own: str
    hybrid: bool
    mount_root: str = "/"
    disabled: frozenset[str] = frozenset()

    def at(self, path: str) -> str:
        """The directory of a cgroup given as /proc/self/cgroup shows it ("/rawpod-demo"), on any layout.

        Raises BadInput for a path that is relative, climbs with ".." or lies outside of what the mount shows.
        """
        if not path.startswith("/") or ".." in path.split("/"):
            raise BadInput(
                f'cgroup "{path}" is not an absolute path', remedy='give it as /proc/self/cgroup does, like "/rawpod"'
            )
        return _directory(self.mount, self.mount_root, path)

    def subtree(self, path: str | None) -> str:
        """The directory rawpod works below: `path` as `at` takes it, or rawpod/ in the delegated subtree for None."""
        return os.path.join(self.root, "rawpod") if path is None else self.at(path)

    def name(self, directory: str) -> str:
        """The inverse of `at`: how /proc/PID/cgroup names the cgroup at `directory`."""
        below = _below(self.mount, directory)
        if below is None:
            raise BadInput(f'"{directory}" is no cgroup: cgroup2 is mounted at "{self.mount}"')
        return os.path.normpath(os.path.join(self.mount_root, below))

    def remedy(self, controller: str) -> str:
        """How to get `controller` onto v2 on this host."""
        v1 = V1_NAMES.get(controller, controller)
        if v1 in self.v1_controllers:
            return (
                f"it is on cgroup v1; boot with systemd.unified_cgroup_hierarchy=1, or with cgroup_no_v1={v1}, "
                "on the kernel command line"
            )
        if v1 in self.disabled:
            return f"it is disabled; boot with cgroup_enable={v1} on the kernel command line"
        if self.root != self.mount:
            return f'it is not delegated to "{self.name(self.root)}"; set Delegate=yes for the systemd unit'
        return "this kernel was built without it"


def find(proc: str = "/proc") -> Hierarchy:
    """Find the hierarchy from /proc/self. Raises HostError with a remedy where there is no usable cgroup2 mount."""
    rows = parse_mountinfo(read_raw(f"{proc}/self/mountinfo"))
    membership = parse_membership(read_raw(f"{proc}/self/cgroup"))
    if membership.unified is None:
        raise HostError("this kernel has no cgroup v2", remedy="rawpod needs Linux 6.1 or later with CONFIG_CGROUPS")
    mounts = [row for row in rows if row.filesystem == "cgroup2" and _visible(row)]
    if not mounts:
        raise HostError("no cgroup2 file system is mounted", remedy=_MOUNT_REMEDY)
    row = next((row for row in mounts if _shows(row, membership.unified) and not _covered(row, mounts)), None)
    if row is None:
        raise HostError(
            f'the cgroup2 mount at "{mounts[0].mount_point}" does not show our cgroup "{membership.unified}"',
            remedy="mount one in this cgroup namespace: `mount -t cgroup2 none /sys/fs/cgroup`",
        )
    own = _directory(row.mount_point, row.root, membership.unified)
    root = delegated(own, row.mount_point)
    return Hierarchy(
        mount=row.mount_point,
        root=root,
        controllers=frozenset(read(os.path.join(root, "cgroup.controllers")).split()),
        v1_controllers={name: _v1_mount(rows, name) for name in membership.v1},
        own=own,
        hybrid=bool(membership.v1),
        mount_root=row.root,
        disabled=_disabled(proc),
    )


def delegated(own: str, mount: str) -> str:
    """The nearest of `own` and its ancestors that is delegated, else the top of the mount.

    systemd marks a delegated unit's cgroup with an extended attribute, "trusted.delegate" for root and "user.delegate"
    as well since version 251 (https://systemd.io/CGROUP_DELEGATION). Above the mark the tree belongs to systemd.
    """
    directory = own
    while directory != mount:
        if any(_attribute(directory, name) == b"1" for name in ("trusted.delegate", "user.delegate")):
            return directory
        directory = os.path.dirname(directory)
    return mount


def _attribute(directory: str, name: str) -> bytes | None:
    try:
        return os.getxattr(directory, name)
    except OSError:
        return None


def _visible(row: MountRow) -> bool:
    """Whether the row's mount is what its mount point leads to: later mounts cover earlier ones."""
    try:
        status = os.stat(row.mount_point)
    except OSError:
        return False
    return (os.major(status.st_dev), os.minor(status.st_dev)) == row.device


def _covered(row: MountRow, mounts: list[MountRow]) -> bool:
    """Whether a mount of the same hierarchy lies over this one, and has a cgroup of its mount point's name.

    Both would show the same cgroup, and so the same inode, if each were where its row says.
    """
    return any(
        (other.device, other.root) == (row.device, row.root)
        and row.mount_point.startswith(f"{other.mount_point}/")
        and os.stat(row.mount_point).st_ino != os.stat(other.mount_point).st_ino
        for other in mounts
    )


def _shows(row: MountRow, cgroup: str) -> bool:
    # A root that begins with "/.." is above our cgroup namespace: the names on the way down to us are not known.
    return not row.root.startswith("/..") and _below(row.root, cgroup) is not None


def _below(root: str, cgroup: str) -> str | None:
    if root == "/":
        return None if cgroup.startswith("/..") else cgroup.lstrip("/")
    if cgroup == root:
        return ""
    return cgroup[len(root) + 1 :] if cgroup.startswith(root + "/") else None


def _directory(mount: str, mount_root: str, cgroup: str) -> str:
    below = _below(mount_root, cgroup)
    if below is None:
        raise BadInput(
            f'cgroup "{cgroup}" is outside of "{mount_root}", which is all that "{mount}" shows',
            remedy=f'name one below "{mount_root}"',
        )
    return os.path.normpath(os.path.join(mount, below))


def _v1_mount(rows: list[MountRow], controller: str) -> str | None:
    return next(
        (row.mount_point for row in rows if row.filesystem == "cgroup" and controller in row.super_options), None
    )


def _disabled(proc: str) -> frozenset[str]:
    """Controllers the kernel has but was told not to use (the "enabled" column of /proc/cgroups)."""
    try:
        lines = read_raw(f"{proc}/cgroups").splitlines()[1:]
    except OSError:  # gone where v1 is not built in
        return frozenset()
    return frozenset(line.split()[0] for line in lines if line.split()[3] == "0")
