"""Operations for what a process has beside its identity: scheduling, limits, OOM score, session keyring, directory.

Those that change `assembly.pid` are executed by the creating process while the new one waits: they ask for capabilities
of the host's own user namespace, which the first process of a new one has given up. With pid 0 they change the caller.
"""

from __future__ import annotations

import os

from kernel import credentials, keyring, names, rlimits, scheduling
from kernel.errors import ContainerError, SystemCallError
from kernel.operation import Operation
from kernel.paths import mkdir_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.operation import Assembly
    from runtime import spec

_ENOSYS, _ELOOP = 38, 40


class SetOomScoreAdj(Operation):
    """How readily the kernel picks the container when memory is out, -1000 to 1000 (proc_pid_oom_score_adj(5))."""

    value: int

    def describe(self) -> str:
        return f"set oom_score_adj {self.value}"

    def execute(self, assembly: Assembly) -> None:
        try:
            with open(f"/proc/{assembly.pid or 'self'}/oom_score_adj", "w") as file:
                file.write(str(self.value))
        except PermissionError:
            raise ContainerError(
                f"oom_score_adj {self.value}: permission denied", remedy="lowering it needs CAP_SYS_RESOURCE"
            ) from None


class RaiseRlimit(Operation):
    """Raise a hard limit where the one asked for is above. The exact values come last: a low one would hinder us."""

    type: str
    hard: int

    def describe(self) -> str:
        return f"allow {self.type} up to {self.hard}"

    def execute(self, assembly: Assembly) -> None:
        resource = names.RLIMITS[self.type]
        soft, hard = rlimits.get_rlimit(assembly.pid, resource)
        if self.hard <= hard:
            return
        try:
            rlimits.set_rlimit(assembly.pid, resource, soft, self.hard)
        except SystemCallError as error:
            raise ContainerError(
                f"{self.type} hard {self.hard} is above the runtime's own {hard}: {error.strerror}",
                remedy="raising a hard limit needs CAP_SYS_RESOURCE",
            ) from None


class SetScheduler(Operation):
    """`process.scheduler`: sched_setattr(2)."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def describe(self) -> str:
        return f"schedule as {self.policy} nice {self.nice} priority {self.priority} {' '.join(self.flags)}".rstrip()

    def execute(self, assembly: Assembly) -> None:
        flags = 0
        for flag in self.flags:
            flags |= names.SCHED_FLAGS[flag]
        try:
            scheduling.sched_setattr(
                assembly.pid,
                names.POLICIES[self.policy],
                nice=self.nice,
                priority=self.priority,
                flags=flags,
                runtime=self.runtime,
                deadline=self.deadline,
                period=self.period,
            )
        except SystemCallError as error:
            raise ContainerError(
                f"process.scheduler: {self.policy}: {error.strerror}",
                remedy=_scheduler_remedy(self.policy, error.errno),
            ) from None


def _scheduler_remedy(policy: str, errno: int) -> str | None:
    if policy == "SCHED_ISO":
        return "Linux has reserved this policy and does not have it"
    if errno == 1:
        return "needs CAP_SYS_NICE, and real-time bandwidth in the cgroup where the kernel divides it among groups"
    return None


class SetIOPriority(Operation):
    """`process.ioPriority`, of the whole process group: ioprio_set(2)."""

    io_class: str
    priority: int

    def describe(self) -> str:
        return f"set I/O priority {self.io_class} {self.priority}"

    def execute(self, assembly: Assembly) -> None:
        io_class = names.IOPRIO_CLASSES[self.io_class]
        try:
            scheduling.ioprio_set(scheduling.IOPRIO_WHO_PGRP, assembly.pid, io_class, self.priority)
        except SystemCallError as error:
            raise ContainerError(
                f"process.ioPriority: {self.io_class} {self.priority}: {error.strerror}",
                remedy="the real-time class needs CAP_SYS_NICE or CAP_SYS_ADMIN" if error.errno == 1 else None,
            ) from None


def from_process(process: spec.Process) -> Iterator[Operation]:
    """The operations that `process` asks for, for whoever has the privileges."""
    if process.oom_score_adj is not None:
        yield SetOomScoreAdj(process.oom_score_adj)
    for limit in process.rlimits:
        yield RaiseRlimit(limit.type, limit.hard)
    if (asked := process.scheduler) is not None:
        yield SetScheduler(
            asked.policy,
            asked.nice,
            asked.priority,
            tuple(asked.flags),
            asked.runtime,
            asked.deadline,
            asked.period,
        )
    if process.io_priority is not None:
        yield SetIOPriority(process.io_priority.class_, process.io_priority.priority)


class ResetAffinity(Operation):
    """Run wherever the container's cpuset allows, and not only where the runtime was told to run."""

    def describe(self) -> str:
        return "take any processor of the cpuset"

    def execute(self, assembly: Assembly) -> None:
        scheduling.reset_affinity(0)


class SetAffinity(Operation):
    """Run on these processors alone."""

    cpus: tuple[int, ...]

    def describe(self) -> str:
        return f"take the processors {self.cpus}"

    def execute(self, assembly: Assembly) -> None:
        try:
            scheduling.sched_setaffinity(0, self.cpus)
        except SystemCallError as error:
            raise ContainerError(
                f"processors {self.cpus}: {error.strerror}", remedy="one of them at least is to be in the cpuset"
            ) from None


class JoinSessionKeyring(Operation):
    """A session keyring of the container's own, which processes that join it later find by its name."""

    name: str
    user_namespace: bool = False

    def describe(self) -> str:
        return f"join session keyring {self.name}"

    def execute(self, assembly: Assembly) -> None:
        try:
            serial = keyring.join_session_keyring(self.name)
        except SystemCallError as error:
            if error.errno != _ENOSYS:
                raise
            return  # a kernel without keyrings has none to keep apart
        # Whoever joins has to be able to find it; in another user namespace that is not the owner.
        search = keyring.KEY_OTH_SEARCH if self.user_namespace else keyring.KEY_USR_SEARCH
        keyring.set_key_permissions(serial, keyring.key_permissions(serial) | search)


def session_keyring(container_id: str) -> str:
    """The name of a container's session keyring: as runc names it."""
    return f"_ses.{container_id}"


class MakeWorkingDirectory(Operation):
    """The working directory, made where it is missing. No link leads out of the root."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} if it is missing"

    def execute(self, assembly: Assembly) -> None:
        try:
            os.close(mkdir_in_root(assembly.root, self.path))
        except SystemCallError as error:
            # A magic link, as /proc/self/fd/7: chdir follows it, and what follows is looked at then.
            if error.errno != _ELOOP:
                raise
        except OSError as error:
            raise ContainerError(f"{self.path!r} cannot be made: {os.strerror(error.errno or 0).lower()}") from None


class HideMemory(Operation):
    """While the new process has the host's memory and descriptors, nobody in the pid namespace it joins looks into it.

    execve makes it dumpable again (CVE-2016-9962).
    """

    def describe(self) -> str:
        return "become undumpable"

    def execute(self, assembly: Assembly) -> None:
        credentials.set_dumpable(False)
