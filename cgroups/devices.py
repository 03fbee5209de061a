"""Which devices a cgroup may use: the program of `device_rules`, loaded and attached.

cgroup v2 has no file for this: the kernel asks the programs attached to the cgroup and its ancestors at each open(2)
and mknod(2) of a device, and all must allow it (Documentation/admin-guide/cgroup-v2.rst, "Device controller").
"""

from __future__ import annotations

import os

from cgroups.device_rules import compile_rules
from kernel import bpf
from kernel.errors import HostError, SystemCallError

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgroups.cgroup import Cgroup
    from cgroups.device_rules import Rule

_NOT_POSSIBLE = (1, 13, 22, 38, 95)  # EPERM, EACCES, EINVAL, ENOSYS, EOPNOTSUPP


def restrict(cgroup: Cgroup, rules: Iterable[Rule]) -> None:
    """Let `cgroup` use what `rules` allow and nothing else; rules that were set on it before are replaced at once.

    Raises HostError where this process may not load or attach the program.
    """
    program = _load(compile_rules(rules), cgroup)
    try:
        directory = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _attach(program, directory)
        except SystemCallError as error:
            raise _refused(error, cgroup) from error
        finally:
            os.close(directory)
    finally:
        os.close(program)


def _load(instructions: bytes, cgroup: Cgroup) -> int:
    try:
        return bpf.prog_load(bpf.PROG_TYPE_CGROUP_DEVICE, instructions, name="rawpod_devices")
    except SystemCallError as error:
        raise _refused(error, cgroup) from error


def _attach(program: int, directory: int) -> None:
    older = []
    try:
        for identity in bpf.prog_query(directory, bpf.CGROUP_DEVICE):
            older.append(bpf.prog_get_fd_by_id(identity))
        if len(older) == 1:
            flags = bpf.F_ALLOW_MULTI | bpf.F_REPLACE
            bpf.prog_attach(program, directory, bpf.CGROUP_DEVICE, flags, replace=older[0])
            return
        # The new one first: between the two calls both hold, and nothing is open that should not be.
        bpf.prog_attach(program, directory, bpf.CGROUP_DEVICE)
        for other in older:
            bpf.prog_detach(other, directory, bpf.CGROUP_DEVICE)
    finally:
        for other in older:
            os.close(other)


def _refused(error: SystemCallError, cgroup: Cgroup) -> HostError | SystemCallError:
    if isinstance(error, bpf.VerifierError) or error.errno not in _NOT_POSSIBLE:
        return error
    return HostError(
        f'cannot restrict the devices of "{cgroup}": {error.message}',
        remedy="a cgroup v2 device program needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) outside of user "
        "namespaces, a kernel with CONFIG_CGROUP_BPF, and no lockdown",
    )
