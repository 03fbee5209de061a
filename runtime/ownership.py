"""What of the host is given to a container's user: the pipes of its stdio, its cgroup."""

from __future__ import annotations

import os
import stat

from kernel.operation import Operation
from runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from kernel.operation import Assembly

# Where the kernel has no list of its own (/sys/kernel/cgroup/delegate).
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def host_uid(linux: spec.Linux | None, uid: int) -> int | None:
    """A user of the container as the host sees it; None in a user namespace whose maps are not known."""
    if linux is None or not any(namespace.type == "user" for namespace in linux.namespaces):
        return uid
    for row in linux.uid_mappings:
        if row.container_id <= uid < row.container_id + row.size:
            return row.host_id + uid - row.container_id
    return None


def own_pipes(stdio: tuple[int, int, int], linux: spec.Linux | None, process: spec.Process | None) -> None:
    """Give pipes to the process's user, who may want to open them by name again: /dev/stdout is /proc/self/fd/1."""
    owner = host_uid(linux, process.user.uid if process else 0)
    if owner is None:
        return
    for fd in set(stdio):
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode) and status.st_uid != owner:
            os.fchown(fd, owner, -1)


def wants_cgroup(config: spec.Config) -> bool:
    """Whether the container's cgroup is to be its user's: a namespace of its own and a writable mount.

    Source: config-linux.md, "Cgroup ownership".
    """
    linux = config.linux or spec.Linux()
    own = any(namespace.type == "cgroup" and not namespace.path for namespace in linux.namespaces)
    return own and any(
        mount.type in ("cgroup", "cgroup2")
        and os.path.normpath("/" + mount.destination).lstrip("/") == "sys/fs/cgroup"
        and "ro" not in mount.options
        for mount in config.mounts
    )


class OwnCgroup(Operation):
    """Make `uid` the owner of the cgroup's directory and of the files that the kernel names as safe to give away."""

    cgroup: Cgroup
    uid: int

    def describe(self) -> str:
        return f"give cgroup {self.cgroup.path} to uid {self.uid}"

    def execute(self, assembly: Assembly) -> None:
        try:
            with open("/sys/kernel/cgroup/delegate") as file:
                names = tuple(file.read().split())
        except FileNotFoundError:
            names = _DELEGATED
        os.chown(self.cgroup.path, self.uid, -1)
        for name in names:
            try:
                os.chown(self.cgroup.file(name), self.uid, -1)
            except FileNotFoundError:
                pass  # the list holds files of controllers, too, which need not be enabled
