"""`events` of a container that runs, on any host: what has no controller is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from runtime import spec
from tests.boxes import Box

RUNTIME = Path(sys.executable).with_name("rawpod-oci")


def reap_orphans() -> None:
    """Collect the container's process, which is ours where other tests have made this process the orphans' parent."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Runtime:
    """rawpod-oci with a root of its own."""

    def __init__(self, root: Path) -> None:
        self.command = [str(RUNTIME), "--root", str(root)]

    def __call__(self, *words: str) -> str:
        return subprocess.run(
            [*self.command, *words], check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ).stdout


@pytest.fixture
def runtime(box: Box, tmp_path: Path) -> Iterator[Runtime]:
    """A container named "box" that sleeps."""
    config = box.config("busybox", "sleep", "1000")
    assert config.linux is not None
    config.linux.cgroups_path = "/" + str(Path(box.cgroup.path).relative_to(box.hierarchy.mount)) + "/box"
    (box.bundle / "config.json").write_bytes(spec.dump(config))
    runtime = Runtime(tmp_path / "state")
    # Not a pipe: the container keeps its stdio, and the reader would wait for its end.
    subprocess.run(
        [*runtime.command, "run", "--detach", "--bundle", str(box.bundle), "box"],
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    yield runtime
    runtime("delete", "--force", "box")
    reap_orphans()


def test_the_figures_are_printed_once(runtime: Runtime, box: Box) -> None:
    event = json.loads(runtime("events", "--stats", "box"))
    assert (event["type"], event["id"]) == ("stats", "box")
    assert event["data"]["cpu"]["usage"]["total"] > 0
    assert event["data"]["pids"]["current"] == 1
    assert event["data"]["cpu"]["psi"]["some"]["total"] >= 0


def test_events_come_in_intervals_and_end_with_the_container(runtime: Runtime, box: Box) -> None:
    with subprocess.Popen([*runtime.command, "events", "--interval", "50ms", "box"], stdout=subprocess.PIPE) as events:
        assert events.stdout is not None
        lines = [json.loads(events.stdout.readline()) for _ in range(2)]
        assert [line["type"] for line in lines] == ["stats", "stats"]
        Cgroup(f"{box.cgroup.path}/box").kill()
        events.stdout.read()
        assert events.wait(10) == 0
