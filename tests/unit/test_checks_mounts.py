"""Mounts, devices, id mappings and clocks of a container description."""

import json
from typing import Any

import pytest

from kernel.errors import BadInput
from runtime import spec
from runtime.checks.config import check

ROOT = [{"containerID": 0, "hostID": 65536, "size": 65536}]
NAMESPACES: list[dict[str, Any]] = [{"type": "mount"}]


def config(*, mounts: list[Any] | None = None, **linux: Any) -> spec.Config:

    linux = {"namespaces": NAMESPACES, **linux}
    tree = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["true"]},
        "mounts": mounts or [],
        "linux": linux,
    }
    return spec.load(json.dumps(tree).encode())


DEVICE = {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}
BIND = {"destination": "a", "type": "bind", "source": "b"}
USER = [*NAMESPACES, {"type": "user"}]


@pytest.mark.parametrize(
    "accepted",
    [
        {"mounts": [BIND]},
        {"mounts": [{**BIND, "destination": "/a/../b", "options": ["bind", "idmap"]}]},
        {"mounts": [{**BIND, "uidMappings": ROOT, "gidMappings": ROOT}]},
        {"devices": [DEVICE, {"path": "/srv/pipe", "type": "p", "fileMode": 0o600}]},
        {"devices": [{**DEVICE, "fileMode": 0o020660, "uid": 1, "gid": 2}]},
        {"namespaces": USER, "uidMappings": ROOT, "gidMappings": ROOT},
        {"namespaces": [*NAMESPACES, {"type": "user", "path": "/proc/1/ns/user"}]},
        {"namespaces": [*NAMESPACES, {"type": "time"}], "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 1}}},
        {"mountLabel": "system_u:object_r:container_file_t:s0"},
    ],
)
def test_what_is_executed(accepted: dict[str, Any]) -> None:
    check(config(**accepted))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mounts": [{**BIND, "destination": "a/.."}]}, "mounts[0].destination: 'a/..' is the root"),
        ({"mounts": [{**BIND, "destination": "a\0"}]}, "mounts[0]: contains a NUL"),
        ({"mounts": [{**BIND, "uidMappings": ROOT}]}, "mounts[0]: uidMappings and gidMappings go together"),
        ({"devices": [{**DEVICE, "path": "kvm"}]}, "linux.devices[0].path: 'kvm'"),
        ({"devices": [{**DEVICE, "path": "/.."}]}, "linux.devices[0].path: '/..'"),
        ({"devices": [{**DEVICE, "type": "x"}]}, "linux.devices[0].type: 'x'"),
        ({"devices": [{**DEVICE, "major": 4096}]}, "linux.devices[0]: no device has the number 4096:232"),
        ({"devices": [{**DEVICE, "minor": -1}]}, "linux.devices[0]: no device has the number 10:-1"),
        ({"devices": [{**DEVICE, "uid": 2**32 - 1}]}, "linux.devices[0].uid: 4294967295"),
        ({"uidMappings": ROOT, "gidMappings": ROOT}, "linux.uidMappings: set without a 'user' namespace"),
        ({"namespaces": USER}, "linux.uidMappings: a new 'user' namespace needs mappings"),
        ({"namespaces": USER, "uidMappings": ROOT}, "linux: uidMappings and gidMappings go together"),
        ({"namespaces": USER, "uidMappings": ROOT * 2, "gidMappings": ROOT}, "linux.uidMappings: ranges overlap"),
        (
            {"namespaces": USER, "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2**32}]},
            "linux.uidMappings[0]: ends beyond id 4294967294",
        ),
        ({"namespaces": USER, "uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}]}, "is not a range of ids"),
        (
            {"namespaces": USER, "uidMappings": [{"containerID": 1, "hostID": 9, "size": 2}], "gidMappings": ROOT},
            "linux.uidMappings: id 0 of the container is not mapped",
        ),
        ({"timeOffsets": {"boottime": {"secs": 1}}}, "linux.timeOffsets: set without a new 'time' namespace"),
        (
            {"namespaces": [*NAMESPACES, {"type": "time"}], "timeOffsets": {"realtime": {"secs": 1}}},
            "linux.timeOffsets: unknown clock 'realtime'",
        ),
    ],
)
def test_what_is_malformed_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(config(**changes))
    assert said in str(caught.value)
