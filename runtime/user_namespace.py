"""What a container with a user or time namespace of its own takes: maps, the change to its root, clock offsets.

A process in a new user namespace is nobody until the creating process, which is privileged outside, has written how
ids map (user_namespaces(7)). What needs privileges of the host is done by that process as well, for the new one.
"""

from __future__ import annotations

import os

from kernel.errors import ContainerError, SystemCallError
from kernel.operation import Operation
from kernel.process import CLONE_NEWIPC, CLONE_NEWTIME, setns, unshare
from rootfs.idmap import write_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Assembly
    from rootfs.idmap import IdMaps


class WriteIdMaps(Operation):
    """For the creating process: uid_map and gid_map of the new one's user namespace."""

    maps: IdMaps

    def describe(self) -> str:
        return f"map ids {self.maps.shown()}"

    def execute(self, assembly: Assembly) -> None:
        write_maps(assembly.pid, self.maps)


class BecomeRoot(Operation):
    """Take on id 0 of the user namespace, with which the container is assembled."""

    def describe(self) -> str:
        return "become root of the user namespace"

    def execute(self, assembly: Assembly) -> None:
        try:
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as error:
            raise ContainerError(
                f"the user namespace has no root to become: {os.strerror(error.errno or 0).lower()}",
                remedy="map id 0 of the container, users and groups",
            ) from None


class NewIpcNamespace(Operation):
    """unshare(2) as root of the user namespace: its maker owns the message queues' directory (mq_overview(7))."""

    def describe(self) -> str:
        return "unshare the ipc namespace"

    def execute(self, assembly: Assembly) -> None:
        unshare(CLONE_NEWIPC)


class NewTimeNamespace(Operation):
    """unshare(2): a time namespace for children to come, whose clocks can still be set (time_namespaces(7))."""

    def describe(self) -> str:
        return "unshare the time namespace"

    def execute(self, assembly: Assembly) -> None:
        unshare(CLONE_NEWTIME)


class SetTimeOffsets(Operation):
    """For the creating process: offsets of the new one's clocks, (clock, seconds, nanoseconds)."""

    offsets: tuple[tuple[str, int, int], ...]

    def describe(self) -> str:
        return "offset clocks: " + ", ".join(f"{clock} {secs}.{nanos:09d} s" for clock, secs, nanos in self.offsets)

    def execute(self, assembly: Assembly) -> None:
        path = f"/proc/{assembly.pid}/timens_offsets"
        text = "".join(f"{clock} {secs} {nanos}\n" for clock, secs, nanos in self.offsets)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise SystemCallError("write", {"file": path, "data": text}, error.errno or 0) from None
        finally:
            os.close(fd)


class EnterTimeNamespace(Operation):
    """setns(2) into the time namespace that was made for children. From here on its offsets are fixed."""

    def describe(self) -> str:
        return "enter the time namespace"

    def execute(self, assembly: Assembly) -> None:
        fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWTIME)
        finally:
            os.close(fd)
