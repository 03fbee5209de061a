"""exec as a command line."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.oci.bundle import reap
from tests.oci.descriptors import numbered, read_until, receiver


def test_exec_runs_in_the_containers_namespaces_and_cgroup(box):
    """exec: a new process in a running container."""
    box.running()
    printed = (
        box.exec("sh", "-c", "for kind in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$kind; done").ok().out
    )
    assert printed.split() == [
        os.readlink(f"/proc/{box.pid}/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    ]


@pytest.mark.parametrize("code", [0, 1, 7, 126, 254])
def test_exec_ends_with_the_programs_exit_code(box, code):
    """exec: the exit code is the program's."""
    assert box.running().exec("sh", "-c", f"exit {code}").code == code


def test_exec_ends_with_128_and_the_number_of_the_signal(box):
    """exec: as shells put it."""
    assert box.running().exec("sh", "-c", "kill -KILL $$").code == 137


def test_exec_passes_the_standard_streams(box):
    """exec: stdin, stdout and stderr are the caller's."""
    result = box.running().exec("sh", "-c", "cat; echo error >&2", stdin="typed\n").ok()
    assert (result.out, result.err.strip()) == ("typed\n", "error")


def test_exec_has_the_containers_environment_directory_and_user(box):
    """exec: what no option names is as the configuration has it."""
    box.process["cwd"] = "/tmp"
    box.process["env"].append("GREETING=hello")
    box.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9]}
    printed = (
        box.running()
        .exec("sh", "-c", "echo $GREETING $PWD $(id -u) $(id -g); grep ^Groups: /proc/self/status")
        .ok()
        .out
    )
    assert printed.split() == ["hello", "/tmp", "7", "8", "Groups:", *printed.split()[5:]]
    assert "9" in printed.split()[5:]


def test_options_of_exec_change_them(box):
    """exec --cwd, --env, --user."""
    options = ("--cwd", "/etc", "--env", "A=1", "--env", "B=x y", "--user", "5:6")
    printed = box.running().exec(*options, "--", "sh", "-c", 'echo $PWD $A "$B" $(id -u) $(id -g)').ok().out
    assert printed == "/etc 1 x y 5 6\n"


def test_exec_takes_a_process_file(box):
    """exec --process: a `process` of the specification, as podman and containerd pass it."""
    process = {
        "cwd": "/tmp",
        "env": ["PATH=/bin", "ONLY=this"],
        "user": {"uid": 3, "gid": 4, "additionalGids": [5]},
        "args": [
            "sh",
            "-c",
            "echo $ONLY $PWD $(id -u):$(id -g); grep -E '^(CapEff|CapBnd|NoNewPrivs|Max open)' /proc/self/status /proc/self/limits -h",
        ],
        "capabilities": {
            name: ["CAP_KILL"] for name in ("bounding", "permitted", "effective", "inheritable", "ambient")
        },
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}],
    }
    (box.directory / "process.json").write_text(json.dumps(process))
    printed = box.running().exec("--process", box.directory / "process.json", "--").ok().out
    assert re.sub(r"\s+", " ", printed).split() == (
        [
            "this",
            "/tmp",
            "3:4",
            "CapEff:",
            "0000000000000020",
            "CapBnd:",
            "0000000000000020",
            "NoNewPrivs:",
            "1",
            "Max",
            "open",
            "files",
            "55",
            "66",
            "files",
        ]
    )


def test_exec_is_bound_to_the_configured_processors(box):
    """config.md, Linux Process: `execCPUAffinity`: `final` "is a list of CPUs the process will be run on"."""
    last = max(os.sched_getaffinity(0))
    process = {**box.process, "execCPUAffinity": {"initial": "0", "final": str(last)}}
    process["args"] = ["grep", "^Cpus_allowed_list:", "/proc/self/status"]
    (box.directory / "process.json").write_text(json.dumps(process))
    printed = box.running().exec("--process", box.directory / "process.json", "--").ok().out
    assert printed.split()[1] == str(last)


def test_exec_has_the_capabilities_and_restrictions_of_the_container(box):
    """exec: no more rights than the container has."""
    box.process["capabilities"] = {name: ["CAP_KILL"] for name in ("bounding", "permitted", "effective")}
    printed = box.running().exec("grep", "-E", "^(Cap|NoNew)", "/proc/self/status").ok().out
    found = dict(line.split(":\t") for line in printed.splitlines())
    assert (int(found["CapBnd"], 16), int(found["CapEff"], 16), int(found["CapInh"], 16)) == (0x20, 0x20, 0)
    assert found["NoNewPrivs"] == "1"


def test_exec_detached_returns_while_the_program_runs(box, fifo):
    """exec --detach --pid-file: the caller waits for the program itself."""
    pid_file = box.directory / "exec-pid"
    box.running().exec("--detach", "--pid-file", pid_file, "--", "sh", "-c", "echo up > /fifo; exec sleep 1000").ok()
    assert fifo.line() == "up"
    pid = int(pid_file.read_text())
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{box.pid}/ns/pid")
    os.kill(pid, signal.SIGTERM)
    assert reap(pid) == 143


def test_exec_with_a_terminal_sends_it_to_the_console_socket(box):
    """exec --tty --console-socket --detach, as containerd has it."""
    pid_file = box.directory / "exec-pid"
    with receiver() as console:
        options = ("--tty", "--detach", "--console-socket", console.path, "--pid-file", pid_file)
        box.running().exec(*options, "--", "sh", "-c", "tty; read line; echo got $line").ok()
        master = console.terminal()
        text = read_until(master, b"/dev/pts/")
        os.write(master, b"hello\n")
        text += read_until(master, b"got hello")
        assert reap(int(pid_file.read_text())) == 0


def test_exec_of_a_program_that_is_missing_is_an_error(box):
    """exec: an error that names the program."""
    result = box.running().exec("no-such-program").failed()
    assert "no-such-program" in result.err
    assert result.code in (126, 127, 255)


def test_exec_needs_a_container_that_has_not_ended(box):
    """exec: a new process in a running container."""
    box.finished().exec("true").failed()


def test_descriptors_are_passed_to_exec(box):
    """exec --preserve-fds."""
    (box.directory / "file").write_text("through")
    fd = os.open(box.directory / "file", os.O_RDONLY)
    box.running()
    with numbered(3, fd) as three:
        result = box.exec("--preserve-fds", "1", "--", "cat", "/proc/self/fd/3", pass_fds=(three,))
    os.close(fd)
    assert result.ok().out == "through"
