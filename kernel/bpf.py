"""bpf(2) for cgroup programs: load, attach, replace, query, detach. Numbers from include/uapi/linux/bpf.h."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_int, c_uint, c_uint64

from kernel.errors import SystemCallError
from kernel.syscalls import SystemCall

PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6
F_ALLOW_MULTI = 2
F_REPLACE = 4

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_ENOSPC = 28
_LOG_SIZE = 64 * 1024


# The members of union bpf_attr. The kernel takes any length of it that it knows.
class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", c_uint),
        ("insn_cnt", c_uint),
        ("insns", c_uint64),
        ("license", c_uint64),
        ("log_level", c_uint),
        ("log_size", c_uint),
        ("log_buf", c_uint64),
        ("kern_version", c_uint),
        ("prog_flags", c_uint),
        ("prog_name", c_char * 16),
    ]


class _Attach(ctypes.Structure):
    _fields_ = [
        ("target_fd", c_uint),
        ("attach_bpf_fd", c_uint),
        ("attach_type", c_uint),
        ("attach_flags", c_uint),
        ("replace_bpf_fd", c_uint),
    ]


class _Identity(ctypes.Structure):
    _fields_ = [("prog_id", c_uint), ("next_id", c_uint), ("open_flags", c_uint)]


class _Query(ctypes.Structure):
    _fields_ = [
        ("target_fd", c_uint),
        ("attach_type", c_uint),
        ("query_flags", c_uint),
        ("attach_flags", c_uint),
        ("prog_ids", c_uint64),
        ("prog_cnt", c_uint),
    ]


_prog_load = SystemCall("bpf", command=c_int, attributes=POINTER(_Load), size=c_uint)
_prog_attach = SystemCall("bpf", command=c_int, attributes=POINTER(_Attach), size=c_uint)
_prog_get_fd_by_id = SystemCall("bpf", command=c_int, attributes=POINTER(_Identity), size=c_uint)
_prog_query = SystemCall("bpf", command=c_int, attributes=POINTER(_Query), size=c_uint)


class VerifierError(SystemCallError):
    """BPF_PROG_LOAD was refused and the verifier said why: `log`."""

    def __init__(self, error: SystemCallError, log: str) -> None:
        super().__init__(error.name, error.arguments, error.errno)
        self.log = log


def prog_load(kind: int, instructions: bytes, *, name: str, license: str = "Apache-2.0") -> int:
    """BPF_PROG_LOAD: a descriptor of the program. `instructions` are 8 bytes each, `name` at most 15.

    A program that the verifier refuses is loaded once more for its log: raises VerifierError.
    """
    try:
        return _load(kind, instructions, name, license, None)
    except SystemCallError as error:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            return _load(kind, instructions, name, license, log)
        except SystemCallError:
            if not log.value:
                raise error from None
            raise VerifierError(error, log.value.decode(errors="replace")) from None


def _load(kind: int, instructions: bytes, name: str, license: str, log: ctypes.Array[c_char] | None) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    terms = ctypes.create_string_buffer(license.encode())
    attributes = _Load(
        prog_type=kind,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(terms),
        prog_name=name.encode()[:15],
    )
    if log is not None:
        attributes.log_level, attributes.log_size, attributes.log_buf = 1, len(log), ctypes.addressof(log)
    # Descriptors of BPF objects are close-on-exec from birth.
    return _prog_load(_PROG_LOAD, attributes, ctypes.sizeof(attributes))


def prog_attach(program: int, cgroup: int, kind: int, flags: int = F_ALLOW_MULTI, *, replace: int = 0) -> None:
    """BPF_PROG_ATTACH a program to a cgroup's directory; with F_REPLACE in the place of the program `replace`."""
    attributes = _Attach(cgroup, program, kind, flags, replace)
    _prog_attach(_PROG_ATTACH, attributes, ctypes.sizeof(attributes))


def prog_detach(program: int, cgroup: int, kind: int) -> None:
    """BPF_PROG_DETACH a program from a cgroup."""
    attributes = _Attach(cgroup, program, kind)
    _prog_attach(_PROG_DETACH, attributes, ctypes.sizeof(attributes))


def prog_get_fd_by_id(identity: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: a descriptor of a program that is loaded."""
    attributes = _Identity(identity)
    return _prog_get_fd_by_id(_PROG_GET_FD_BY_ID, attributes, ctypes.sizeof(attributes))


def prog_query(cgroup: int, kind: int) -> list[int]:
    """BPF_PROG_QUERY: the ids of the programs attached to this very cgroup, in the order in which they run."""
    room = 16
    while True:
        identities = (c_uint * room)()
        attributes = _Query(cgroup, kind, prog_ids=ctypes.addressof(identities), prog_cnt=room)
        try:
            _prog_query(_PROG_QUERY, attributes, ctypes.sizeof(attributes))
        except SystemCallError as error:
            if error.errno != _ENOSPC:
                raise
            room = attributes.prog_cnt
            continue
        return list(identities[: attributes.prog_cnt])
