"""The OCI types: what is read, what is refused as malformed, what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput, NotSupported
from runtime import spec, state
from runtime.checks.config import check, unsupported
from runtime.ids import check_id

MINIMAL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]},
}


def config(changes: dict[str, Any] | None = None) -> spec.Config:
    """MINIMAL, with values put at dotted paths."""
    tree = json.loads(json.dumps(MINIMAL))
    for path, value in (changes or {}).items():
        *above, last = path.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return spec.load(json.dumps(tree).encode())


def test_a_minimal_config_is_accepted_and_survives_a_round_trip() -> None:
    assert unsupported(config()) == []
    check(config())
    assert spec.load(spec.dump(config())) == config()


def test_unknown_properties_are_ignored_as_the_specification_says() -> None:
    assert config({"process.fromTheFuture": {"x": 1}}) == config()


def test_names_that_are_not_plain_camel_case_are_written_as_the_specification_spells_them() -> None:
    block_io = spec.BlockIO(throttle_read_iops_device=[spec.ThrottleDevice(major=8, minor=0, rate=10)])
    written = json.loads(spec.dump(spec.Config("1.2.0", linux=spec.Linux(resources=spec.Resources(block_io=block_io)))))
    device = {"major": 8, "minor": 0, "rate": 10}
    assert written["linux"]["resources"]["blockIO"] == {"throttleReadIOPSDevice": [device]}


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("vm", {}, "vm"),
        ("windows", {}, "windows"),
        ("solaris", {}, "solaris"),
        ("zos", {}, "zos"),
        ("linux.resources.network", {"classID": 1}, "linux.resources.network.classID"),
    ],
)
def test_what_is_not_executed_is_refused_by_its_json_path(path: str, value: object, named: str) -> None:
    assert unsupported(config({path: value})) == [named]
    with pytest.raises(NotSupported, match="not supported by rawpod yet") as caught:
        check(config({path: value}))
    assert named in str(caught.value)


def test_the_default_devices_and_throttles_are_executed() -> None:
    throttle = [{"major": 8, "minor": 0, "rate": 1000}]
    changes = {
        "linux.devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}],
        "linux.resources.blockIO": {"throttleWriteBpsDevice": throttle},
    }
    assert unsupported(config(changes)) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("ociVersion", "2.0.0", "ociVersion: '2.0.0'"),
        ("root.path", "", "root.path"),
        ("process.cwd", "tmp", "process.cwd: 'tmp'"),
        ("process.args", [], "process.args: empty"),
        ("process.args", ["a\0b"], "process.args[0]"),
        ("process.env", ["=x"], "process.env[0]: not NAME=VALUE"),
        ("process.env", ["A"], "process.env[0]: not NAME=VALUE"),
        ("process.env", ["A=\0"], "process.env[0]: contains a NUL"),
        ("process.user.uid", 2**32 - 1, "process.user.uid: 4294967295"),
        ("process.user.gid", -1, "process.user.gid: -1"),
        ("process.user.additionalGids", [2**32], "process.user.additionalGids[0]"),
        ("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}], "process.rlimits[0]"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001"),
        ("mounts", [{"destination": "", "type": "tmpfs"}], "mounts[0].destination: empty"),
        ("mounts", [{"destination": "/", "type": "tmpfs"}], "is the root"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "'mount' is listed twice"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "net"}], "unknown namespace 'net'"),
        ("linux.namespaces", [{"type": "pid"}], "no 'mount' namespace"),
        ("linux.rootfsPropagation", "sideways", "unknown 'sideways'"),
        ("linux.cgroupsPath", "/../../x", "leaves the hierarchy"),
        ("linux.sysctl", {"../kernel.x": "1"}, "linux.sysctl"),
        ("linux.resources.unified", {"cgroup.procs": "1"}, "linux.resources.unified"),
        ("hostname", "x" * 65, "hostname: longer"),
    ],
)
def test_what_is_malformed_is_named(path: str, value: object, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(config({path: value}))
    assert said in str(caught.value)


def test_all_malformed_parts_are_named_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        check(config({"process.cwd": "x", "process.args": [], "ociVersion": "x"}))
    assert all(name in str(caught.value) for name in ("process.cwd", "process.args", "ociVersion"))


def test_a_faulty_variable_is_not_shown() -> None:
    with pytest.raises(BadInput) as caught:
        check(config({"process.env": ["hunter2"]}))
    assert "hunter2" not in str(caught.value)


def test_an_overlay_on_the_root_takes_the_place_of_root_path() -> None:
    tree = {key: value for key, value in MINIMAL.items() if key != "root"}
    tree["mounts"] = [
        {
            "destination": "/",
            "type": "overlay",
            "source": "overlay",
            "options": ["lowerdir=/a", "upperdir=/u", "workdir=/w"],
        }
    ]
    check(spec.load(json.dumps(tree).encode()))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        spec.load(data)
    except BadInput:
        pass


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"ociVersion": 1}', b"[" * 100_000, b'{"ociVersion":"1.2.0","root":{}}']
)
def test_what_is_no_config_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"config\.json"):
        spec.load(data)


def test_the_state_file_keeps_what_it_is_given_and_always_names_its_version(tmp_path) -> None:
    record = state.State(
        oci_version=spec.OCI_VERSION, id="a", status=state.Status.STOPPED, bundle="/b", pid=7, process_start_time=99
    )
    assert json.loads(state.dump(record))["ociVersion"] == spec.OCI_VERSION
    state.save(tmp_path, record)
    assert state.load(tmp_path) == record


@pytest.mark.parametrize(
    ("status", "start", "kill", "delete"),
    [("creating", 0, 0, 0), ("created", 1, 1, 0), ("running", 0, 1, 0), ("stopped", 0, 0, 1)],
)
def test_what_may_be_done_depends_on_the_status(status: str, start: bool, kill: bool, delete: bool) -> None:
    found = state.Status(status)
    assert (found.can_start, found.can_kill, found.can_delete) == (start, kill, delete)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "-a", "a" * 254, "a\n", "ä"])
def test_ids_are_names(name: str) -> None:
    check_id("web-1_a.b")
    with pytest.raises(BadInput):
        check_id(name)
