"""An image's health check in a running container."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from rootfs.images.store import Healthcheck
from runtime.settings import Settings
from tests.images import make_image
from tests.linux.test_run import Rawpod, rawpod
from tests.pods import Json, Pods, RunningPod, pods

pytestmark = pytest.mark.userland

__all__ = ["pods", "rawpod"]

OBEY = {"annotations": {"rawpod.dev/healthcheck": "image"}}
_MS = 10**6


def start(pods: Pods, *test: str, command: str = "sleep 1000000", metadata: Json = OBEY, **times: int) -> RunningPod:
    check = Healthcheck(test, **{"interval": 50 * _MS, "timeout": 20_000 * _MS, "retries": 2, **times})
    make_image(pods.settings.images, "web", cmd=("sh", "-c", command), user="web", healthcheck=check)
    return pods.start({"name": "main", "image": "web", "imagePullPolicy": "Never"}, metadata=metadata)


def health(status: Json) -> Json:
    found: Json = status["rawpod"]["containers"]["main"].get("health") or {}
    return found


def test_a_container_is_starting_then_healthy_then_not(pods: Pods) -> None:
    """The test is a process of the container: its user, its environment, its root."""
    pod = start(pods, "CMD-SHELL", "id -u; cat /tmp/well", command="echo fine > /tmp/well; sleep 1000000")
    assert health(pod.running())["status"] == "starting"
    pod.wait(lambda status: health(status).get("status") == "healthy")
    assert health(pod.status)["log"][-1]["output"] == "33\nfine\n"
    Path(f"/proc/{pod.process('main')['pid']}/root/tmp/well").unlink()
    pod.wait(lambda status: health(status)["status"] == "unhealthy")
    assert health(pod.status)["failingStreak"] == 2
    assert "can't open" in health(pod.status)["log"][-1]["output"]
    assert pod.state()["ready"] is True
    assert pod.state()["restartCount"] == 0


def test_tests_that_take_too_long_write_too_much_or_are_not_there(pods: Pods) -> None:
    slow = start(pods, "CMD", "sh", "-c", "echo begun; exec sleep 1000000", timeout=300 * _MS, retries=1)
    slow.wait(lambda status: health(status).get("status") == "unhealthy")
    told = health(slow.status)["log"][0]
    assert (told["exitCode"], told["output"]) == (124, "begun\n\nno answer within 0.3 s")
    endless = start(pods, "CMD", "sh", "-c", "while :; do echo 0123456789; done", timeout=300 * _MS)
    endless.wait(lambda status: bool(health(status).get("log")))
    assert len(health(endless.status)["log"][0]["output"]) < 4096
    missing = start(pods, "CMD", "/nonesuch")
    missing.wait(lambda status: bool(health(status).get("log")))
    assert health(missing.status)["log"][0]["exitCode"] == 127


def test_a_container_that_ends_takes_its_test_along(pods: Pods) -> None:
    """And a pod that does not ask for tests has none."""
    without = start(pods, "CMD", "true", metadata={})
    assert not health(without.running())
    pod = start(pods, "CMD", "sleep", "1000000")
    pod.running()
    while len((pod.cgroup("main") / "cgroup.procs").read_text().split()) < 2:
        pass
    began = time.monotonic()
    pod.stop()
    assert time.monotonic() - began < 10
    assert "health" not in pod.process("main")


def test_ps_and_inspect_show_it(rawpod: Rawpod, settings: Settings) -> None:
    check = Healthcheck(("CMD", "true"), interval=20 * _MS)
    ports = ("80/tcp", "53/udp")
    make_image(settings.images, "web", cmd=("sleep", "1000000"), healthcheck=check, exposed_ports=ports)
    rawpod("run", "-d", "--network", "none", "--name", "web", "web")
    while "(starting)" in (shown := rawpod("ps").stdout):
        pass
    assert "(healthy)" in shown
    (shown,) = json.loads(rawpod("inspect", "web").stdout)
    assert shown["status"]["rawpod"]["containers"]["web"]["health"]["status"] == "healthy"
    assert shown["images"]["web"]["config"]["exposed_ports"] == list(ports)
    rawpod("rm", "-f", "web")
    rawpod("run", "-d", "--network", "none", "--name", "plain", "--no-healthcheck", "web")
    assert "(" not in rawpod("ps").stdout
    rawpod("rm", "-f", "plain")
