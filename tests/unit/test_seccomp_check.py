"""What is refused in a profile: nothing that is not understood is passed over."""

import pytest

from kernel.errors import BadInput
from runtime import spec
from runtime.checks.config import check
from runtime.seccomp.check import faults
from runtime.seccomp.default import default_profile

ARG = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


def profile(**changes):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]} | changes


def rule(**changes):
    return profile(syscalls=[{"names": ["read"], "action": "SCMP_ACT_ALLOW"} | changes])


def loaded(seccomp):
    import json

    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"]},
        "linux": {"namespaces": [{"type": "mount"}], "seccomp": seccomp},
    }
    return spec.load(json.dumps(config).encode())


REFUSED = {
    "no default": ({}, r"missing required field `defaultAction`"),
    "empty default": (profile(defaultAction=""), r"defaultAction: unknown action ''"),
    "unknown default": (profile(defaultAction="SCMP_ACT_PERHAPS"), r"defaultAction: unknown action 'SCMP_ACT_PERHAPS'"),
    "lower case": (profile(defaultAction="scmp_act_errno"), r"unknown action 'scmp_act_errno' \(SCMP_ACT_KILL, "),
    "notify by default": (profile(defaultAction="SCMP_ACT_NOTIFY"), r"defaultAction: 'SCMP_ACT_NOTIFY' is for rules"),
    "errno of an action without": (
        profile(defaultAction="SCMP_ACT_KILL", defaultErrnoRet=1),
        r"defaultErrnoRet: SCMP_ACT_KILL answers no errno",
    ),
    "no errno": (profile(defaultErrnoRet=4096), r"defaultErrnoRet: 4096 is out of range"),
    "negative errno": (profile(defaultErrnoRet=-1), r"defaultErrnoRet: -1 is out of range"),
    "unknown architecture": (
        profile(architectures=["SCMP_ARCH_Z80"]),
        r"architectures\[0\]: unknown .* 'SCMP_ARCH_Z80'",
    ),
    "unknown flag": (profile(flags=["SECCOMP_FILTER_FLAG_X"]), r"flags\[0\]: unknown flag 'SECCOMP_FILTER_FLAG_X'"),
    "new listener as a flag": (profile(flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"]), r"flags\[0\]: unknown flag"),
    "metadata alone": (profile(listenerMetadata="x"), r"listenerMetadata: set without listenerPath"),
    "no names": (rule(names=[]), r"syscalls\[0\]\.names: empty"),
    "empty name": (rule(names=["read", ""]), r"syscalls\[0\]\.names\[1\]: empty"),
    "unknown action": (rule(action="SCMP_ACT_MAYBE"), r"syscalls\[0\]\.action: unknown action 'SCMP_ACT_MAYBE'"),
    "errno of a rule without": (rule(errnoRet=1), r"syscalls\[0\]\.errnoRet: SCMP_ACT_ALLOW answers no errno"),
    "seventh argument": (rule(args=[ARG | {"index": 6}]), r"syscalls\[0\]\.args\[0\]\.index: 6 is out of range"),
    "negative argument": (rule(args=[ARG | {"index": -1}]), r"index: -1 is out of range"),
    "unknown operator": (rule(args=[ARG | {"op": "SCMP_CMP_XX"}]), r"args\[0\]\.op: unknown operator 'SCMP_CMP_XX'"),
    "long value": (rule(args=[ARG | {"value": 2**64}]), r"args\[0\]\.value: 18446744073709551616 is out of range"),
    "negative second value": (rule(args=[ARG | {"valueTwo": -1}]), r"args\[0\]\.valueTwo: -1 is out of range"),
    "value of the wrong type": (rule(args=[ARG | {"value": "1"}]), r"expected `int`, got `str`"),
    "notify without a listener": (rule(action="SCMP_ACT_NOTIFY"), r"listenerPath: '' is no path"),
    "notify on write": (
        rule(names=["write"], action="SCMP_ACT_NOTIFY") | {"listenerPath": "/x"},
        r"names\[0\]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
    "notify on sendmsg": (
        rule(names=["read", "sendmsg"], action="SCMP_ACT_NOTIFY") | {"listenerPath": "/x"},
        r"names\[1\]: SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall",
    ),
}


@pytest.mark.parametrize(("seccomp", "message"), REFUSED.values(), ids=REFUSED)
def test_a_faulty_profile_is_refused_by_name(seccomp, message):
    with pytest.raises(BadInput, match=message):
        check(loaded(seccomp))


ACCEPTED = {
    "all flags": profile(flags=[f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")]),
    "an architecture of other machines": profile(architectures=["SCMP_ARCH_PPC64LE", "SCMP_ARCH_X86"]),
    "errno of a tracer": profile(defaultAction="SCMP_ACT_TRACE", defaultErrnoRet=40000),
    "a name of no call": rule(names=["no_such_call"]),
    "listener without notify": profile(listenerPath="/x", listenerMetadata="y"),
    "notify": rule(action="SCMP_ACT_NOTIFY") | {"listenerPath": "/x"},
    "no rules": {"defaultAction": "SCMP_ACT_LOG"},
    "null": rule(args=None),
}


@pytest.mark.parametrize("seccomp", ACCEPTED.values(), ids=ACCEPTED)
def test_a_right_profile_is_accepted(seccomp):
    check(loaded(seccomp))


def test_the_default_profile_has_no_faults():
    assert list(faults(default_profile(("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE")))) == []
