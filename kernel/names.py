"""Names that OCI and the kernel share, and their numbers; lists of numbers as both write them. No system call.

From include/uapi/linux: capability.h, sched.h, ioprio.h, mempolicy.h, personality.h; asm-generic/resource.h.
"""

from __future__ import annotations

MAX_ID = 2**32 - 2  # 2^32 - 1 is (uid_t) -1, which setuid(2) and chown(2) read as "leave unchanged"

_CAPABILITY_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES: dict[str, int] = {f"CAP_{name}": number for number, name in enumerate(_CAPABILITY_NAMES.split())}
"""Number of each capability, capabilities(7)."""

_RESOURCES = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_RESOURCES.split())}

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""Number of each policy (sched(7)). The kernel has reserved SCHED_ISO and never given it a meaning."""

SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

MEMORY_POLICIES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_POLICY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}

PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}


def parse_list(text: str, limit: int = 8192) -> tuple[int, ...]:
    """The numbers in a list such as "0-3,7", in which the kernel and OCI write processors and memory nodes.

    Raises ValueError for anything else, and for numbers of `limit` and more.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (_is_number(first) and (not dash or _is_number(last))):
            raise ValueError(f"{text!r} is not a list such as '0-3,7'")
        low, high = int(first), int(last if dash else first)
        if low > high or high >= limit:
            raise ValueError(f"{part.strip()!r} is not a range from low to high, below {limit}")
        numbers.extend(range(low, high + 1))
    return tuple(numbers)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


TMPFS_OPTIONS = frozenset({"mode", "uid", "gid", "size", "nr_blocks", "nr_inodes"})
"""What the filesystem tmpfs itself takes (tmpfs(5))."""
