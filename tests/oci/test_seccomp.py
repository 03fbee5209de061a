"""config-linux.md: seccomp, and the process state that a seccomp agent gets."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest

from tests.oci.descriptors import receiver

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
# What a shell needs in order to try something that is refused: mkdir(2), in the forms that libcs use.
MKDIR = ["mkdir", "mkdirat"]
TRY = "mkdir /tmp/made"


def rule(names=MKDIR, action=ERRNO, **more):
    return {"names": list(names), "action": action, **more}


def profile(box, *rules, default=ALLOW, **more):
    box.linux["seccomp"] = {
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": list(rules),
        **more,
    }
    return box


def argument(index, value, op, **more):
    return {"index": index, "value": value, "op": op, **more}


def test_a_call_that_is_refused_fails_with_eperm(box):
    """Seccomp: `errnoRet`: "If not specified its default value is `EPERM`"."""
    assert os.strerror(errno.EPERM) in profile(box, rule()).run("sh", "-c", TRY).failed().err


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EACCES, errno.ENOSPC, errno.EXDEV])
def test_a_call_fails_with_the_configured_errno(box, number):
    """Seccomp: `errnoRet` "the errno return code to use"."""
    assert os.strerror(number) in profile(box, rule(errnoRet=number)).run("sh", "-c", TRY).failed().err


def test_what_is_not_listed_is_left_to_the_default_action(box):
    """Seccomp: `defaultAction` "the default action for seccomp"."""
    printed = profile(box, rule()).shell("echo text > /tmp/file; cat /tmp/file; cat /proc/self/status | grep ^Seccomp:")
    assert printed == "text\nSeccomp:\t2\n"


def test_a_default_action_refuses_what_is_not_allowed(box):
    """Seccomp: `defaultAction`: "Allowed values are the same as `syscalls[].action`"."""
    names = """
        read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl
        access pipe select dup dup2 getpid socket clone clone3 vfork fork execve exit wait4 uname fcntl getcwd
        getuid getgid geteuid getegid getppid arch_prctl exit_group openat newfstatat set_tid_address
        set_robust_list prlimit64 getrandom rseq open stat futex poll setuid setgid prctl capset capget fchdir
        chdir setgroups keyctl close_range dup3 pipe2 getdents64 statx readlink readlinkat futex_waitv
        sched_yield nanosleep sigaltstack gettid tgkill madvise epoll_pwait epoll_ctl epoll_create1 fstatfs
        statfs fchown umask setresuid setresgid setsid seccomp sendmsg recvmsg recvfrom sendto shutdown writev
        faccessat faccessat2 sched_getaffinity epoll_wait eventfd2 restart_syscall getrlimit mincore openat2
        execveat
        """.split()
    result = profile(box, rule(names, ALLOW), default=ERRNO, defaultErrnoRet=errno.ENOSPC).run(
        "sh", "-c", f"echo before; {TRY}"
    )
    assert (result.out, os.strerror(errno.ENOSPC) in result.err) == ("before\n", True)


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"])
def test_a_call_may_kill(box, action):
    """Seccomp: `action`: SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_TRAP."""
    printed = profile(box, rule(action=action)).run("sh", "-c", f"{TRY}; echo $?").out
    assert printed == f"{128 + signal.SIGSYS}\n"


def test_a_call_may_be_logged(box):
    """Seccomp: `action`: SCMP_ACT_LOG lets the call through."""
    profile(box, rule(action="SCMP_ACT_LOG")).shell(TRY)
    assert (box.rootfs / "tmp/made").is_dir()


def test_a_call_to_be_traced_fails_without_a_tracer(box):
    """Seccomp: `action`: SCMP_ACT_TRACE; without a tracer the call fails with ENOSYS, seccomp(2)."""
    assert os.strerror(errno.ENOSYS) in profile(box, rule(action="SCMP_ACT_TRACE")).run("sh", "-c", TRY).failed().err


# kill(2) of this signal to this process is what is asked for, as `kill -N $$`.
OPERATORS = [
    ("SCMP_CMP_EQ", 10, {10}),
    ("SCMP_CMP_NE", 10, {9 + 2, 12, 0}),
    ("SCMP_CMP_LT", 10, {0}),
    ("SCMP_CMP_LE", 10, {0, 10}),
    ("SCMP_CMP_GE", 10, {10, 12, 11}),
    ("SCMP_CMP_GT", 10, {12, 11}),
    ("SCMP_CMP_MASKED_EQ", 8, {10, 12, 11}),
]


@pytest.mark.parametrize(("op", "value", "refused"), OPERATORS, ids=[row[0] for row in OPERATORS])
def test_each_operator_compares_an_argument(box, op, value, refused):
    """Seccomp: `args[].op`: "A valid list of constants": NE, LT, LE, EQ, GE, GT, MASKED_EQ."""
    args = argument(1, value, op)
    if op == "SCMP_CMP_MASKED_EQ":
        args = argument(1, 8, op, valueTwo=8)  # those with this bit
    script = "trap '' 10 11 12; for number in 0 10 11 12; do kill -$number $$ 2>/dev/null || echo $number; done; true"
    printed = profile(box, rule(["kill"], args=[args])).shell(script)
    assert {int(word) for word in printed.split()} == refused


def test_every_comparison_of_an_entry_must_hold(box):
    """Seccomp: `args`, "array of objects": conditions of one rule, which libseccomp takes together."""
    both = [argument(0, 1, "SCMP_CMP_EQ"), argument(1, 10, "SCMP_CMP_EQ")]
    script = "trap '' 10 12; for number in 10 12; do kill -$number 1 2>/dev/null || echo $number; done; true"
    assert profile(box, rule(["kill"], args=both)).shell(script) == "10\n"


def test_a_call_may_have_several_entries(box):
    """Seccomp: `syscalls` "match a syscall in seccomp"; each entry is a rule of its own."""
    rules = [rule(["kill"], args=[argument(1, number, "SCMP_CMP_EQ")], errnoRet=errno.ENOSPC) for number in (10, 12)]
    script = "trap '' 10 11 12; for number in 10 11 12; do kill -$number $$ 2>/dev/null || echo $number; done; true"
    assert profile(box, *rules).shell(script) == "10\n12\n"


def test_all_64_bits_of_an_argument_are_compared(box):
    """Seccomp: `value` "*(uint64, REQUIRED)*"."""
    # dd(1) moves to 4096 or to 2 MiB by lseek(2): of the first offset the lower half is 0.
    refused = rule(["lseek"], args=[argument(1, 1 << 32, "SCMP_CMP_EQ")])
    script = "for offset in 2 4096; do dd of=/tmp/file bs=1048576 seek=$offset count=0 </dev/null 2>/dev/null && echo $offset; done; true"
    assert profile(box, refused).shell(script) == "2\n"


def test_names_that_the_architecture_does_not_have_are_ignored(box):
    """Seccomp: profiles name the calls of every architecture; runc, crun and libseccomp skip those that are not here."""
    profile(box, rule([*MKDIR, "no_such_call", "arm_sync_file_range"])).run("sh", "-c", TRY).failed()


def test_calls_of_another_architecture_are_filtered_too(box):
    """Seccomp: `architectures` "the architecture used for system calls"."""
    more = {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    profile(box, rule(), **more).run("sh", "-c", TRY).failed()


def test_the_filter_is_in_force_without_no_new_privileges(box):
    """Seccomp: the filter is for the program, whatever `noNewPrivileges` says."""
    box.process["noNewPrivileges"] = False
    profile(box, rule()).run("sh", "-c", TRY).failed()


def test_the_filter_is_in_force_for_exec(box):
    """Seccomp: exec runs "a new process in an existing container", under its filter."""
    profile(box, rule()).running()
    assert os.strerror(errno.EPERM) in box.exec("sh", "-c", TRY).failed().err


@pytest.mark.parametrize(
    "flag", ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
)
def test_each_flag_is_accepted(box, flag):
    """Seccomp: `flags` "list of flags to use with seccomp(2)"."""
    profile(box, rule(), flags=[flag]).run("sh", "-c", TRY).failed()


BAD = {
    "action": {"syscalls": [rule(action="SCMP_ACT_NO_SUCH")]},
    "default action": {"defaultAction": "SCMP_ACT_NO_SUCH"},
    "no default action": {"defaultAction": ""},
    "operator": {"syscalls": [rule(["kill"], args=[argument(1, 1, "SCMP_CMP_NO_SUCH")])]},
    "architecture": {"architectures": ["SCMP_ARCH_NO_SUCH"]},
    "flag": {"flags": ["SECCOMP_FILTER_FLAG_NO_SUCH"]},
    "index": {"syscalls": [rule(["kill"], args=[argument(6, 1, "SCMP_CMP_EQ")])]},
}


@pytest.mark.parametrize("what", BAD)
def test_an_unknown_value_is_an_error(box, what):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    profile(box, rule())
    box.linux["seccomp"] |= BAD[what]
    box.refused()


def test_an_entry_without_names_is_an_error(box):
    """Seccomp: "`names` MUST contain at least one entry"."""
    profile(box, rule([])).refused()


def test_an_errno_of_an_action_that_has_none_is_an_error(box):
    """Seccomp: "When the action doesn't support an errno, the runtime MUST print and error and fail"."""
    profile(box, rule(action=ALLOW, errnoRet=1)).refused()


def test_a_default_errno_of_an_action_that_has_none_is_an_error(box):
    """Seccomp: `defaultErrnoRet`: "When the action doesn't support an errno, the runtime MUST print and error and fail"."""
    profile(box, rule(), defaultErrnoRet=1).refused()


# the listener


@pytest.fixture
def agent(box):
    """A socket of a seccomp agent, for which a box is set up that asks it about mkdir."""
    with receiver() as made:
        profile(box, rule(action="SCMP_ACT_NOTIFY"), listenerPath=os.fspath(made.path))
        yield made


def test_the_agent_gets_the_state_and_the_descriptor(box, agent):
    """The Container Process State: sent "as regular payload serialized in JSON and file descriptors MUST be sent using `SCM_RIGHTS`"."""
    box.config["annotations"] = {"com.example.key": "value"}
    box.linux["seccomp"]["listenerMetadata"] = "opaque"
    box.running("sleep", "1000")
    data, fds = agent.receive()
    state = json.loads(data)
    assert (state["fds"], len(fds)) == (["seccompFd"], 1)
    assert os.readlink(f"/proc/self/fd/{fds[0]}") == "anon_inode:seccomp notify"
    assert (state["pid"], state["metadata"]) == (box.pid, "opaque")
    assert state["ociVersion"]
    assert (state["state"]["id"], state["state"]["bundle"]) == (box.id, os.fspath(box.directory))
    assert (state["state"]["pid"], state["state"]["annotations"]) == (box.pid, {"com.example.key": "value"})
    assert state["state"]["status"] in ("creating", "created")


def test_there_is_one_connection_for_a_state(box, agent):
    """Seccomp: "MUST send exactly one container process state per connection. The connection ... MUST be closed after sending"."""
    box.running("sleep", "1000")
    data, _ = agent.receive()  # to its end
    json.loads(data)
    assert not agent.connected()


def test_an_agent_that_cannot_be_reached_is_an_error(box):
    """Seccomp: "If sending to this socket fails, the runtime MUST generate an error"."""
    profile(box, rule(action="SCMP_ACT_NOTIFY"), listenerPath="/no/such/socket")
    box.refused_at_last()


def test_an_agent_that_has_gone_is_an_error_for_exec(box, agent):
    """The same for a process that joins the container."""
    # Fails, by never ending, when exec waits for the process, which waits for exec, before it hangs up.
    box.running("sleep", "1000")
    agent.receive()
    agent.hang_up()
    assert box.exec("true").failed().err.strip()


def test_start_container_hooks_are_filtered_as_the_process_is(box):
    """StartContainer hooks "are executed in the container namespace": they are programs of the container's own."""
    # Fails when the filter is loaded after the hooks.
    profile(box, rule())
    box.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", TRY], "env": ["PATH=/bin"]}]}
    box.created("true")
    box.start()
    box.wait()
    assert not (box.rootfs / "tmp/made").exists()


def test_the_path_of_the_agent_is_ignored_without_notify(box):
    """Seccomp: "If the `SCMP_ACT_NOTIFY` action is not used this value is ignored"."""
    profile(box, rule(), listenerPath="/no/such/socket").run("sh", "-c", TRY).failed()
    assert not (box.rootfs / "tmp/made").exists()
    assert box.run("echo", "ran").ok().out == "ran\n"


def test_metadata_without_a_path_is_an_error(box):
    """Seccomp: `listenerMetadata`: "This field MUST NOT be set if `listenerPath` is not set"."""
    profile(box, rule(), listenerMetadata="opaque").refused()
