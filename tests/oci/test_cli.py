"""The command line as podman, containerd and CRI-O use it: runc(8) and crun(1)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.oci.bundle import reap

ABSENT = "no-such-container"
# Words that callers look for: podman, containerd and docker tell by them what is gone already.
MISSING = "does not exist"
ENDED = ("container not running", "no such process", "process already finished", "not running")


# global options


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_the_version_is_printed(runtime, option):
    """--version: the program, and "spec: " with the version of the specification, on lines of their own."""
    lines = runtime(option).ok().out.splitlines()
    assert re.match(rf"{re.escape(runtime.name)} version \d+\.\d+", lines[0])
    assert any(re.fullmatch(r"spec: \d+\.\d+\.\d+(-\S+)?", line) for line in lines)


def test_errors_go_to_the_log_as_json(runtime, tmp_path):
    """--log, --log-format json: a line for each message, with level, msg and time; containerd and podman read the last one."""
    log = tmp_path / "log"
    runtime("start", ABSENT, options=("--log", log, "--log-format", "json")).failed()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["level"] == "error"
    assert MISSING in lines[-1]["msg"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", lines[-1]["time"])


def test_errors_go_to_the_log_as_text(runtime, tmp_path):
    """--log: the same as text, which is the default format."""
    log = tmp_path / "log"
    runtime("start", ABSENT, options=("--log", log)).failed()
    assert MISSING in log.read_text()


def test_errors_go_to_standard_error_whatever_the_log(runtime, tmp_path):
    """--log: whoever reads no log sees the error as well."""
    result = runtime("start", ABSENT, options=("--log", tmp_path / "log", "--log-format", "json")).failed()
    assert MISSING in result.err


def test_the_log_is_appended_to(runtime, tmp_path):
    """--log: callers hand the same file to every command."""
    log = tmp_path / "log"
    for _ in range(2):
        runtime("start", ABSENT, options=("--log", log, "--log-format", "json")).failed()
    assert len([line for line in log.read_text().splitlines() if '"error"' in line]) == 2


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["list", "--no-such-option"], ["list", "--format", "no-such-format"]]
)
def test_what_is_unknown_is_an_error(runtime, arguments):
    """A command, an option or a value that is not known is never ignored."""
    assert runtime(*arguments).failed().err.strip()


def test_an_unknown_log_format_is_an_error(runtime):
    """--log-format: text or json."""
    runtime("list", options=("--log-format", "no-such-format")).failed()


# kill, delete


def test_a_signal_to_a_container_that_has_ended_is_told_by_known_words(box):
    """kill: callers take a container that has ended meanwhile as killed."""
    message = box.finished().kill("TERM").failed().err.lower()
    assert any(words in message for words in ENDED), message


@pytest.mark.needs_cgroups
def test_kill_all_reaches_every_process(box, fifo):
    """kill --all: a container that shares its pid namespace has no init whose end is that of the others."""
    box.without("pid")
    box.running("sh", "-c", "sleep 1000 & echo $! > /fifo; exec sleep 1000")
    other = int(fifo.line())
    pid = box.pid
    box.runtime("kill", "--all", box.id, "KILL").ok()
    assert (reap(pid), reap(other)) == (137, 137)


def test_a_forced_delete_kills_first(box):
    """delete --force: "Forcibly deletes the container if it is still running (uses SIGKILL)"."""
    box.running()
    pid = box.pid
    box.delete("--force").ok()
    assert reap(pid) == 137
    box.query().failed()


def test_a_forced_delete_of_a_created_container(box):
    """delete --force: a container that was never started."""
    box.created()
    box.delete("--force").ok()
    box.query().failed()


def test_a_forced_delete_of_nothing_is_no_error(runtime):
    """delete --force: callers clean up what may not be there."""
    runtime("delete", "--force", ABSENT).ok()


# ps, list, state, events, spec


@pytest.mark.needs_cgroups
def test_ps_lists_the_pids_of_the_host(box, fifo):
    """ps --format json: an array of the container's processes, as the host numbers them."""
    box.running("sh", "-c", "sleep 1000 & echo up > /fifo; exec sleep 1000")
    fifo.line()
    pids = box.runtime("ps", "--format", "json", box.id).json
    assert box.pid in pids
    assert len(pids) == 2


@pytest.mark.needs_cgroups
def test_ps_prints_a_table(box):
    """ps: what ps(1) prints of the container's processes, under a heading."""
    lines = box.running().runtime("ps", box.id).ok().out.splitlines()
    assert "PID" in lines[0]
    assert any(str(box.pid) in line for line in lines[1:])


def test_list_has_a_row_for_each_container(box, bundles):
    """list --format json: id, pid, status, bundle, created, owner."""
    box.running()
    other = bundles().created()
    rows = {row["id"]: row for row in box.runtime("list", "--format", "json").json}
    assert {name: row["status"] for name, row in rows.items()} == {box.id: "running", other.id: "created"}
    assert rows[box.id]["pid"] == box.pid
    assert rows[box.id]["bundle"] == os.fspath(box.directory)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", rows[box.id]["created"])
    assert rows[box.id]["owner"] == "root"


def test_list_prints_a_table(box):
    """list: a heading and a row."""
    lines = box.created().runtime("list").ok().out.splitlines()
    assert lines[0].split()[:4] in (["ID", "PID", "STATUS", "BUNDLE"], ["NAME", "PID", "STATUS", "BUNDLE"])
    assert lines[1].split()[:4] == [box.id, str(box.pid), "created", os.fspath(box.directory)]


def test_list_quietly_prints_ids_alone(box, bundles):
    """list --quiet."""
    ids = {box.created().id, bundles().created().id}
    assert set(box.runtime("list", "--quiet").ok().out.split()) == ids


def test_the_state_tells_more_than_the_specification(box):
    """state: rootfs and created, which callers read."""
    state = box.created().state
    assert state["rootfs"] == os.fspath(box.rootfs)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", state["created"])


@pytest.mark.needs_cgroups
def test_events_print_figures_once(box):
    """events --stats: one line of JSON with type, id and data."""
    event = json.loads(box.running().runtime("events", "--stats", box.id).ok().out)
    assert (event["type"], event["id"]) == ("stats", box.id)
    assert {"cpu", "memory", "pids"} <= event["data"].keys()


def test_spec_writes_a_configuration_that_runs(box):
    """spec: a config.json to begin with, of a shell on a terminal."""
    box.runtime("spec", cwd=box.directory).ok()
    config = json.loads((box.directory / "config.json").read_text())
    assert (config["root"]["path"], config["process"]["args"], config["process"]["terminal"]) == (
        "rootfs",
        ["sh"],
        True,
    )
    assert (config["process"]["user"]["uid"], config["process"]["user"]["gid"]) == (0, 0)
    config["process"] |= {"terminal": False, "args": ["echo", "ran"]}
    config["process"].pop("rlimits", None)
    if "cgroupsPath" in box.linux:
        config["linux"]["cgroupsPath"] = box.linux["cgroupsPath"]
    config["linux"].pop("resources", None)
    box.config = config
    assert box.run().ok().out == "ran\n"


def test_spec_does_not_overwrite(box):
    """spec: a file that is there is somebody's."""
    (box.directory / "config.json").write_text("mine")
    box.runtime("spec", cwd=box.directory).failed()
    assert (box.directory / "config.json").read_text() == "mine"


def test_the_bundle_of_spec_can_be_named(box):
    """spec --bundle."""
    box.runtime("spec", "--bundle", box.directory, cwd=Path("/")).ok()
    assert (box.directory / "config.json").exists()
