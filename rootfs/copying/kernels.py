"""File systems that are the kernel's word and nobody's files: nothing is copied out of them or into them."""

from __future__ import annotations

import os

from kernel.errors import NotSupported
from kernel.mounts import CGROUP2_SUPER_MAGIC, NSFS_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs_type

# statfs(2), f_type
_KERNELS = {
    PROC_SUPER_MAGIC: "proc",
    SYSFS_MAGIC: "sysfs",
    CGROUP2_SUPER_MAGIC: "cgroup2",
    NSFS_MAGIC: "nsfs",
    0x0027E0EB: "cgroup",
    0x00001CD1: "devpts",
    0x19800202: "mqueue",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0xCAFE4A11: "bpf",
    0xF97CFF8C: "selinuxfs",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x42494E4D: "binfmt_misc",
    0x65735543: "fusectl",
}


def kernel_filesystem(fd: int) -> str:
    """The name of the kernel's file system that an open file is on; "" for any other."""
    return _KERNELS.get(statfs_type(fd) & 0xFFFFFFFF, "")


def check_ordinary(fd: int) -> None:
    """Raises NotSupported for a file of the kernel's file systems."""
    if name := kernel_filesystem(fd):
        raise NotSupported(
            f"it is on a {name} file system, which is the kernel's", remedy="use `rawpod exec` to read or write it"
        )


def ordinary(fd: int) -> int:
    """The descriptor `fd`, which is closed where check_ordinary() raises."""
    try:
        check_ordinary(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
