"""What it takes to make a container, and what is said when its memory limit is below that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from kernel.errors import ContainerError
from runtime import spec
from tests.boxes import Box
from tests.linux.test_oci_events import reap_orphans

KIB = 1024
RUNTIME = Path(sys.executable).with_name("rawpod-oci")


def limited(box: Box, limit: int, *args: str) -> spec.Config:
    box.cgroup.enable({"memory"})
    config = box.config(*args)
    assert config.linux is not None
    config.linux.resources = spec.Resources(memory=spec.Memory(limit=limit, swap=limit))
    return config


def describe(box: Box, config: spec.Config) -> None:
    """Write config.json, with the box's cgroup."""
    assert config.linux is not None
    config.linux.cgroups_path = "/" + str(Path(box.cgroup.path).relative_to(box.hierarchy.mount)) + "/box"
    (box.bundle / "config.json").write_bytes(spec.dump(config))


@pytest.mark.parametrize("kibibytes", [6144, 2048])
def test_little_memory_is_enough_to_be_made_in(box: Box, tmp_path: Path, kibibytes: int) -> None:
    # By the program: what a creator as large as this one touches first is more.
    describe(box, limited(box, kibibytes * KIB, "busybox", "true"))
    command = [str(RUNTIME), "--root", str(tmp_path / "state"), "run", "--bundle", str(box.bundle), "box"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kibibytes", [4, 64])
def test_too_little_is_called_what_it_is_and_leaves_nothing(box: Box, kibibytes: int) -> None:
    with pytest.raises(ContainerError, match=r"ran out of memory.*raise linux\.resources\.memory\.limit"):
        box.run(limited(box, kibibytes * KIB, "busybox", "true"))
    assert not box.cgroup.child("box").exists()


def test_a_payload_that_runs_out_of_memory_is_an_event(box: Box, tmp_path: Path) -> None:
    script = "until [ -e /go ]; do busybox sleep 0.1; done; busybox tail /dev/zero; exec busybox sleep 1000"
    config = limited(box, 16 << 20, "sh", "-c", script)
    describe(box, config)
    command = [str(RUNTIME), "--root", str(tmp_path / "state")]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "timeout": 100}
    subprocess.run([*command, "run", "--detach", "--bundle", str(box.bundle), "box"], check=True, **quiet)  # type: ignore[call-overload]
    try:
        with subprocess.Popen([*command, "events", "--interval", "1s", "box"], stdout=subprocess.PIPE) as events:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["type"] == "stats"
            (box.root / "go").touch()
            kinds = ["stats"]
            while kinds[-1] == "stats":
                kinds.append(json.loads(events.stdout.readline())["type"])
            assert kinds[-1] == "oom"
            Cgroup(f"{box.cgroup.path}/box").kill()
            events.stdout.read()
            assert events.wait(30) == 0
    finally:
        subprocess.run([*command, "delete", "--force", "box"], check=True, **quiet)  # type: ignore[call-overload]
        reap_orphans()
