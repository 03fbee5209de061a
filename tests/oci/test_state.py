"""runtime.md: the state of a container, as the operation `state` answers it."""

from __future__ import annotations

import os
import re
from pathlib import Path

SEMVER = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def test_the_state_has_every_required_property(box):
    """State: "The state of a container includes the following properties" ociVersion, id, status, pid, bundle."""
    state = box.created().state
    assert {"ociVersion", "id", "status", "pid", "bundle"} <= state.keys()
    assert all(isinstance(state[name], str) for name in ("ociVersion", "id", "status", "bundle"))
    assert isinstance(state["pid"], int)


def test_the_version_is_that_of_the_specification(box):
    """State: `ociVersion` "is version of the Open Container Initiative Runtime Specification"."""
    assert SEMVER.fullmatch(box.created().state["ociVersion"])


def test_the_id_is_the_one_it_was_created_with(box):
    """State: `id` "is the container's ID"."""
    assert box.created().state["id"] == box.id


def test_the_status_follows_the_lifecycle(box):
    """State: `status` is `created`, `running`, `stopped`."""
    assert box.created("sleep", "1000").status == "created"
    box.start().ok()
    assert box.status == "running"
    box.kill("KILL").ok()
    box.wait()
    assert box.status == "stopped"


def test_the_pid_is_that_of_the_containers_process_on_the_host(box):
    """State: `pid` "is the ID of the container process"; "REQUIRED when `status` is `created` or `running` on Linux"."""
    box.created("sleep", "1000")
    for _ in range(2):
        pid = box.state["pid"]
        assert pid == box.pid
        assert re.search(r"^NSpid:\t\d+\t1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        box.start()
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"


def test_the_bundle_is_an_absolute_path(box):
    """State: `bundle` "is the absolute path to the container's bundle directory"."""
    box.save()
    box.runtime("create", "--bundle", ".", box.id, cwd=box.directory, output=box.out).ok()
    assert box.state["bundle"] == os.fspath(box.directory)


def test_the_bundle_is_the_current_directory_unless_one_is_given(box):
    """runc(8), create: the bundle "defaults to the current directory"."""
    box.save()
    box.runtime("create", box.id, cwd=box.directory, output=box.out).ok()
    assert box.state["bundle"] == os.fspath(box.directory)


def test_annotations_are_passed_on(box):
    """State: `annotations` "contains the list of annotations associated with the container"."""
    box.config["annotations"] = {"com.example.key": "value", "com.example.empty": ""}
    assert box.created().state["annotations"] == box.config["annotations"]


def test_no_annotations_are_none(box):
    """State: "If no annotations were provided then this property MAY either be absent or an empty map"."""
    assert not box.created().state.get("annotations")


def test_the_state_of_a_stopped_container_can_be_asked_for(box):
    """State: "This operation MUST return the state of a container"; pid is then optional."""
    state = box.finished().state
    assert (state["status"], state["id"], state.get("pid", 0)) == ("stopped", box.id, 0)
