"""Holes that runtimes have had around the process itself: how it is started, who it is, what it can reach.

Each test says by which change it was seen to fail.
"""

import fcntl
import hashlib
import os
import pty
import select
import sys
import termios
import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import credentials
from kernel.credentials import CapabilitySets
from kernel.errors import BadInput, ContainerError
from kernel.names import CAPABILITIES
from netns.netlink import attribute
from runtime import exec as runtime_exec
from runtime import spec, state
from runtime.checks.config import check_process
from runtime.oci.exec import _change_user
from runtime.oci.options import Parsed
from tests.boxes import output
from tests.linux.test_process import joined, running

_HOST_LIBRARIES = ("/usr", "/lib", "/lib64")


def _with_host_libraries(config):
    """So that the host's dynamically linked Python would run if a payload could reach it."""
    config.mounts += [spec.Mount(path, "bind", path, ["rbind", "ro"]) for path in _HOST_LIBRARIES]
    return config


def _in_child(work):
    """Run `work` in a forked process, whose failure is shown."""
    with output() as (write, read):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException as error:
                os.write(write, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = read()
    assert status == 0, said


_PRINT_HOST = "import sys; print('host interpreter', sys.executable)"


@pytest.fixture
def interpreter():
    """The file behind this very process; it must be the same afterwards."""
    path = os.readlink("/proc/self/exe")

    def contents():
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_ino, hashlib.sha256(file.read()).hexdigest()

    before = contents()
    yield path
    assert contents() == before


def test_an_entry_point_of_proc_self_exe_is_not_the_hosts_interpreter(box, interpreter):
    """CVE-2019-5736. Seen to fail with os.execve(program, …) in program.execute(): Python printed its line."""
    config = _with_host_libraries(box.config("/proc/self/exe", "-c", _PRINT_HOST))
    status, printed = box.run(config)
    assert printed == ""
    assert status.shell == 126


def test_a_script_of_proc_self_exe_is_not_the_hosts_interpreter(box, interpreter):
    """CVE-2019-5736, by a "#!" line. Seen to fail as the one before: Python ran the script."""
    (box.root / "script").write_text(f"#!/proc/self/exe\n{_PRINT_HOST}\n")
    (box.root / "script").chmod(0o755)
    status, printed = box.run(_with_host_libraries(box.config("/script")))
    assert "host" not in printed
    assert status.shell == 126


def test_a_joining_process_cannot_reach_the_hosts_interpreter(box, interpreter):
    """CVE-2019-5736, by exec as it was found. Seen to fail as the one before."""
    os.symlink("/proc/self/exe", box.root / "bin/tool")
    with running(box, _with_host_libraries(box.config("busybox", "sleep", "1000"))) as container:
        process = spec.Process("/", args=["tool", "-c", _PRINT_HOST], env=["PATH=/bin"])
        with pytest.raises(AssertionError) as caught:
            joined(box, container, process)
        assert "host" not in str(caught.value)


def test_what_a_payload_was_executed_through_cannot_be_written():
    """CVE-2019-5736: what a payload may get hold of is sealed. Seen to fail without F_ADD_SEALS in relay.make()."""
    from kernel import relay

    fd = relay.make()
    again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"x")
    finally:
        os.close(again)
        os.close(fd)


def test_a_joining_process_has_three_descriptors(box):
    """CVE-2024-21626. Seen to fail without close_range in init.become()."""
    with running(box, box.config("busybox", "sleep", "1000")) as container:
        leaked = os.open("/", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        try:
            process = spec.Process("/", args=["busybox", "ls", "/proc/self/fd"], env=["PATH=/bin"])
            assert joined(box, container, process).split() == ["0", "1", "2", "3"]  # 3 is what ls reads
        finally:
            os.close(leaked)


@pytest.mark.parametrize("link", [False, True])
def test_a_joining_process_has_its_working_directory_inside(box, link):
    """CVE-2024-21626. Seen to fail without the getcwd check in init.change_directory()."""
    outside = os.open("/", os.O_RDONLY)
    os.set_inheritable(outside, True)
    cwd = f"/proc/self/fd/{outside}"
    if link:
        os.symlink(cwd, box.root / "link")
        cwd = "/link"
    try:
        with running(box, box.config("busybox", "sleep", "1000")) as container:
            process = spec.Process(cwd, args=["sh", "-c", "ls"], env=["PATH=/bin"])
            with pytest.raises(AssertionError, match="outside the container's root"):
                joined(box, container, process)
    finally:
        os.close(outside)


@contextmanager
def _stopped_before_execve(box, container):
    """A process that joins the container, stopped with the container's identity just before it executes: its pid.

    Its channel is full and nobody reads, so that the last message to its parent does not get through.
    """
    done, stop = os.pipe()

    def work():
        pair = runtime_exec.Channel.pair

        def full_pair():
            ours, theirs = pair()
            theirs._socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    theirs._socket.send(b'{"kind":"filler"}')
            theirs._socket.setblocking(True)
            return ours, theirs

        runtime_exec.Channel.pair = full_pair
        runtime_exec._started = lambda *_: os.read(done, 1)
        process = spec.Process("/", args=["sh", "-c", "exit 0"], env=["PATH=/bin", "HOME=/"])
        runtime_exec.exec_in(state.load(box.bundle), container.cgroup, process, (0, 1, 2), linux=None)

    joiner = os.fork()
    if joiner == 0:
        os.close(stop)
        try:
            work()
        finally:
            os._exit(0)
    os.close(done)
    try:
        deadline = time.monotonic() + 20
        while not (found := [pid for pid in container.cgroup.processes() if _is_stopped_there(pid, container.pid)]):
            assert time.monotonic() < deadline
        yield found[0]
    finally:
        os.close(stop)
        os.waitpid(joiner, 0)


def _is_stopped_there(pid, first):
    """Whether a process has given up its capabilities and waits in a send."""
    if pid == first:
        return False
    try:
        with open(f"/proc/{pid}/status") as status, open(f"/proc/{pid}/wchan") as wchan:
            return "CapPrm:\t0000000000000000" in status.read() and "unix" in wchan.read() + _syscall(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _syscall(pid):
    """ "unix" for a process that waits in sendto(2), where the kernel does not tell wchan."""
    with open(f"/proc/{pid}/syscall") as file:
        number = file.read().split()[0]
    return "unix" if number == {"x86_64": "44", "aarch64": "206"}[os.uname().machine] else ""


def test_nobody_in_the_container_can_look_into_a_process_that_joins(box):
    """CVE-2016-9962: at its last moment it has the container's own identity, and the host's memory and descriptors.

    Seen to fail without set_dumpable(False) in exec_in(): the container's shell read the path of the host's Python.
    """
    questions, ask = os.pipe2(os.O_CLOEXEC)
    heard, answers = os.pipe2(os.O_CLOEXEC)
    script = "while read pid && [ $pid != end ]; do readlink /proc/$pid/exe || echo denied; done"
    container = box.create(box.config("sh", "-c", script), (questions, answers, answers))
    container.start()
    said = b""
    with _stopped_before_execve(box, container) as pid:
        with open(f"/proc/{pid}/status") as status:
            inside = next(line for line in status if line.startswith("NSpid:")).split()[-1]
        os.write(ask, f"{inside}\n1\nend\n".encode())
        while said.count(b"\n") < 2:
            said += os.read(heard, 1000)
    # The first process's end waits for the other one to be collected, by its parent out here.
    container.wait()
    container.delete()
    for fd in (questions, ask, heard, answers):
        os.close(fd)
    assert said.split() == [b"denied", b"/bin/busybox"]


def test_a_process_of_a_joined_pid_namespace_is_hidden_from_it(box):
    """CVE-2016-9962 for create: a container in another one's pid namespace is assembled in its sight.

    Seen to fail without HideMemory in plan_process.first().
    """
    from runtime import plan

    config = box.config("sh")
    for namespace in config.linux.namespaces:
        if namespace.type == "pid":
            namespace.path = "/proc/self/ns/pid"
    steps = plan.build(config, str(box.bundle), None, None)
    assert steps.child[0].describe() == "become undumpable"


def test_inheritable_and_ambient_capabilities_of_the_runtime_do_not_come_through(box):
    """CVE-2022-29162, CVE-2022-27649. Seen to fail without capset() in init.set_identity()."""

    def work():
        have = credentials.capget()
        credentials.capset(CapabilitySets(have.effective, have.permitted, have.permitted))
        credentials.raise_ambient(1 << CAPABILITIES["CAP_KILL"])
        grep = "grep -E '^Cap(Inh|Amb)' /proc/self/status"
        only = spec.Capabilities(bounding=["CAP_KILL"], permitted=["CAP_KILL"], effective=["CAP_KILL"])
        for more in ({}, {"capabilities": only}, {"user": spec.User(uid=1000, gid=1000), "capabilities": only}):
            assert box.shell(grep, **more).split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16]
        with running(box, box.config("busybox", "sleep", "1000")) as container:
            process = spec.Process("/", args=["sh", "-c", grep], env=["PATH=/bin"])
            assert joined(box, container, process).split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16]

    _in_child(work)


def test_the_groups_are_exactly_those_asked_for(box):
    """CVE-2022-2989, -2990, -2995, CVE-2023-25173. Seen to fail without setgroups() in init.set_identity()."""
    grep = "grep Groups /proc/self/status"

    def work():
        os.setgroups([4242])
        for groups in ([], [7, 9]):
            user = spec.User(uid=1000, gid=1001, additional_gids=groups)
            assert [int(word) for word in box.shell(grep, user=user).split()[1:]] == groups
            with running(box, box.config("busybox", "sleep", "1000")) as container:
                process = spec.Process("/", args=["sh", "-c", grep], env=["PATH=/bin"], user=user)
                assert [int(word) for word in joined(box, container, process).split()[1:]] == groups

    _in_child(work)


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, 2**32 + 1, 2**64, -1])
def test_an_id_beyond_the_last_is_refused_and_does_not_wrap(box, uid):
    """CVE-2016-3697, CVE-2024-40635. Seen to fail without _user_faults(): 2^32 - 1 left the process root."""
    for user in (spec.User(uid=uid), spec.User(gid=uid), spec.User(additional_gids=[uid])):
        with pytest.raises(BadInput, match="is out of range"):
            box.create(box.config("sh", user=user))


@given(st.text(alphabet="0123456789 _-+:x\n٣", max_size=12))
def test_the_user_option_is_that_number_or_refused(text):
    """CVE-2026-30892. Seen to fail with int() for the parser: "1_0" was 10 and " 1" was 1."""
    process = spec.Process("/", args=["x"], user=spec.User(uid=77, gid=78))
    try:
        _change_user(process, Parsed(values={"--user": text}))
        check_process(process)
    except BadInput:
        return
    if not text:
        assert (process.user.uid, process.user.gid) == (77, 78)
        return
    uid, _, gid = text.partition(":")
    assert str(process.user.uid) == uid.lstrip("0") or (uid.strip("0") == "" and process.user.uid == 0)
    assert not gid or int(gid) == process.user.gid


@pytest.mark.parametrize("home", [b"/root\rx", b"/a\tb", b"/\x1b[2J", b"/\x7f"])
def test_a_home_with_control_characters_is_refused(box, home):
    """CVE-2022-4318. Seen to fail without home._checked(). A newline ends the entry, a NUL is no text of execve(2)."""
    (box.root / "etc/passwd").write_bytes(b"root:x:0:0::" + home + b":/bin/sh\n")
    with pytest.raises(ContainerError, match="control characters"):
        box.shell("echo $HOME")


def test_variables_with_a_nul_are_refused(box):
    """CVE-2022-4318 for what execve(2) would cut off."""
    with pytest.raises(BadInput, match="NUL byte"):
        box.create(box.config("sh", env=["HOME=/a\0b"]))


def _make_fifo(path):
    os.mkfifo(path)


def _make_huge(path):
    with open(path, "wb") as file:
        file.truncate(8 << 30)


def _make_device(path):
    os.mknod(path, 0o20666, os.makedev(1, 5))


def _make_directory(path):
    path.mkdir()


@pytest.mark.parametrize("make", [_make_fifo, _make_huge, _make_device, _make_directory])
def test_a_passwd_that_is_no_regular_file_or_huge_is_refused_at_once(box, make):
    """CVE-2024-9676, CVE-2025-4437. Seen to fail without the look at fstat in home._read_passwd(): none was."""
    make(box.root / "etc/passwd")
    begun = time.monotonic()
    with pytest.raises(ContainerError, match="is not a regular file of at most"):
        box.shell("echo $HOME")
    assert time.monotonic() - begun < 10


def test_a_passwd_that_is_a_link_is_followed_inside_the_root_alone(box, tmp_path):
    """CVE-2024-9676: the host's file of that path is not read, nor what /proc links to.

    Seen to fail with os.open() for open_in_root() in home._read_passwd().
    """
    (tmp_path / "passwd").write_text("root:x:0:0::/from-the-host:/bin/sh\n")
    os.symlink(tmp_path / "passwd", box.root / "etc/passwd")
    assert box.shell("echo $HOME") == "/\n"
    (box.root / "etc/passwd").unlink()
    os.symlink("/proc/self/fd/0", box.root / "etc/passwd")
    assert box.shell("echo $HOME") == "/\n"


def test_hooks_of_the_host_are_not_looked_up_in_the_image(box, tmp_path):
    """CVE-2022-1227: a helper is the host's program or none. Seen to fail with the hooks after PivotRoot."""
    for place, says in ((tmp_path / "helper", "host"), (box.root / "helper", "image")):
        place.write_text(f"#!/bin/sh\necho {says} > {tmp_path}/ran\n")
        place.chmod(0o755)
    for kind in ("prestart", "create_runtime", "create_container"):
        config = box.config("sh", "-c", "exit 0")
        config.hooks = spec.Hooks(**{kind: [spec.Hook("/helper")]})
        with pytest.raises(ContainerError, match="no such file or directory"):
            box.create(config)
        config.hooks = spec.Hooks(**{kind: [spec.Hook(str(tmp_path / "helper"))]})
        box.run(config)
        assert (tmp_path / "ran").read_text() == "host\n"
        (tmp_path / "ran").unlink()


def test_a_container_that_is_started_again_has_the_same_identity(box):
    """CVE-2019-11245: what the first run left in the root decides nothing about the second's.

    There is no mitigation to take out: ids are numbers of the description, looked up nowhere.
    """
    show = "busybox id -u; busybox id -G; echo 'x:x:1000:0::/:/bin/sh' >> /etc/passwd"
    (box.root / "etc").chmod(0o777)
    user = spec.User(uid=1000, gid=1001, additional_gids=[7])
    assert box.shell(show, user=user) == box.shell(show, user=user) == "1000\n1001 7\n"


def test_a_netlink_attribute_that_does_not_fit_its_length_is_refused():
    """CVE-2021-43784. Seen to fail without the check in attribute(): the length wrapped."""
    attribute(1, bytes(0xFFFF - 4))
    with pytest.raises(ValueError, match="does not fit its length field"):
        attribute(1, bytes(0xFFFF - 3))


def test_the_terminal_of_who_starts_it_is_not_the_payloads(box):
    """CVE-2016-10124 (TIOCSTI): no controlling terminal comes through, with or without descriptors of it.

    Seen to fail without setsid() in init.own_session(): /dev/tty could be opened.
    """
    master, terminal = pty.openpty()

    def work():
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        script = (
            "(echo x > /dev/tty) 2>/dev/null && echo reached; read -r stat < /proc/self/stat; set -- $stat; echo $7"
        )
        assert box.shell(script) == "0\n"
        with running(box, box.config("busybox", "sleep", "1000")) as container:
            process = spec.Process("/", args=["sh", "-c", script], env=["PATH=/bin"])
            assert joined(box, container, process) == "0\n"

    try:
        _in_child(work)
        assert not select.select([master], [], [], 0)[0]
    finally:
        os.close(master)
        os.close(terminal)


def test_this_suite_runs_on_the_interpreter_that_it_protects():
    assert os.path.samefile("/proc/self/exe", sys.executable)
