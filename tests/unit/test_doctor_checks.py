"""What the checks of `rawpod doctor` make of what they read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgroups.hierarchy import Hierarchy
from runtime.doctor import Check, Level, controller, directory_check, failed, kernel_version


def _hierarchy(**changes: object) -> Hierarchy:
    values: dict[str, object] = {
        "mount": "/sys/fs/cgroup",
        "root": "/sys/fs/cgroup",
        "controllers": frozenset({"cpu"}),
        "v1_controllers": {},
        "own": "/sys/fs/cgroup",
        "hybrid": False,
    }
    return Hierarchy(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("release", "level"),
    [
        ("6.1.0-18-amd64", Level.OK),
        ("6.12.48+deb13-amd64", Level.OK),
        ("7.0.0", Level.OK),
        ("6.0.19", Level.FAIL),
        ("5.15.0-101-generic", Level.FAIL),
        ("unreadable", Level.FAIL),
    ],
)
def test_the_kernel_has_to_be_6_1_or_later(release: str, level: Level) -> None:
    check = kernel_version(release)
    assert check.level is level
    assert bool(check.remedy) is (level is not Level.OK)


def test_a_controller_on_v2_is_ok() -> None:
    assert controller("cpu", _hierarchy()).level is Level.OK


@pytest.mark.parametrize(
    ("name", "changes", "remedy"),
    [
        ("memory", {"v1_controllers": {"memory": None}}, "cgroup_no_v1=memory"),
        ("io", {"v1_controllers": {"blkio": "/sys/fs/cgroup/blkio"}}, "cgroup_no_v1=blkio"),
        ("memory", {"disabled": frozenset({"memory"})}, "cgroup_enable=memory"),
        ("pids", {"root": "/sys/fs/cgroup/system.slice/rawpod.service"}, "Delegate=yes"),
        ("cpuset", {}, "built without"),
    ],
)
def test_a_missing_controller_comes_with_what_brings_it(name: str, changes: dict[str, object], remedy: str) -> None:
    check = controller(name, _hierarchy(**changes))
    assert check.level is Level.WARN
    assert remedy in check.remedy
    assert "--missing-controllers=warn" in check.remedy


def test_a_place_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert directory_check("directory root", tmp_path / "file/root", tmp_path / "file", 1).level is Level.FAIL


def test_a_place_that_can_be_made_is_ok_and_is_not_made(tmp_path: Path) -> None:
    assert directory_check("directory root", tmp_path / "a/b", tmp_path, 1).level is Level.OK
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_room_is_warned_of(tmp_path: Path) -> None:
    assert directory_check("directory root", tmp_path, tmp_path, 1 << 70).level is Level.WARN


def test_only_a_failed_check_fails_the_whole() -> None:
    assert not failed([Check("a", Level.OK, ""), Check("b", Level.WARN, "", "do this")])
    assert failed([Check("a", Level.OK, ""), Check("b", Level.FAIL, "", "do this")])
