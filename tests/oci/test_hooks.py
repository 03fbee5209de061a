"""config.md, POSIX-platform Hooks, and what runtime.md's lifecycle says of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

CREATE = ("prestart", "createRuntime", "createContainer")
HOST = ("prestart", "createRuntime", "poststart", "poststop")
ALL = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Hooks:
    """Hooks of a box that write into a directory which host and container see at the same path."""

    def __init__(self, box):
        self.box = box
        self.shared = box.directory / "shared"
        self.shared.mkdir()
        box.mount(os.fspath(self.shared), self.shared, "bind", ("bind",))
        self.hooks = box.config.setdefault("hooks", {})

    def add(self, kind, script, **more):
        entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], **more}
        self.hooks.setdefault(kind, []).append(entry)

    def log(self, kind, text=None, script=""):
        """A hook that appends a line to the log."""
        self.add(kind, f"cat > /dev/null; echo {text or kind} >> {self.shared}/log; {script}")

    def read(self, name="log"):
        path = self.shared / name
        return path.read_text() if path.exists() else ""

    @property
    def lines(self):
        return self.read().splitlines()

    def life(self, *args):
        """Create, start, wait and delete; nothing of it may fail."""
        box = self.box
        box.create().ok()
        if args:
            box.args(*args)
        box.start().ok()
        box.wait()
        box.delete().ok()


@pytest.fixture
def hooks(box):
    return Hooks(box)


# A shell's bounded wait for a line of the log: those who would be too early are found out.
AWAIT = "for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do grep -q {} {} && break; sleep 0.01; done"


def test_every_hook_is_called_in_the_order_of_the_lifecycle(hooks):
    """Lifecycle: prestart, createRuntime, createContainer, startContainer, poststart and poststop hooks "MUST be invoked"."""
    log = hooks.shared / "log"
    for kind in reversed(ALL):
        if kind == "startContainer":
            hooks.add(kind, f"cat > /dev/null; {AWAIT.format('poststart', log)}; echo startContainer >> {log}")
        else:
            hooks.log(kind)
    hooks.box.args("sh", "-c", f"{AWAIT.format('poststart', log)}; echo program >> {log}")
    hooks.life()
    assert hooks.lines == [*ALL[:5], "program", "poststop"]


@pytest.mark.parametrize("kind", ALL)
def test_hooks_are_called_in_the_listed_order(hooks, kind):
    """Hooks: "Hooks MUST be called in the listed order"."""
    for number in ("1", "2", "3"):
        hooks.log(kind, number)
    hooks.life()
    assert hooks.lines == ["1", "2", "3"]


@pytest.mark.parametrize("kind", ALL)
def test_hooks_get_the_state_on_stdin(hooks, kind):
    """Hooks: "The state of the container MUST be passed to hooks over stdin"."""
    hooks.box.config["annotations"] = {"com.example.key": "value"}
    hooks.add(kind, f"cat > {hooks.shared}/state")
    hooks.life()
    state = json.loads(hooks.read("state"))
    assert (state["id"], state["bundle"]) == (hooks.box.id, os.fspath(hooks.box.directory))
    assert state["ociVersion"]
    assert state["annotations"] == {"com.example.key": "value"}


MOMENTS = {
    **dict.fromkeys(CREATE, "creating created"),
    "startContainer": "created",
    "poststart": "running",
    "poststop": "stopped",
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_the_status_that_hooks_get_is_that_of_the_moment(hooks, kind):
    """State: `status`: `creating`, `created`, `running`, `stopped`."""
    hooks.add(kind, f"cat > {hooks.shared}/state")
    hooks.life()
    assert json.loads(hooks.read("state"))["status"] in MOMENTS[kind].split()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart"])
def test_hooks_get_the_pid_of_the_container(hooks, kind):
    """State: `pid` "REQUIRED when `status` is `created` or `running` on Linux", by which hooks find the namespaces."""
    hooks.add(kind, f"cat > {hooks.shared}/state")
    hooks.life()
    assert json.loads(hooks.read("state"))["pid"] == hooks.box.pid


# What a hook prints of its namespaces; /proc is that of the host or of the container, and has it in both.
NAMESPACES = "for kind in mnt pid net; do readlink /proc/self/ns/$kind; done"


@pytest.mark.parametrize("kind", HOST)
def test_hooks_of_the_runtime_run_in_its_namespaces(hooks, kind):
    """Hooks: "hooks MUST be executed in the runtime namespace"."""
    hooks.add(kind, f"({NAMESPACES}) > {hooks.shared}/ns")
    hooks.life()
    assert hooks.read("ns").split() == [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net")]


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_hooks_of_the_container_run_in_its_namespaces(hooks, kind):
    """CreateContainer, StartContainer: "hooks MUST be executed in the container namespace"."""
    hooks.add(kind, f"({NAMESPACES}) > {hooks.shared}/ns")
    hooks.box.created()
    namespaces = [os.readlink(f"/proc/{hooks.box.pid}/ns/{name}") for name in ("mnt", "pid", "net")]
    hooks.box.start().ok()
    hooks.box.wait()
    assert hooks.read("ns").split() == namespaces


def test_the_path_of_a_create_container_hook_is_the_runtimes(hooks):
    """CreateContainer: "hooks' path MUST resolve in the runtime namespace"."""
    program = hooks.box.directory / "hook"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\necho ran >> {hooks.shared}/log\n")
    program.chmod(0o755)
    hooks.hooks["createContainer"] = [{"path": os.fspath(program)}]
    hooks.life()
    assert hooks.lines == ["ran"]


def test_the_path_of_a_start_container_hook_is_the_containers(hooks):
    """StartContainer: "hooks' path MUST resolve in the container namespace"."""
    program = hooks.box.rootfs / "hook"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\necho ran >> {hooks.shared}/log\n")
    program.chmod(0o755)
    hooks.hooks["startContainer"] = [{"path": "/hook"}]
    hooks.life()
    assert hooks.lines == ["ran"]


@pytest.mark.parametrize("kind", CREATE)
def test_hooks_of_create_are_called_by_create(hooks, kind):
    """Prestart, CreateRuntime, CreateContainer: "MUST be called as part of the `create` operation"."""
    hooks.log(kind)
    hooks.box.created()
    assert hooks.lines == [kind]


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_hooks_of_create_are_called_before_pivot_root(hooks, kind):
    """CreateRuntime, CreateContainer: "before the `pivot_root` or any equivalent operation has been executed"."""
    host = hooks.box.directory / "on-the-host"
    host.write_text("seen")
    hooks.add(kind, f"cat {host} > {hooks.shared}/seen")
    hooks.box.created()
    assert hooks.read("seen") == "seen"


def test_prestart_hooks_are_called_after_the_namespaces_are_made(hooks):
    """Prestart: "called after the container namespaces are created, so they provide an opportunity to customize"."""
    pid = f"$(grep -o '\"pid\": *[0-9]*' {hooks.shared}/state | grep -o '[0-9]*')"
    hooks.add("prestart", f"cat > {hooks.shared}/state; readlink /proc/{pid}/ns/net > {hooks.shared}/ns")
    hooks.box.created()
    assert hooks.read("ns").strip() == os.readlink(f"/proc/{hooks.box.pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_start_container_hooks_are_called_by_start_before_the_program(hooks):
    """StartContainer: "MUST be called before the user-specified process is executed as part of the `start` operation"."""
    hooks.log("startContainer")
    hooks.box.created("sh", "-c", f"echo program >> {hooks.shared}/log")
    assert hooks.lines == []
    hooks.box.start().ok()
    hooks.box.wait()
    assert hooks.lines == ["startContainer", "program"]


def test_poststart_hooks_are_called_before_start_returns(hooks):
    """Poststart: "MUST be called after the user-specified process is executed but before the `start` operation returns"."""
    hooks.log("poststart")
    hooks.box.created("sleep", "1000")
    assert hooks.lines == []
    hooks.box.start().ok()
    assert hooks.lines == ["poststart"]


def test_poststop_hooks_are_called_by_delete(hooks):
    """Poststop: "MUST be called after the container is deleted but before the `delete` operation returns"."""
    hooks.log("poststop")
    hooks.box.finished()
    assert hooks.lines == []
    hooks.box.delete().ok()
    assert hooks.lines == ["poststop"]


def test_poststop_hooks_are_called_by_a_forced_delete(hooks):
    """Poststop: the container is deleted as well when it is killed first."""
    hooks.log("poststop")
    hooks.box.running()
    hooks.box.delete("--force").ok()
    assert hooks.lines == ["poststop"]


@pytest.mark.parametrize("kind", CREATE)
def test_a_failing_hook_of_create_fails_it(hooks, kind):
    """Lifecycle: "If any ... hook fails, the runtime MUST generate an error, stop the container, and continue ... at step 12"."""
    hooks.add(kind, "exit 1")
    hooks.box.refused()


@pytest.mark.parametrize("kind", CREATE)
def test_a_failing_hook_of_create_stops_those_after_it(hooks, kind):
    """Lifecycle: "If any ... hook fails, the runtime MUST generate an error, stop the container"."""
    hooks.log(kind, "first", "exit 3")
    hooks.log(kind, "second")
    hooks.log("startContainer")
    hooks.box.create().failed()
    assert hooks.lines == ["first"]


def test_a_failing_start_container_hook_keeps_the_program_from_running(hooks):
    """Lifecycle: "If any startContainer hook fails, the runtime MUST generate an error, stop the container"."""
    hooks.log("startContainer", "hook", "exit 1")
    hooks.box.created("sh", "-c", f"echo program >> {hooks.shared}/log")
    hooks.box.start().failed()
    hooks.box.wait()
    assert hooks.box.query().code != 0 or hooks.box.status == "stopped"
    assert hooks.lines == ["hook"]


@pytest.mark.parametrize("kind", [*CREATE, "startContainer"])
def test_poststop_hooks_are_called_after_another_hook_has_failed(hooks, kind):
    """Lifecycle: a failed hook continues "the lifecycle at step 12", which destroys the container and calls poststop."""
    hooks.add(kind, "exit 1")
    hooks.log("poststop")
    if hooks.box.create().code == 0:
        hooks.box.start().failed()
        hooks.box.wait()
        if hooks.box.query().code == 0:
            hooks.box.delete().ok()
    assert hooks.lines == ["poststop"]


def test_a_failing_poststart_hook_is_a_warning(hooks):
    """Lifecycle: "If any poststart hook fails, the runtime MUST log a warning, but the remaining hooks ... continue"."""
    hooks.log("poststart", "first", "exit 1")
    hooks.log("poststart", "second")
    hooks.box.created("sleep", "1000")
    result = hooks.box.start().ok()
    assert hooks.lines == ["first", "second"]
    assert result.err.strip()
    assert hooks.box.status == "running"


def test_a_failing_poststop_hook_is_a_warning(hooks):
    """Lifecycle: "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks ... continue"."""
    hooks.log("poststop", "first", "exit 1")
    hooks.log("poststop", "second")
    hooks.box.finished()
    result = hooks.box.delete().ok()
    assert hooks.lines == ["first", "second"]
    assert result.err.strip()
    hooks.box.query().failed()


def test_a_hook_gets_its_arguments(hooks):
    """Hooks: `args` "with the same semantics as execv's argv"."""
    program = hooks.box.directory / "hook"
    shutil.copy(hooks.box.rootfs / "bin/busybox", program)
    hooks.hooks["createRuntime"] = [
        {
            "path": os.fspath(program),
            "args": ["sh", "-c", f'printf "%s|" "$0" "$@" > {hooks.shared}/args', "zero", "a b", ""],
        }
    ]
    hooks.box.created()
    assert hooks.read("args") == "zero|a b||"


def test_a_hook_gets_its_environment_and_no_other(hooks):
    """Hooks: `env` "with the same semantics as environ"."""
    hooks.add("createRuntime", f"env > {hooks.shared}/env", env=["PATH=/bin:/usr/bin", "key1=value1"])
    hooks.box.create(env={"HOST_SECRET": "1"}).ok()
    found = hooks.read("env").splitlines()
    assert "key1=value1" in found
    assert not [line for line in found if "SECRET" in line]


def test_a_hook_without_an_environment_has_that_of_the_runtime(hooks):
    """Hooks: `env` is OPTIONAL; runc and crun let a hook without one inherit, and scripts count on PATH."""
    hooks.add("createRuntime", f"env > {hooks.shared}/env")
    del hooks.hooks["createRuntime"][0]["env"]
    hooks.box.create(env={"FROM_OUTSIDE": "1"}).ok()
    assert "FROM_OUTSIDE=1" in hooks.read("env").splitlines()


def test_a_start_container_hook_without_an_environment_has_that_of_the_process(hooks):
    """StartContainer: it runs in the container, where nothing of the runtime's environment may be seen."""
    program = hooks.box.rootfs / "hook"
    program.write_text(f"#!/bin/sh\nenv > {hooks.shared}/env\n")
    program.chmod(0o755)
    hooks.hooks["startContainer"] = [{"path": "/hook"}]
    hooks.box.process["env"].append("OF_THE_PROCESS=1")
    hooks.box.create(env={"FROM_OUTSIDE": "1"}).ok()
    hooks.box.runtime("start", hooks.box.id, env={"FROM_OUTSIDE": "1"}).ok()
    hooks.box.wait()
    found = hooks.read("env").splitlines()
    assert "OF_THE_PROCESS=1" in found
    assert not [line for line in found if "FROM_OUTSIDE" in line]


def test_a_hook_that_exceeds_its_timeout_is_aborted(hooks):
    """Hooks: `timeout` "is the number of seconds before aborting the hook"."""
    hooks.add("createRuntime", f"echo $$ > {hooks.shared}/pid; exec sleep 1000", timeout=1)
    hooks.box.refused()
    assert not Path(f"/proc/{hooks.read('pid').strip()}").exists()


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_must_be_greater_than_zero(hooks, timeout):
    """Hooks: "If set, `timeout` MUST be greater than zero"."""
    hooks.add("createRuntime", "true", timeout=timeout)
    hooks.box.refused()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "prestart"])
def test_the_path_of_a_hook_must_be_absolute(hooks, kind):
    """Hooks: "`path` MUST be absolute"."""
    hooks.hooks[kind] = [{"path": "sh", "args": ["sh", "-c", "read state"]}]
    hooks.box.refused()


@pytest.mark.parametrize("kind", CREATE)
def test_a_hook_whose_program_is_missing_is_an_error(hooks, kind):
    """Hooks: "The value of `path` MUST resolve in the runtime namespace"."""
    hooks.hooks[kind] = [{"path": "/no/such/hook"}]
    assert "/no/such/hook" in hooks.box.refused().err


def test_run_calls_every_hook(hooks):
    """run is create, start and delete in one."""
    for kind in ALL:
        hooks.log(kind)
    hooks.box.run("true").ok()
    assert sorted(hooks.lines) == sorted(ALL)
    assert hooks.lines[-1] == "poststop"


def test_a_hook_need_not_read_its_stdin(hooks):
    """Hooks: the state is passed "so that they may do work appropriate"; a pipe holds 64 KiB that nobody reads."""
    hooks.box.config["annotations"] = {"com.example.long": "x" * 200_000}
    hooks.add("createRuntime", f"echo ran >> {hooks.shared}/log")
    hooks.box.created()
    assert hooks.lines == ["ran"]
