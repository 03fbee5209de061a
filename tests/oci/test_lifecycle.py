"""runtime.md: the lifecycle, errors, and the operations create, start, kill and delete."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.oci.bundle import reap, signal_number

UNKNOWN = "no-such-container"


def test_create_does_not_run_the_program(box):
    """Create: "`process.args` MUST NOT be applied until triggered by the `start` operation"."""
    box.created("touch", "/ran")
    assert box.status == "created"
    assert not (box.rootfs / "ran").exists()
    box.start().ok()
    assert box.wait() == 0
    assert (box.rootfs / "ran").exists()


def test_create_applies_every_property_but_the_process(box):
    """Create: "All of the properties configured in `config.json` except for `process` MUST be applied"."""
    box.config["hostname"] = "made-at-create"
    box.mount("/extra", options=("size=4k",))
    box.created()
    pid = box.pid
    assert "/extra" in Path(f"/proc/{pid}/mountinfo").read_text()
    for kind in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_start_runs_the_program_that_the_configuration_names(box):
    """Start: "This operation MUST run the user-specified program as specified by `process`"."""
    box.process["env"].append("GREETING=hello")
    box.process["cwd"] = "/tmp"
    box.finished("sh", "-c", 'echo "$GREETING from $PWD: $0"', "me")
    assert box.output() == "hello from /tmp: me\n"


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_changes_of_the_configuration_after_create_have_no_effect(box, change):
    """Lifecycle: "Any updates to `config.json` after this step MUST NOT affect the container"."""
    box.created("echo", "first")
    if change == "edited":
        box.args("echo", "second").save()
    else:
        (box.directory / "config.json").unlink()
    box.start().ok()
    assert box.wait() == 0
    assert box.output() == "first\n"


def test_a_property_that_cannot_be_applied_is_an_error_and_makes_no_container(box):
    """Create: "If the runtime cannot apply a property ..., it MUST generate an error and a new container MUST NOT be created"."""
    box.bind("/data", box.directory / "missing")
    box.refused()
    assert box.id not in box.runtime("list", "-q").ok().out


def test_create_needs_an_id(box):
    """Create: "MUST generate an error if it is not provided a path to the bundle and the container ID"."""
    box.save()
    box.runtime("create", "--bundle", box.directory).failed()


def test_create_needs_a_bundle(box):
    """Create: "MUST generate an error if it is not provided a path to the bundle and the container ID"."""
    box.runtime("create", "--bundle", box.directory / "none", box.id).failed()
    box.runtime("create", box.id, cwd=box.directory).failed()  # no config.json has been written
    box.query().failed()


def test_an_id_in_use_is_refused(box, bundles):
    """Create: "If the ID provided is not unique ... MUST generate an error and a new container MUST NOT be created"."""
    box.created("echo", "first")
    before = box.state
    other = bundles()
    other.args("echo", "other").save()
    box.runtime("create", "--bundle", other.directory, box.id).failed()
    assert box.state == before
    box.start().ok()
    assert box.wait() == 0
    assert box.output() == "first\n"


@pytest.mark.parametrize(
    "container_id", ["", "..", "a/b", "../escape", "a\nb"], ids=["empty", "..", "a-b", "escape", "newline"]
)
def test_an_invalid_id_is_refused(box, container_id):
    """Create: "or is not valid in any other way, the implementation MUST generate an error"."""
    box.save()
    result = box.runtime("create", "--bundle", box.directory, container_id, output=box.out)
    if result.code == 0:
        box.runtime("delete", "--force", container_id)
    result.failed()


def test_a_configuration_without_process_cannot_be_started(box):
    """Start: "This operation MUST generate an error if `process` was not set"."""
    del box.config["process"]
    box.refused_at_last()


def test_a_configuration_without_process_can_be_created(box):
    """Process: it "is REQUIRED when `start` is called", not before."""
    del box.config["process"]
    box.create().ok()
    assert box.status == "created"


@pytest.mark.parametrize("operation", ["state", "start", "kill", "delete"])
def test_every_operation_needs_an_id(runtime, operation):
    """State, Start, Kill, Delete: "MUST generate an error if it is not provided the container ID"."""
    runtime(operation).failed()


@pytest.mark.parametrize(
    "command", [["state"], ["start"], ["kill"], ["delete"], ["exec"], ["pause"], ["resume"], ["ps"]]
)
def test_operations_on_a_container_that_does_not_exist_are_errors(runtime, command):
    """State, Start, Kill, Delete: a container that does not exist "MUST generate an error"."""
    more = {"kill": ["KILL"], "exec": ["true"]}.get(command[0], [])
    result = runtime(*command, UNKNOWN, *more).failed()
    assert result.err.strip()


def test_a_running_container_cannot_be_started_again(box, fifo):
    """Start: "a container that is not `created` MUST have no effect on the container and MUST generate an error"."""
    box.running("sh", "-c", "echo ran > /fifo; exec sleep 1000")
    assert fifo.line() == "ran"
    pid = box.pid
    box.start().failed()
    assert (box.status, box.pid) == ("running", pid)
    assert fifo.empty()


def test_a_stopped_container_cannot_be_started_again(box):
    """Start: "a container that is not `created` MUST have no effect on the container and MUST generate an error"."""
    box.finished("sh", "-c", "echo ran >> /count")
    box.start().failed()
    assert box.status == "stopped"
    assert (box.rootfs / "count").read_text() == "ran\n"


@pytest.mark.parametrize("spelling", ["TERM", "SIGTERM", "15"])
def test_kill_sends_the_signal_it_is_given(box, fifo, spelling):
    """Kill: "This operation MUST send the specified signal to the container process"."""
    box.running("sh", "-c", "trap 'exit 42' TERM; echo ready > /fifo; while :; do sleep 0.01; done")
    assert fifo.line() == "ready"
    pid = box.pid
    box.kill(spelling).ok()
    assert reap(pid) == 42


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCHLD"])
def test_kill_sends_each_signal_as_itself(box, fifo, name):
    """Kill: "This operation MUST send the specified signal to the container process"."""
    number = signal_number(name)
    box.running(
        "sh",
        "-c",
        f"trap 'echo got > /fifo; exit {number}' {number}; echo ready > /fifo; while :; do read line < /none; done",
    )
    assert fifo.line() == "ready"
    pid = box.pid
    box.kill(name).ok()
    assert fifo.line() == "got"
    assert reap(pid) == number


def test_kill_without_a_signal_sends_sigterm(box, fifo):
    """runc(8) and crun(1), kill: the signal is SIGTERM unless one is given."""
    box.running("sh", "-c", "trap 'exit 42' TERM; echo ready > /fifo; while :; do read line < /none; done")
    assert fifo.line() == "ready"
    pid = box.pid
    box.kill().ok()
    assert reap(pid) == 42


def test_a_created_container_can_be_killed(box):
    """Kill: only a container "that is neither `created` nor `running`" is an error."""
    box.created()
    pid = box.pid
    box.kill("KILL").ok()
    reap(pid)
    assert box.status == "stopped"


def test_a_created_container_that_was_killed_cannot_be_started(box):
    """Start: "a container that is not `created` MUST have no effect on the container and MUST generate an error"."""
    box.created("touch", "/ran")
    box.kill("KILL").ok()
    box.wait()
    box.start().failed()
    assert not (box.rootfs / "ran").exists()


def test_a_stopped_container_cannot_be_killed(box):
    """Kill: "a container that is neither `created` nor `running` ... MUST generate an error"."""
    box.finished()
    before = box.state
    box.kill("TERM").failed()
    assert box.state == before


@pytest.mark.parametrize("unknown", ["NOSUCH", "SIGNOSUCH", "0x9", "999", "-1"])
def test_a_signal_that_does_not_exist_is_refused(box, unknown):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.running()
    box.runtime("kill", box.id, unknown).failed()
    assert box.status == "running"


def test_the_status_is_stopped_once_the_program_has_ended(box):
    """Lifecycle: "The container process exits. This MAY happen due to erroring out, exiting, crashing or ... kill"."""
    for script in ("exit 3", "kill -SEGV $$", "no-such-program"):
        box.finished("sh", "-c", script)
        assert box.status == "stopped"
        box.delete().ok()


def test_a_created_container_cannot_be_deleted(box):
    """Delete: "a container that is not `stopped` MUST have no effect on the container and MUST generate an error"."""
    box.created("echo", "still there")
    box.delete().failed()
    assert box.status == "created"
    box.start().ok()
    assert box.wait() == 0
    assert box.output() == "still there\n"


def test_a_running_container_cannot_be_deleted(box):
    """Delete: "a container that is not `stopped` MUST have no effect on the container and MUST generate an error"."""
    box.running()
    pid = box.pid
    box.delete().failed()
    assert (box.status, box.pid) == ("running", pid)


def test_delete_takes_away_what_create_made(box, machine):
    """Delete: "Deleting a container MUST delete the resources that were created during the `create` step"."""
    box.finished()
    box.delete().ok()
    box.query().failed()
    assert box.runtime("list", "-q").ok().out == ""
    assert not (Path("/sys/fs/cgroup") / machine / box.id).exists()
    assert [path for path in box.runtime.root.rglob("*") if box.id in path.name] == []


def test_delete_keeps_what_create_did_not_make(box):
    """Delete: "resources associated with the container, but not created by this container, MUST NOT be deleted"."""
    source = box.directory / "source"
    source.mkdir()
    (source / "file").write_text("kept")
    box.bind("/data", source)
    box.finished("cat", "/data/file")
    box.delete().ok()
    assert (source / "file").read_text() == "kept"
    assert (box.rootfs / "bin/busybox").exists()
    assert (box.directory / "config.json").exists()


def test_the_id_of_a_deleted_container_can_be_used_again(box):
    """Delete: "Once a container is deleted its ID MAY be used by a subsequent container"."""
    for word in ("one", "two"):
        box.finished("echo", word)
        box.delete().ok()
    assert box.output() == "one\ntwo\n"


def test_an_error_leaves_everything_as_it_was(box, machine):
    """Errors: "generating an error MUST leave the state of the environment as if the operation were never attempted"."""
    box.mount("/data", options=("no-such-option-of-tmpfs=1",))
    box.refused()
    assert not (Path("/sys/fs/cgroup") / machine / box.id).exists()
    assert [path for path in box.runtime.root.rglob("*") if box.id in path.name] == []
    box.mounts.pop()
    assert box.run("echo", "works").ok().out == "works\n"


def test_containers_of_one_root_do_not_see_those_of_another(box):
    """Scope: ids are unique "across all containers within the scope of the runtime", which --root is."""
    box.created()
    box.runtime("list", options=("--root", box.directory / "other")).ok()
    assert json.loads(
        box.runtime("list", "--format", "json", options=("--root", box.directory / "other")).ok().out
    ) in ([], None)
