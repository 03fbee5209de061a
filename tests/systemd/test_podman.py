"""podman with systemd as its cgroup manager, as Debian sets it up, on rawpod-oci and on crun."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import IMAGE, RAWPOD_OCI, Podman

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(params=[str(RAWPOD_OCI), pytest.param("crun", marks=pytest.mark.peer)], ids=["rawpod-oci", "crun"])
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    if not Path("/run/systemd/system").is_dir() or os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("needs systemd as PID 1, podman, and root")
    busybox = shutil.which("busybox")
    assert busybox is not None
    # Not tmp_path: podman 4.3 takes at most 50 bytes.
    home = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    made = Podman(request.param, home, Path(busybox))
    made.words += ["--cgroup-manager", "systemd"]
    yield made
    made("rm", "--all", "--force", "--time", "0")
    assert scopes() == []
    shutil.rmtree(home)


def scopes() -> list[str]:
    """The scopes of podman's containers that systemd knows."""
    listed = subprocess.check_output(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "libpod-*"], text=True
    )
    return [line.split()[0] for line in listed.splitlines() if "conmon" not in line]


def test_a_container_is_a_scope_with_its_limits_until_it_is_removed(podman: Podman) -> None:
    limits = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "30", "--cpus", "0.5", "--cpuset-cpus", "0")
    identity = podman.detached("a", *limits, IMAGE, "sleep", "1000")
    assert scopes() == [f"libpod-{identity}.scope"]
    scope = CGROUPS / f"machine.slice/libpod-{identity}.scope"
    # crun puts its containers into a cgroup below the scope, and crun 1.8 the limits as well.
    (place,) = (path.parent for path in scope.rglob("cgroup.procs") if path.read_text())
    limited = place if podman.runtime == "crun" and (scope / "memory.max").read_text() == "max\n" else scope
    expected = {"memory.max": str(64 << 20), "cpuset.cpus": "0", "cpu.max": "50000 100000", "pids.max": "30"}
    if podman.runtime != "crun":  # crun 1.21 gives a scope as much swap as both together
        expected["memory.swap.max"] = "0"
    assert {name: (limited / name).read_text().strip() for name in expected} == expected
    assert podman("exec", "a", "cat", "/proc/self/cgroup").stdout.startswith("0::/")
    podman("update", "--memory", "96m", "--memory-swap", "96m", "a")
    assert (limited / "memory.max").read_text() == f"{96 << 20}\n"
    podman("pause", "a")
    assert "frozen 1" in (place / "cgroup.events").read_text()
    podman("unpause", "a")
    podman("rm", "--force", "--time", "0", "a")
    assert scopes() == []
    assert not scope.exists()


def test_it_runs_to_its_end_and_leaves_no_scope(podman: Podman) -> None:
    assert podman.box("echo out; exit 7", check=7) == "out"
    assert scopes() == []


def test_a_pods_containers_are_scopes_and_go_with_it(podman: Podman) -> None:
    podman("pod", "create", "--name", "p", "--infra=false")
    podman("run", "-d", "--pod", "p", "--name", "b", IMAGE, "sleep", "1000")
    pid = podman("inspect", "--format", "{{.State.Pid}}", "b").stdout.strip()
    # Below the pod's own slice, machine-libpod_pod_ID.slice, with podman 4.4 and later.
    assert Path(f"/proc/{pid}/cgroup").read_text().startswith("0::/machine.slice/")
    assert len(scopes()) == 1
    podman("pod", "rm", "--force", "--time", "0", "p")
    assert scopes() == []
