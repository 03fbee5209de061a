"""The operations of a plan that are no mount: the container's cgroup, joined namespaces, names, sysctls."""

from __future__ import annotations

import os

from cgroups.devices import restrict
from kernel import process
from kernel.errors import Conflict, ContainerError
from kernel.mounts import PROC_SUPER_MAGIC, statfs_type
from kernel.operation import Operation
from kernel.paths import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, open_in_root, openat2
from netns.loopback import raise_loopback
from runtime.checks.sysctl import components

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from cgroups.controllers import Limits
    from cgroups.device_rules import Rule
    from cgroups.systemd import Scope
    from kernel.operation import Assembly

NAMESPACE_FLAGS = {
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "network": process.CLONE_NEWNET,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
    "cgroup": process.CLONE_NEWCGROUP,
    "user": process.CLONE_NEWUSER,
    "time": process.CLONE_NEWTIME,
}


def end(cgroup: Cgroup) -> None:
    """Kill what is in a cgroup, and remove it."""
    if cgroup.exists():
        cgroup.kill()
        cgroup.wait_empty(5)
        cgroup.delete()


class CreateCgroup(Operation):
    """The container's cgroup with its limits."""

    cgroup: Cgroup
    limits: Limits

    def describe(self) -> str:
        written = " ".join(f"{name}={value!r}" for name, value in self.limits.files())
        return f"create cgroup {self.cgroup.path} {written}".rstrip()

    def execute(self, assembly: Assembly) -> None:
        if self.cgroup.exists() and (self.cgroup.populated() or self.cgroup.frozen()):
            what = "unexpectedly frozen" if self.cgroup.frozen() else "is not empty"
            raise Conflict(
                f"container's cgroup {what}: {self.cgroup}", remedy="give each container a cgroup of its own"
            )
        self.cgroup.create()
        assembly.fds["cgroup"] = self.cgroup.open()
        self.limits.apply(self.cgroup)

    def undo(self, assembly: Assembly) -> None:
        fd = assembly.fds.pop("cgroup", -1)
        if fd < 0:
            return  # it is somebody else's
        os.close(fd)
        end(self.cgroup)


class StartScope(Operation):
    """The container's cgroup as a scope of systemd around its first process, with its limits."""

    scope: Scope
    cgroup: Cgroup
    limits: Limits
    mount: str

    def describe(self) -> str:
        written = " ".join(f"{name}={value!r}" for name, value in self.limits.files())
        return f"have systemd start {self.scope.name} in {self.scope.slice} {written}".rstrip()

    def execute(self, assembly: Assembly) -> None:
        from cgroups.cgroup import hand_down
        from cgroups.systemd import start_scope

        start_scope(self.scope, assembly.pid, self.limits)
        assembly.fds["scope"] = self.cgroup.open()
        hand_down(self.mount, self.cgroup, self.limits.needs())
        self.limits.apply(self.cgroup)

    def undo(self, assembly: Assembly) -> None:
        from cgroups.systemd import stop_scope

        fd = assembly.fds.pop("scope", -1)
        if fd < 0:
            return  # it is somebody else's, or there is none
        os.close(fd)
        stop_scope(self.scope.name)
        end(self.cgroup)


class RestrictDevices(Operation):
    """Which devices the container may use, by a program on its cgroup, with which it goes."""

    cgroup: Cgroup
    rules: tuple[Rule, ...]

    def describe(self) -> str:
        return f"restrict devices of {self.cgroup.path}: {', '.join(map(str, self.rules))}"

    def execute(self, assembly: Assembly) -> None:
        restrict(self.cgroup, self.rules)


class AskParent(Operation):
    """Wait while the creating process executes the plan's operations of this name, which only it can."""

    what: str

    def describe(self) -> str:
        return f"wait for the parent: {self.what}"

    def execute(self, assembly: Assembly) -> None:
        assert assembly.ask is not None
        assembly.ask(self.what)


def check_not_ours(fd: int, path: str) -> None:
    """Refuse a mount namespace that the runtime itself is in: pivot_root(2) there would take everybody's root away."""
    if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/mnt")):
        raise ContainerError(f"mount namespace {path!r} is the runtime's own, whose root would become the container's")


class JoinNamespace(Operation):
    """setns(2) to a namespace that exists."""

    kind: str
    path: str

    def describe(self) -> str:
        return f"join {self.kind} namespace {self.path}"

    def execute(self, assembly: Assembly) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self.kind == "mount":
                check_not_ours(fd, self.path)
            process.setns(fd, NAMESPACE_FLAGS[self.kind])
        finally:
            os.close(fd)


class NewCgroupNamespace(Operation):
    """unshare(2) once inside the cgroup: clone3 would take the parent's cgroup for the namespace's root."""

    def describe(self) -> str:
        return "unshare the cgroup namespace"

    def execute(self, assembly: Assembly) -> None:
        process.unshare(process.CLONE_NEWCGROUP)


class RaiseLoopback(Operation):
    """Set lo up: in a new network namespace it is down, and 127.0.0.1 unreachable."""

    def describe(self) -> str:
        return "set lo up"

    def execute(self, assembly: Assembly) -> None:
        raise_loopback()


class SetHostname(Operation):
    """Host and domain name of the uts namespace."""

    hostname: str
    domainname: str = ""

    def describe(self) -> str:
        return f"name the host {self.hostname!r}" + (f" in domain {self.domainname!r}" if self.domainname else "")

    def execute(self, assembly: Assembly) -> None:
        if self.hostname:
            process.sethostname(self.hostname)
        if self.domainname:
            process.setdomainname(self.domainname)


class SetSysctl(Operation):
    """A kernel parameter of the container's namespaces, through the container's own procfs.

    The file is opened below the fresh /proc without crossing a mount or a link, so that the write reaches the
    parameter and nothing put in its place (CVE-2025-52881).
    """

    name: str
    value: str

    def describe(self) -> str:
        return f"set sysctl {self.name}={self.value!r}"

    def execute(self, assembly: Assembly) -> None:
        proc = open_in_root(assembly.root, "/proc", os.O_PATH | os.O_DIRECTORY)
        try:
            if statfs_type(proc) != PROC_SUPER_MAGIC:
                raise ContainerError("/proc in the container is not a procfs: kernel parameters cannot be set there")
            path = "/".join(["sys", *components(self.name)])
            resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
            fd = openat2(proc, path, os.O_WRONLY, resolve=resolve)
        finally:
            os.close(proc)
        try:
            os.write(fd, self.value.encode())
        finally:
            os.close(fd)
