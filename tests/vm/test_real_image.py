"""The main job on real input: nginx from Debian packages as a Deployment, its limits, its death by memory."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from rootfs.images.store import ImageStore
from runtime.pod import directory, logread
from runtime.settings import Settings
from tests.linux.test_supervisor_life import PODS, Object, Supervisor, deployment, gone, ready, supervisor

__all__ = ["supervisor"]

TAR = Path("/opt/rawpod-images/nginx.tar.zst")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def nginx(settings: Settings) -> str:
    """An image of a Debian userland with nginx and curl, imported from the tar that mmdebstrap made.

    It has a tag: `latest` would be asked for at a registry each time, as in Kubernetes.
    """
    if not TAR.exists():
        pytest.skip(f"needs {TAR}")
    return ImageStore(settings.images).import_tar("nginx:1", TAR).name


def web(image: str) -> Object:
    made = deployment(3)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = {"rawpod.dev/pids-limit": "40"}
    template["spec"]["containers"] = [
        {
            "name": "server",
            "image": image,
            "command": ["nginx", "-g", "daemon off;"],
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
        },
        {
            "name": "sidecar",
            "image": image,
            "command": ["sh", "-c", "until curl -sS http://127.0.0.1/ && echo; do sleep 0.2; done; exec sleep 10000"],
            "resources": {"limits": {"memory": "32Mi", "cpu": "200m"}},
        },
    ]
    return made


def container_of(settings: Settings, pod: Object, name: str) -> dict[str, Any]:
    status = directory.read_status(settings.pod(pod["metadata"]["uid"]))
    assert status is not None
    record: dict[str, Any] = status["rawpod"]["containers"][name]
    return record


def heard(settings: Settings, pod: Object) -> str:
    """What the sidecar wrote, up to the end of the page it fetched."""
    meta = pod["metadata"]
    where = settings.logs / "pods" / f"{meta['namespace']}_{meta['name']}_{meta['uid']}" / "sidecar"
    text = ""
    for entry in logread.follow(where):
        text += entry.output.decode()
        if "</html>" in text:
            break
    return text


def test_nginx_is_served_heard_and_limited(supervisor: Supervisor, settings: Settings, nginx: str) -> None:
    supervisor.apply(web(nginx))
    pods = supervisor.until(PODS, ready(3))
    for pod in pods:
        assert "Welcome to nginx" in heard(settings, pod)
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}/", timeout=60) as answer:
            assert b"Welcome to nginx" in answer.read()
        cgroup = Path(container_of(settings, pod, "server")["cgroup"])
        values = {name: (cgroup / name).read_text().strip() for name in ("memory.max", "cpu.max", "pids.max")}
        assert values == {"memory.max": str(64 << 20), "cpu.max": "50000 100000", "pids.max": "40"}
    supervisor.client.request("DELETE", "/apis/apps/v1/namespaces/default/deployments/web")
    supervisor.until(PODS, gone)


def test_a_payload_that_takes_too_much_memory_is_killed_and_started_again(
    supervisor: Supervisor, settings: Settings, nginx: str
) -> None:
    limits = {"limits": {"memory": "16Mi"}}
    supervisor.apply(deployment(1, image=nginx, command=["tail", "/dev/zero"], resources=limits))

    def killed_and_restarted(pods: list[Object]) -> bool:
        for status in (status for pod in pods for status in pod["status"].get("containerStatuses", ())):
            last = status.get("lastState", {}).get("terminated", {})
            if status["restartCount"] >= 1 and last.get("reason") == "OOMKilled":
                return bool(last["exitCode"] == 137)
        return False

    supervisor.until(PODS, killed_and_restarted)
    assert supervisor.process.poll() is None
    supervisor.client.request("DELETE", "/apis/apps/v1/namespaces/default/deployments/web")
    supervisor.until(PODS, gone)
