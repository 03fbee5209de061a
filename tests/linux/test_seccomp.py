"""Filters in the kernel: its verdicts, and what a container's process may do with a profile."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
import sys
from contextlib import contextmanager
from fcntl import ioctl
from random import Random

import pytest

from kernel import credentials, seccomp
from kernel.errors import BadInput, ContainerError
from kernel.pidfd import ExitStatus, wait_pidfd
from runtime import spec, state
from runtime.exec import exec_in
from runtime.seccomp import compiler
from runtime.seccomp.architectures import native
from runtime.seccomp.default import default_profile
from tests import bpf, seccomp_profiles
from tests.boxes import output

MACHINE = os.uname().machine
SIGSYS = 31
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # linux/seccomp.h, SECCOMP_IOCTL_NOTIF_*


def rule(names, action, *args, errno_ret=None):
    return spec.SeccompSyscall(names.split(), f"SCMP_ACT_{action}", errno_ret, list(args))


def profile(*rules, default="ALLOW", **more):
    return spec.Seccomp(f"SCMP_ACT_{default}", syscalls=list(rules), **more)


def in_child(work):
    """What `work` answers in a child process, as JSON data."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def test_the_kernel_answers_what_the_interpreter_of_the_tests_answers():
    random = Random(45)
    architecture = native(MACHINE)
    names = ("getpid", "getppid", "getuid", "geteuid", "getgid", "gettid")
    libc = ctypes.CDLL(None, use_errno=True)
    answered = set()
    for _ in range(40):
        wanted = profile(*(seccomp_profiles.group(random) for _ in range(6)))
        for entry in wanted.syscalls:
            entry.names, entry.action, entry.errno_ret = [random.choice(names)], "SCMP_ACT_ERRNO", random.randint(1, 99)
        calls = []
        for _ in range(60):
            call = seccomp_profiles.call(random, wanted)
            calls.append(bpf.Call(architecture.token, architecture.numbers[random.choice(names)], call.args))
        program = compiler.compile_profile(wanted, MACHINE).program

        def work(program=program, calls=calls):
            credentials.set_no_new_privs()
            seccomp.set_mode_filter(program)
            found = []
            for call in calls:
                words = [ctypes.c_ulong(word) for word in call.args]
                failed = libc.syscall(ctypes.c_long(call.number), *words) == -1
                found.append(ctypes.get_errno() if failed else 0)
            return found

        expected = [bpf.verdict(program, call) for call in calls]
        assert in_child(work) == [verdict & 0xFFFF if verdict != 0x7FFF0000 else 0 for verdict in expected]
        answered |= {verdict == 0x7FFF0000 for verdict in expected}
    assert answered == {True, False}


def test_the_kernel_takes_the_default_profile_and_says_what_it_knows():
    program = compiler.compile_profile(default_profile(()), MACHINE).program

    def work():
        credentials.set_no_new_privs()
        return seccomp.set_mode_filter(program, seccomp.SECCOMP_FILTER_FLAG_LOG)

    assert in_child(work) == 0
    assert seccomp.action_available(0x7FFF0000) and not seccomp.action_available(0x12340000)
    assert seccomp.flag_available(seccomp.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    assert not seccomp.flag_available(1 << 20)
    assert seccomp.notification_sizes() == (80, 24, 64)


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_a_payload_is_refused_what_its_profile_refuses(box, no_new_privileges, uid):
    config = box.config(
        "sh", "-c", "busybox grep -E 'Seccomp:|CapPrm|CapEff' /proc/self/status; busybox mkdir /tmp/x",
        no_new_privileges=no_new_privileges,
        user=spec.User(uid, uid),
        capabilities=spec.Capabilities(["CAP_CHOWN"], ["CAP_CHOWN"], [], ["CAP_CHOWN"]),
    )  # fmt: skip
    config.linux.seccomp = profile(rule("mkdir mkdirat", "ERRNO", errno_ret=errno.ENOMEDIUM))
    status, printed = box.run(config)
    assert status == ExitStatus(1, 0)
    assert "No medium found" in printed
    assert "Seccomp:\t2" in printed
    # Nothing is left of what loading the filter took.
    kept = "0000000000000001" if uid == 0 else "0000000000000000"
    assert f"CapEff:\t{kept}" in printed and f"CapPrm:\t{kept}" in printed


@pytest.mark.parametrize("action", ["KILL_PROCESS", "KILL_THREAD", "KILL", "TRAP"])
def test_a_payload_ends_by_sigsys(box, action):
    config = box.config("busybox", "mkdir", "/tmp/x", no_new_privileges=True)
    config.linux.seccomp = profile(rule("mkdir mkdirat", action))
    assert box.run(config)[0].signal == SIGSYS


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_profile_need_not_allow_what_the_runtime_does(box, no_new_privileges):
    """Seen to fail with the filter loaded before the identity is taken on."""
    config = box.config("busybox", "true", no_new_privileges=no_new_privileges, user=spec.User(7, 7))
    config.linux.seccomp = profile(
        rule("setgroups setresuid setresgid setuid setgid chdir getcwd umask close_range prlimit64 setsid", "ERRNO"),
        rule("sendto recvfrom sendmsg recvmsg socket connect mount pivot_root statfs fstatfs", "KILL_PROCESS"),
    )
    assert box.run(config)[0] == ExitStatus(0, 0)


def joined(box, container, config, output, *args):
    """Exit code and pid of a process that joins, run by a child of ours: its own children are born in the container."""

    def work():
        process = config.process.replace(args=list(args))
        stdio = (0, output, output)
        child, _ = exec_in(state.load(box.bundle), container.cgroup, process, stdio, linux=config.linux)
        return {"code": wait_pidfd(child.pidfd).code, "pid": child.pid}

    return in_child(work)


def test_a_profile_that_refuses_what_executing_takes_is_refused_before_anything_is_done(box):
    for rules, more, missing in (
        ([], {"default": "ERRNO"}, "execve, fcntl, ioctl"),
        ([rule("execve execveat", "ERRNO")], {}, "execve"),
        ([rule("fcntl", "ERRNO"), rule("ioctl", "ERRNO")], {}, "fcntl, ioctl"),
        ([rule("mkdir", "NOTIFY"), rule("sendmsg", "ERRNO")], {"listener_path": "/x"}, "sendmsg"),
    ):
        config = box.config("busybox", "true", no_new_privileges=True)
        config.linux.seccomp = profile(*rules, **more)
        with pytest.raises(BadInput, match=f"refuses what executing the payload takes: {missing} "):
            box.create(config)
    config = box.config("busybox", "true")
    config.linux.seccomp = profile(rule("capset", "ERRNO"))
    with pytest.raises(BadInput, match="takes: capset"):
        box.create(config)


def test_a_payload_whose_profile_kills_it_at_once_was_not_started(box):
    config = box.config("busybox", "true", no_new_privileges=True)
    config.linux.seccomp = profile(default="KILL_PROCESS")
    container = box.create(config)
    with pytest.raises(ContainerError, match="killed at its start"):
        container.start()
    assert container.wait().signal == SIGSYS
    container.delete()


def test_a_process_that_joins_has_the_containers_filter(box):
    """Seen to fail with exec_in called without the container's description."""
    config = box.config("busybox", "sleep", "1000", no_new_privileges=True)
    config.linux.seccomp = profile(rule("mkdir mkdirat", "ERRNO", errno_ret=errno.ENOMEDIUM))
    container = box.create(config)
    container.start()
    try:
        with output() as (write, read):
            assert joined(box, container, config, write, "busybox", "mkdir", "/tmp/x")["code"] == 1
            assert "No medium found" in read()
    finally:
        container.kill()
        container.wait()
        container.delete()


@contextmanager
def agent(path, connections=1):
    """A listener's other end: answers one notification a connection with EBADMSG and reports what it was told."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(connections):
                _answer(listening, writer)
        finally:
            os._exit(0)
    listening.close()
    os.close(writer)
    report = open(reader)  # noqa: SIM115
    try:
        yield report
    finally:
        report.close()
        os.kill(child, 9)
        os.waitpid(child, 0)


def _answer(listening, writer):
    connection, _ = listening.accept()
    data, (listener,), _, _ = socket.recv_fds(connection, 65536, 4)
    while more := connection.recv(65536):
        data += more
    notification = bytearray(80)
    ioctl(listener, NOTIF_RECV, notification)
    number, pid = struct.unpack_from("=Q", notification)[0], struct.unpack_from("=I", notification, 8)[0]
    ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", number, 0, -errno.EBADMSG, 0))
    os.close(listener)
    os.write(writer, json.dumps({"told": json.loads(data), "pid": pid}).encode() + b"\n")


def notifying(box, path, *args, **more):
    config = box.config(*args, **more)
    config.linux.seccomp = profile(
        rule("mkdir mkdirat", "NOTIFY"), listener_path=str(path), listener_metadata="for the agent"
    )
    config.annotations = {"a": "b"}
    return config


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_answers_what_a_profile_leaves_to_it(box, tmp_path, no_new_privileges):
    path = tmp_path / "agent.sock"
    config = notifying(box, path, "busybox", "mkdir", "/tmp/x", no_new_privileges=no_new_privileges)
    with agent(path) as report, output() as (write, read):
        container = box.create(config, (0, write, write))
        container.start()
        pid = container.pid
        assert container.wait() == ExitStatus(1, 0)
        container.delete()
        assert "Bad message" in read()
        told = json.loads(report.readline())["told"]
    assert told.pop("state") == {
        "ociVersion": "1.2.0",
        "id": "box",
        "status": "created",
        "pid": pid,
        "bundle": str(box.bundle),
        "annotations": {"a": "b"},
    }
    assert told == {"ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": pid, "metadata": "for the agent"}


def test_a_process_that_joins_has_a_listener_of_its_own(box, tmp_path):
    path = tmp_path / "agent.sock"
    config = notifying(box, path, "busybox", "sh", "-c", "busybox mkdir /tmp/x; exec busybox sleep 1000")
    with agent(path, connections=2) as report:
        container = box.create(config)
        container.start()
        try:
            json.loads(report.readline())
            ended = joined(box, container, config, 1, "busybox", "mkdir", "/tmp/y")
            assert ended["code"] == 1
            told = json.loads(report.readline())["told"]
            assert told["pid"] == ended["pid"] and told["state"]["status"] == "running"
        finally:
            container.kill()
            container.wait()
            container.delete()


def test_without_an_agent_a_container_that_needs_one_does_not_start(box, tmp_path):
    config = notifying(box, tmp_path / "nobody.sock", "sh", "-c", "echo ran")
    with output() as (write, read):
        container = box.create(config, (0, write, write))
        with pytest.raises(
            ContainerError, match=r"failed to connect with seccomp agent '.*nobody\.sock': no such file"
        ):
            container.start()
        assert container.wait().code == 125
        container.delete()
        assert read() == ""


def python(box, text, **process):
    """A container that runs Python of the host in the box."""
    config = box.config(sys.executable if sys.prefix == sys.base_prefix else "/usr/bin/python3", "-c", text, **process)
    (box.root / "usr").mkdir(exist_ok=True)
    for name in ("lib", "lib64"):
        if not os.path.lexists(box.root / name):
            os.symlink(f"usr/{name}", box.root / name)
    config.mounts.append(spec.Mount("/usr", "bind", "/usr", ["rbind", "ro"]))
    return config


EVERYTHING = [f"CAP_{name}" for name in ("SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_CHROOT", "CHOWN")]


def defaults(config, capabilities=()):
    """As root with capabilities that would allow it, so that it is the filter that refuses."""
    config.process.no_new_privileges = True
    config.process.capabilities = spec.Capabilities(EVERYTHING, EVERYTHING, [], EVERYTHING)
    config.linux.seccomp = default_profile(capabilities)
    return config


ASK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def ask(*words):
    return ctypes.get_errno() if libc.syscall(*[ctypes.c_ulong(word) for word in words]) == -1 else 0
"""


def test_the_default_profile_refuses_what_the_kernel_would_allow_to_root(box):
    """Seen to fail without a profile: the kernel then makes namespaces, or complains of the arguments."""
    numbers = native(MACHINE).numbers
    calls = {
        "unshare": (numbers["unshare"], 0x04000000),
        "clone3": (numbers["clone3"], 0, 0),
        "clone with CLONE_NEWUTS": (numbers["clone"], 0x04000011, 0, 0, 0, 0),
        "keyctl": (numbers["keyctl"], 0, 2**32 - 3, 1),
        "add_key": (numbers["add_key"], 0, 0, 0, 0, 2**32 - 3),
        "io_uring_setup": (numbers["io_uring_setup"], 1, 0),
        "bpf": (numbers["bpf"], 99, 0, 0),
        "mount": (numbers["mount"], 0, 0, 0, 0, 0),
        "fsopen": (numbers["fsopen"], 0, 0),
        "userfaultfd": (numbers["userfaultfd"], 1),
        "personality, addresses not randomized": (numbers["personality"], 0x0040000),
        "newer than all": (numbers["fchroot"] + 60,),
    }
    config = defaults(python(box, ASK + f"for words in {list(calls.values())}: print(ask(*words))"))
    status, printed = box.run(config)
    assert status.code == 0, printed
    answers = dict(zip(calls, map(int, printed.split()), strict=True))
    special = {"clone3": errno.ENOSYS, "newer than all": errno.ENOSYS}
    assert answers == {name: special.get(name, errno.EPERM) for name in calls}


def test_the_default_profile_lets_ordinary_programs_work(box):
    text = """
import os, socket, subprocess, threading, asyncio, tempfile
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
subprocess.run(["/bin/busybox", "true"], check=True)
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    socket.socket(family, socket.SOCK_DGRAM).close()
asyncio.run(asyncio.sleep(0))
with tempfile.NamedTemporaryFile() as file:
    os.chown(file.name, 1, 1)
print("fine")
"""
    status, printed = box.run(defaults(python(box, text)))
    assert (status.code, printed) == (0, "fine\n")


def test_sockets_of_the_kernels_ciphers_are_refused(box):
    """Corpus row 45 (CVE-2026-31431). Seen to fail without a profile: the socket is made, or EAFNOSUPPORT told.

    The second number is the same family to the kernel, which takes an int, and another one to a filter that
    compares 64 bits with NE, as Docker's does.
    """
    number = native(MACHINE).numbers["socket"]
    text = ASK + "".join(f"print(ask({number}, {family}, 5, 0))\n" for family in (38, (1 << 32) + 38, 40, 21, 1 << 31))
    assert box.run(defaults(python(box, text)))[1].split() == [str(errno.EPERM)] * 5


@pytest.mark.skipif(MACHINE != "x86_64", reason="the way around is i386's")
def test_sockets_of_the_kernels_ciphers_are_refused_to_32_bit_programs_too(box):
    """Seen to fail with libseccomp's rule, for which socketcall(SYS_SOCKET) is as good as an allowed socket(2)."""
    text = """
import ctypes, mmap, struct
MAP_32BIT = 0x40
flags, protection = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
page = mmap.mmap(-1, 4096, flags, protection)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
page[2048:2060] = struct.pack("<3I", 38, 5, 0)
def int80(number, first, second):
    # push rbx; mov eax, number; mov ebx, first; mov ecx, second; int 0x80; pop rbx; ret
    page[:20] = struct.pack("<2sIBIBI4s", b"\\x53\\xb8", number, 0xbb, first, 0xb9, second, b"\\xcd\\x80\\x5b\\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
print(int80(20, 0, 0) > 0, int80(102, 1, address + 2048), int80(359, 38, 5))
"""
    status, printed = box.run(defaults(python(box, text)))
    if status.signal == 11:
        pytest.skip("this kernel runs no 32-bit programs")
    assert printed == f"True {-errno.EPERM} {-errno.EPERM}\n"
