"""libseccomp by ctypes: the oracle for the compiler. Rules are added as runc adds them."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
from ctypes import POINTER, c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p

from runtime import spec
from runtime.seccomp import rules

_OPERATORS = {
    name: number
    for number, name in enumerate(
        ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"),
        1,
    )
}
_TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_EEXIST, _EDOM = 17, 33


class _Condition(ctypes.Structure):
    _fields_ = [("arg", c_uint), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64)]


_library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
_init = _library.seccomp_init
_init.argtypes, _init.restype = [c_uint32], c_void_p
_release = _library.seccomp_release
_release.argtypes, _release.restype = [c_void_p], None
_arch_add = _library.seccomp_arch_add
_arch_add.argtypes = [c_void_p, c_uint32]
_arch_remove = _library.seccomp_arch_remove
_arch_remove.argtypes = [c_void_p, c_uint32]
_rule_add = _library.seccomp_rule_add_array
_rule_add.argtypes = [c_void_p, c_uint32, c_int, c_uint, POINTER(_Condition)]
_export = _library.seccomp_export_bpf
_export.argtypes = [c_void_p, c_int]
_resolve = _library.seccomp_syscall_resolve_name
_resolve.argtypes = [c_char_p]
_resolve_arch = _library.seccomp_syscall_resolve_name_arch
_resolve_arch.argtypes = [c_uint32, c_char_p]


def _action(action: str, errno: int | None) -> int:
    # SCMP_ACT_* have the values of SECCOMP_RET_*, libseccomp's seccomp.h.
    return rules.verdict(action, errno)


def number(name: str, architecture: str) -> int | None:
    """A call's number as libseccomp knows it, None for none of its own."""
    found: int = _resolve_arch(_TOKENS[architecture], name.encode())
    return found if found >= 0 else None


def program(profile: spec.Seccomp) -> bytes | None:
    """The filter that libseccomp makes of the profile on this machine, None where it has no answer.

    In a process of its own: several rules for one call whose conditions overlap make libseccomp 2.5 crash, or
    work without end.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
            os.write(writer, direct(profile))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or None


def direct(profile: spec.Seccomp) -> bytes:
    """As `program`, in this process. Raises OSError where libseccomp refuses."""
    default = _action(profile.default_action, profile.default_errno_ret)
    context = _init(default)
    try:
        for name in profile.architectures:
            _check(_arch_add(context, _TOKENS[name]), _EEXIST)
        for group in profile.syscalls:
            action = _action(group.action, group.errno_ret)
            if action == default:
                continue
            indices = [arg.index for arg in group.args]
            sets = [[arg] for arg in group.args] if len(set(indices)) < len(indices) else [group.args]
            for name in group.names:
                call = _resolve(name.encode())
                if call == -1:
                    continue
                for conditions in sets:
                    array = (_Condition * len(conditions))(*map(_condition, conditions))
                    _check(_rule_add(context, action, call, len(conditions), array), _EEXIST, _EDOM)
        memory = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            _check(_export(context, memory))
            return os.pread(memory, 1 << 20, 0)
        finally:
            os.close(memory)
    finally:
        _release(context)


def _condition(arg: spec.SeccompArg) -> _Condition:
    return _Condition(arg.index, _OPERATORS[arg.op.removeprefix("SCMP_CMP_")], arg.value, arg.value_two)


def _check(result: int, *accepted: int) -> None:
    if result < 0 and -result not in accepted:
        raise OSError(-result, os.strerror(-result))
