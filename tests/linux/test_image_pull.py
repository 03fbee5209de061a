"""Pods whose images are not there yet: by which policy they are pulled, and what is told while they are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.errors import RawpodError
from runtime.pod import pulling, pullpolicy, sandbox
from runtime.pod.backoff import Backoff
from runtime.pod.pullpolicy import Registries
from runtime.settings import Settings
from tests.images import make_image
from tests.pods import Json, Pods, RunningPod, pods

pytestmark = pytest.mark.userland

__all__ = ["pods"]

SLEEP = {"cmd": ("sleep", "1000000")}


class Registry:
    """Stands in for a registry, across processes: what a pull brings, when, and how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.asked, self.gate, self.content = directory / "asked", directory / "gate", directory / "content"
        self.asked.touch()
        os.mkfifo(self.gate)

    def fetch(self, settings: Settings, image: str, registries: Registries) -> None:
        with self.asked.open("a") as asked:
            asked.write(f"{image} {' '.join(sorted(registries.auths))}\n")
        if self.content.exists():
            make_image(settings.images, image, **SLEEP)
        elif self.gate.exists():
            self.gate.read_text()  # until the test opens it to write
            make_image(settings.images, image, **SLEEP)
        else:
            raise RawpodError(f"{image}: the registry has no such image", remedy="another tag")

    def pulls(self) -> list[str]:
        return self.asked.read_text().splitlines()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Asked for before the pods' fixture: the spawner inherits it."""
    made = Registry(tmp_path)
    monkeypatch.setattr(pulling, "fetch", made.fetch)
    quick = Backoff(first=0.2, limit=0.2, following=0.2)
    monkeypatch.setattr(pullpolicy, "backoff", lambda: quick.replace())
    return made


def reasons(pod: RunningPod, until: Callable[[Json], bool]) -> list[str]:
    """The reasons for waiting that were told, each once, in their order."""
    told: list[str] = []

    def look(status: Json) -> bool:
        state = status["containerStatuses"][0]["state"]
        if (waiting := state.get("waiting")) and waiting["reason"] not in told[-1:]:
            told.append(waiting["reason"])
        return until(state)

    pod.wait(look)
    return told


def test_an_image_that_is_missing_is_pulled_once_for_all_that_wait(registry: Registry, pods: Pods) -> None:
    container = {"name": "main", "image": "web:1"}
    started = [pods.start(container, {**container, "name": "other"}, name=f"web-{n}") for n in range(2)]
    for pod in started:
        pod.wait(lambda status: "pulling image 'web:1'" in str(status["containerStatuses"][0]["state"]))
    registry.gate.write_text("go")
    for pod in started:
        pod.running()
        assert pod.state()["imageID"].startswith("sha256:")
    assert registry.pulls() == ["web:1 "]
    pods.start(container, name="later").running()
    assert registry.pulls() == ["web:1 "]


def test_what_cannot_be_pulled_says_why_and_is_tried_again(registry: Registry, pods: Pods) -> None:
    registry.gate.unlink()
    malformed = pods.start({"name": "main", "image": "Web:1"}, name="malformed")
    never = pods.start({"name": "main", "image": "web:2", "imagePullPolicy": "Never"}, name="never")
    malformed.wait(lambda status: "InvalidImageName" in str(status["containerStatuses"][0]["state"]))
    assert "character 1" in malformed.state()["state"]["waiting"]["message"]
    assert reasons(never, lambda state: "ErrImageNeverPull" in str(state))[-1] == "ErrImageNeverPull"
    assert registry.pulls() == []
    pod = pods.start({"name": "main", "image": "web:1"})
    assert reasons(pod, lambda state: "back-off" in str(state))[-2:] == ["ErrImagePull", "ImagePullBackOff"]
    message = pod.state()["state"]["waiting"]["message"]
    assert message == "back-off 0.2s pulling image 'web:1': web:1: the registry has no such image (another tag)"
    registry.content.touch()
    pod.running()
    assert len(registry.pulls()) >= 2
    make_image(pods.settings.images, "web:2", **SLEEP)
    never.running()


def test_always_asks_the_registry_at_each_start(registry: Registry, pods: Pods) -> None:
    registry.content.touch()
    make_image(pods.settings.images, "web", cmd=("true",))
    pod = pods.start({"name": "main", "image": "web", "command": ["sh", "-c", "exit 3"]}, restartPolicy="Always")
    pod.wait(lambda status: status["containerStatuses"][0]["restartCount"] >= 1 and len(registry.pulls()) >= 2)


def test_a_pull_ends_with_its_pod(registry: Registry, pods: Pods) -> None:
    """What is left behind would be seen by the oracle, and by the pull that the next pod needs."""
    for number in range(2):
        pod = pods.start({"name": "main", "image": "web:1"}, name=f"web-{number}")
        pod.wait(lambda status: "pulling image" in str(status["containerStatuses"][0]["state"]))
        if number == 0:
            assert pod.stop(grace=30)["phase"] == "Failed"
        else:
            sandbox.destroy(pods.settings, pod.uid)
    registry.content.touch()
    pods.start({"name": "main", "image": "web:1"}, name="next").running()
