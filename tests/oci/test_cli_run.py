"""create and run as a command line: pid files, terminals, descriptors, exit codes."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from tests.oci.descriptors import numbered, read_until, receiver

# create


def test_the_pid_file_holds_the_pid(box):
    """create --pid-file: the pid as text, nothing else; conmon and the shim read it."""
    box.created()
    assert box.pid_file.read_text() == str(box.state["pid"])


def test_the_bundles_terminal_goes_to_the_console_socket(box):
    """create --console-socket: one connection that brings the master of the terminal."""
    box.process["terminal"] = True
    with receiver() as console:
        box.args("sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all three")
        box.create("--console-socket", console.path).ok()
        master = console.terminal()
        box.start().ok()
        assert box.wait() == 0
        text = read_until(master, b"all three")
    assert text.startswith((b"/dev/pts/0\r\n", b"/dev/console\r\n"))


def test_a_container_with_a_terminal_lets_go_of_the_creators_output(box):
    """create --console-socket: containerd's shim reads the output to its end before it takes the terminal."""
    box.process["terminal"] = True
    with receiver() as console:
        box.create("--console-socket", console.path).ok()
        console.terminal()
        held = [os.readlink(entry) for entry in os.scandir(f"/proc/{box.pid}/fd")]
    assert "/dev/pts/0" in held
    assert str(box.out) not in held


def test_the_console_is_the_terminal(box):
    """config-linux.md, Default Devices: "`/dev/console` is set up if `terminal` is enabled ... by bind mounting the pty"."""
    box.process["terminal"] = True
    with receiver() as console:
        box.args("sh", "-c", "stat -c %t:%T /dev/console; echo through > /dev/console")
        box.create("--console-socket", console.path).ok()
        master = console.terminal()
        box.start().ok()
        assert box.wait() == 0
        text = read_until(master, b"through")
    assert b"88:0" in text


def test_the_terminal_can_be_typed_into(box):
    """config.md, Process: the terminal is "duplicated on the process's standard streams", and controls the process."""
    box.process["terminal"] = True
    with receiver() as console:
        box.args(
            "sh", "-c", "trap 'echo interrupted; exit 5' INT; read line; echo got $line; while :; do read line; done"
        )
        box.create("--console-socket", console.path).ok()
        master = console.terminal()
        box.start().ok()
        os.write(master, b"hello\n")
        read_until(master, b"got hello")
        os.write(master, b"\x03")
        read_until(master, b"interrupted")
        assert box.wait() == 5


def test_the_terminal_has_the_configured_size(box):
    """config.md, Process: `consoleSize` "specifies the console size in characters of the terminal"."""
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 33, "width": 111}
    with receiver() as console:
        box.args("stty", "size")
        box.create("--console-socket", console.path).ok()
        master = console.terminal()
        box.start().ok()
        assert box.wait() == 0
        assert b"33 111" in read_until(master, b"111")


def test_a_terminal_needs_a_console_socket(box):
    """create: a terminal that nobody could get hold of is an error."""
    box.process["terminal"] = True
    box.refused()


def test_a_console_socket_needs_a_terminal(box):
    """create --console-socket: without a terminal there is nothing to send."""
    with receiver() as console:
        box.create("--console-socket", console.path).failed()


def test_further_descriptors_are_passed_on(box):
    """create --preserve-fds: N descriptors after the standard three."""
    (box.directory / "file").write_text("through")
    fd = os.open(box.directory / "file", os.O_RDONLY)
    try:
        with numbered(3, fd) as three:
            box.args("cat", "/proc/self/fd/3")
            box.create("--preserve-fds", "1", pass_fds=(three,)).ok()
    finally:
        os.close(fd)
    box.start().ok()
    box.wait()
    assert box.output() == "through"


def test_a_created_container_holds_nothing_more_of_its_callers(box):
    """create: who reads a pipe of his to its end must not wait for a container that nobody has started."""
    # Fails when descriptors are left to execve to close, which is at start.
    read, write = os.pipe()
    box.create(pass_fds=(write,)).ok()
    os.close(write)
    assert select.select([read], [], [], 5)[0] and os.read(read, 1) == b""
    os.close(read)


def test_a_created_container_with_a_terminal_holds_no_standard_stream_of_its_callers(box):
    """create: callers of `create --console-socket` read its output to the end."""
    # Fails when the copies that the streams are put in place from are kept.
    box.process["terminal"] = True
    with receiver() as console:
        box.create("--console-socket", console.path).ok()
        console.terminal()
        held = {os.readlink(entry) for entry in Path(f"/proc/{box.pid}/fd").iterdir()}
    assert str(box.out) not in held


# run


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_run_ends_with_the_programs_exit_code(box, code):
    """run: the exit code is the container's."""
    assert box.run("sh", "-c", f"exit {code}").code == code


def test_run_ends_with_128_and_the_number_of_the_signal(box):
    """run: as shells put it. A program that is pid 1 of its namespace gets no signal from within, pid_namespaces(7)."""
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    assert box.run("mkdir", "/tmp/made").code == 128 + signal.SIGSYS


def test_run_removes_the_container(box):
    """run: nothing stays of a container that has ended."""
    box.run("true").ok()
    box.query().failed()


def test_run_passes_the_standard_streams(box):
    """run: stdin, stdout and stderr are the caller's."""
    result = box.run("sh", "-c", "cat; echo error >&2", stdin="typed\n").ok()
    assert (result.out, "error" in result.err) == ("typed\n", True)


def test_run_can_keep_the_container(box):
    """run --keep: the stopped container stays, for its state to be asked for."""
    assert box.run("sh", "-c", "exit 3", options=("--keep",)).code == 3
    assert box.status == "stopped"
    box.delete().ok()


def test_run_detached_returns_while_the_container_runs(box):
    """run --detach: returns once the program runs."""
    box.args("sleep", "1000").save()
    box.runtime("run", "--bundle", box.directory, "--detach", "--pid-file", box.pid_file, box.id, output=box.out).ok()
    assert (box.status, box.state["pid"]) == ("running", box.pid)
    box.kill("KILL").ok()
    assert box.wait() == 137


def test_run_detached_can_keep_and_pass_descriptors(box):
    """run --detach --keep --preserve-fds: together, as callers have them."""
    (box.directory / "file").write_text("through")
    fd = os.open(box.directory / "file", os.O_RDONLY)
    box.args("cat", "/proc/self/fd/3").save()
    command = (
        "run",
        "--bundle",
        box.directory,
        "--detach",
        "--keep",
        "--preserve-fds",
        "1",
        "--pid-file",
        box.pid_file,
        box.id,
    )
    with numbered(3, fd) as three:
        box.runtime(*command, output=box.out, pass_fds=(three,)).ok()
    os.close(fd)
    box.wait()
    assert (box.output(), box.status) == ("through", "stopped")


def test_listen_fds_is_passed_on(box):
    """runtime-linux.md, File descriptors: "MAY pass additional file descriptors ... to support features such as socket activation"."""
    (box.directory / "file").write_text("through")
    fd = os.open(box.directory / "file", os.O_RDONLY)
    # sd_listen_fds(3): the descriptors are for the process that LISTEN_PID names, which is the runtime.
    box.runtime.argv = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *box.runtime.argv]
    with numbered(3, fd) as three:
        result = box.run(
            "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat /proc/self/fd/3", pass_fds=(three,), env={"LISTEN_FDS": "1"}
        )
    os.close(fd)
    assert result.ok().out == "1 1\nthrough"
