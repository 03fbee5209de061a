"""The default profile, call by call."""

import pytest

from runtime.seccomp import compiler
from runtime.seccomp.architectures import AARCH64, ARM, X86, X86_64
from runtime.seccomp.default import default_profile
from tests import bpf

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
ALL = (X86_64, X86, AARCH64, ARM)

NEVER = """
add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register userfaultfd kexec_load kexec_file_load
create_module get_kernel_syms query_module nfsservctl pivot_root swapon swapoff uselib ustat _sysctl move_pages
migrate_pages vserver afs_syscall vm86 vm86old
"""
BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": "mount umount2 unshare setns fsopen move_mount open_tree bpf perf_event_open syslog quotactl",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "mbind set_mempolicy get_mempolicy",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "pidfd_getfd kcmp process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime settimeofday",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}


def answer(name, *args, architecture=X86_64, capabilities=()):
    program = compiler.compiled(default_profile(capabilities), architecture.machine).program
    six = (*args, 0, 0, 0, 0, 0, 0)[:6]
    return bpf.verdict(program, bpf.Call(architecture.token, architecture.numbers[name], six))


@pytest.mark.parametrize("architecture", ALL, ids=[one.name for one in ALL])
def test_what_no_payload_needs_is_refused_on_every_architecture_with_every_capability(architecture):
    for name in NEVER.split():
        if name in architecture.numbers:
            assert answer(name, architecture=architecture, capabilities=BY_CAPABILITY) == EPERM, name


@pytest.mark.parametrize("capability", BY_CAPABILITY)
def test_a_capability_brings_the_calls_that_need_it_and_no_others(capability):
    for other, names in BY_CAPABILITY.items():
        for name in names.split():
            allowed = name in BY_CAPABILITY[capability].split() or other == capability
            assert answer(name, capabilities=(capability,)) == (ALLOW if allowed else EPERM), name


@pytest.mark.parametrize("architecture", ALL, ids=[one.name for one in ALL])
def test_processes_are_made_without_new_namespaces(architecture):
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", flag | 0x11, architecture=architecture) == EPERM
        assert answer("clone", flag | 0x11, architecture=architecture, capabilities=("CAP_SYS_ADMIN",)) == ALLOW
    assert answer("clone", 0x3D0F00, architecture=architecture) == ALLOW  # a thread
    assert answer("clone3", architecture=architecture) == ENOSYS
    assert answer("clone3", architecture=architecture, capabilities=("CAP_SYS_ADMIN",)) == ALLOW


@pytest.mark.parametrize("architecture", ALL, ids=[one.name for one in ALL])
def test_sockets_are_of_few_families(architecture):
    allowed = [family for family in range(64) if answer("socket", family, architecture=architecture) == ALLOW]
    assert allowed == [1, 2, 10, 16, 17]
    more = [
        family
        for family in range(64)
        if answer("socket", family, architecture=architecture, capabilities=("CAP_NET_ADMIN",)) == ALLOW
    ]
    assert more == [1, 2, 10, 15, 16, 17, 24, 44]


def test_a_family_cannot_hide_behind_bits_that_the_kernel_does_not_look_at():
    """The kernel takes the family as an int; Docker's profile compares 64 bits with NE or GT. See corpus row 45."""
    assert answer("socket", (1 << 32) + 38) == answer("socket", (1 << 63) + 38) == EPERM


def test_personalities_that_weaken_are_refused():
    assert [answer("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)] == [ALLOW] * 5
    for value in (0x0040000, 0x0400000, 0x0100000, 0x0040008, 2**64 - 1):
        assert answer("personality", value) == EPERM


def test_the_profile_is_made_once_for_the_capabilities_that_matter():
    assert default_profile(("CAP_CHOWN", "CAP_SYS_CHROOT")) is default_profile(["CAP_SYS_CHROOT", "CAP_KILL"])
    assert default_profile(()) is not default_profile(("CAP_SYS_CHROOT",))
