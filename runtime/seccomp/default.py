"""The profile of what runs without one of its own: an allow-list, EPERM for the rest.

What is left out, and why:

- what changes or looks into the host's kernel: modules, kexec, swap, accounting, clocks, reboot, bpf, perf, I/O ports
- new namespaces, by unshare, setns or flags of clone: they open code of the kernel that is for root otherwise.
  clone3 takes its flags in memory, where no filter looks: ENOSYS, and C libraries use clone
- mount and all of its kin
- io_uring: work for the kernel that no filter sees
- keyrings, which are not part of any namespace (keyctl, add_key, request_key); userfaultfd, which makes races in the
  kernel easy to win; memory policies and NUMA moves
- sockets other than local ones, IP, netlink and packets: AF_ALG (CVE-2026-31431) and AF_VSOCK, which reaches the host
  past every network namespace, and families that few use and nobody looks after. i386's socketcall(2) takes the
  family in memory: 32-bit programs have to use socket(2), which Linux has had for them since 4.3

A capability brings the calls that are good for nothing without it. x32, which nobody uses and Debian's kernels have
turned off, is left out as a whole, and a call of it ends the process.
"""

from __future__ import annotations

from runtime import spec
from runtime.seccomp.conditions import EQ, MASKED_EQ, NE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ARCHITECTURES = ("X86_64", "X86", "AARCH64", "ARM")
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_EPERM, _ENOSYS = 1, 38

_FILES = """
access faccessat faccessat2 chdir fchdir chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown
lchown32 creat open openat openat2 close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl umask getcwd getdents
getdents64 link linkat symlink symlinkat readlink readlinkat mkdir mkdirat mknod mknodat rename renameat renameat2 rmdir
unlink unlinkat stat stat64 fstat fstat64 lstat lstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
truncate truncate64 ftruncate ftruncate64 fallocate utime utimes utimensat utimensat_time64 futimesat getxattr lgetxattr
fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat removexattr
lremovexattr fremovexattr removexattrat file_getattr file_setattr inotify_init inotify_init1 inotify_add_watch
inotify_rm_watch fanotify_mark name_to_handle_at statmount listmount
"""
_DATA = """
read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek sendfile sendfile64
copy_file_range splice tee vmsplice pipe pipe2 fsync fdatasync sync syncfs sync_file_range sync_file_range2
arm_sync_file_range readahead fadvise64 fadvise64_64 arm_fadvise64_64 cachestat io_setup io_submit io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64
"""
_WAITING = """
select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl epoll_wait
epoll_pwait epoll_pwait2 epoll_ctl_old epoll_wait_old eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime
timerfd_settime64 timerfd_gettime timerfd_gettime64
"""
_MEMORY = """
brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal
remap_file_pages memfd_create memfd_secret map_shadow_stack pkey_alloc pkey_free pkey_mprotect membarrier cacheflush
"""
_PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open pidfd_send_signal
process_mrelease getpid getppid gettid getpgid getpgrp setpgid getsid setsid getpriority setpriority ioprio_get
ioprio_set getrlimit ugetrlimit setrlimit prlimit64 getrusage times prctl arch_prctl modify_ldt set_thread_area
get_thread_area set_tls breakpoint set_tid_address set_robust_list get_robust_list rseq rseq_slice_yield restart_syscall
uretprobe ptrace process_vm_readv process_vm_writev seccomp landlock_create_ruleset landlock_add_rule
landlock_restrict_self futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue sched_yield sched_getaffinity
sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler
sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getcpu
"""
_IDENTITY = """
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset
"""
_SIGNALS = """
rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_sigqueueinfo
rt_tgsigqueueinfo rt_sigreturn sigprocmask sigreturn sigaltstack pause alarm getitimer setitimer
"""
_TIME = """
time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64
clock_adjtime clock_adjtime64 adjtimex nanosleep timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64
"""
_COMMUNICATION = """
socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt shutdown send sendto sendmsg
sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 mq_open mq_unlink mq_getsetattr mq_notify mq_timedsend
mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 ipc msgget msgctl msgsnd msgrcv semget semctl semop
semtimedop semtimedop_time64 shmget shmctl shmat shmdt
"""
_SYSTEM = "uname sysinfo getrandom"

_ALLOWED = [
    name
    for group in (
        *(_FILES, _DATA, _WAITING, _MEMORY, _PROCESSES),
        *(_IDENTITY, _SIGNALS, _TIME, _COMMUNICATION, _SYSTEM),
    )
    for name in group.split()
]

_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listns lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open "
        "quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}

# socket(2): AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET; and with CAP_NET_ADMIN AF_KEY, AF_PPPOX, AF_XDP.
_FAMILIES, _FAMILIES_OF_ADMIN = (1, 2, 10, 16, 17), (15, 24, 44)

_SYS_SOCKET = 1  # socketcall(2), linux/net.h

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET; clone(2) has no flag for a time namespace.
_NEW_NAMESPACES = 0x7E020000

# personality(2): PER_LINUX, PER_LINUX32, each with UNAME26 or without, and the question for what is set. Others turn
# the randomization of addresses off, or let memory be executed that was not mapped so.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_profiles: dict[frozenset[str], spec.Seccomp] = {}


def default_profile(capabilities: Iterable[str]) -> spec.Seccomp:
    """The default for a process whose bounding set has these capabilities (names with CAP_).

    The same object each time, not to be changed.
    """
    key = frozenset(capabilities) & (_BY_CAPABILITY.keys() | {"CAP_NET_ADMIN"})
    if key not in _profiles:
        _profiles[key] = _build(key)
    return _profiles[key]


def _build(capabilities: frozenset[str]) -> spec.Seccomp:
    names = [*_ALLOWED]
    for capability in sorted(capabilities & _BY_CAPABILITY.keys()):
        names += [name for name in _BY_CAPABILITY[capability].split() if name not in names]
    families = _FAMILIES + (_FAMILIES_OF_ADMIN if "CAP_NET_ADMIN" in capabilities else ())
    groups = [
        spec.SeccompSyscall(names, _ALLOW),
        _allow_any("socket", EQ, *families),
        _allow_any("socketcall", NE, _SYS_SOCKET),
        _allow_any("personality", EQ, *_PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        groups.append(_allow_any("clone", MASKED_EQ, _NEW_NAMESPACES))
        groups.append(spec.SeccompSyscall(["clone3"], _ERRNO, _ENOSYS))
    return spec.Seccomp(_ERRNO, _EPERM, architectures=[f"SCMP_ARCH_{name}" for name in _ARCHITECTURES], syscalls=groups)


def _allow_any(name: str, op: str, *values: int) -> spec.SeccompSyscall:
    """Allowed where the first argument compares so with one of the values: on one argument, conditions are ORed."""
    return spec.SeccompSyscall([name], _ALLOW, args=[spec.SeccompArg(0, value, op) for value in values])
