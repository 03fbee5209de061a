"""Init containers and sidecars of pods: who runs when, what the status says, who ends whom."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from tests.pods import Json, Pods, RunningPod, container, pods

__all__ = ["pods"]

pytestmark = pytest.mark.userland

FOREVER = ("sh", "-c", "echo up; exec sleep 1000000")
SHARED: Json = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
VOLUME: Json = {"volumes": [{"name": "shared", "emptyDir": {}}]}
# Ends when it is asked to, and says in the shared file when that was.
WAITS = "trap 'echo {0} >> /shared/order; exit 0' TERM; echo up; while :; do sleep 0.01; done"


def sidecar(name: str, *command: str, **fields: object) -> Json:
    return container(name, *command, restartPolicy="Always", **fields)


def conditions(status: Json) -> Json:
    return {entry["type"]: entry for entry in status["conditions"]}


def up(pod: RunningPod, name: str) -> None:
    """Until the container has said that it is."""
    with closing(pod.follow(name)) as lines:
        assert next(lines).text == b"up"


def test_init_containers_run_one_after_another_before_the_others(pods: Pods) -> None:
    """Each finds what those before it wrote, and nothing else."""
    script = "cat /shared/order 2>/dev/null; echo {0} >> /shared/order"
    init = [container(name, "sh", "-c", script.format(name), **SHARED) for name in ("one", "two")]
    main = container("main", "sh", "-c", script.format("main"), **SHARED)
    pod = pods.start(main, initContainers=init, restartPolicy="Never", **VOLUME)
    assert pod.ended()["phase"] == "Succeeded", pod.status
    assert [pod.log(name).split() for name in ("one", "two", "main")] == [[], ["one"], ["one", "two"]]
    told = [(one["ready"], one["state"]["terminated"]["reason"]) for one in pod.status["initContainerStatuses"]]
    assert told == [(True, "Completed")] * 2


def test_a_pod_is_pending_while_its_init_containers_run(pods: Pods) -> None:
    pod = pods.start(
        container("main", *FOREVER), initContainers=[container("first", *FOREVER), container("next", "true")]
    )
    status = pod.wait(lambda status: "running" in status["initContainerStatuses"][0]["state"])
    assert status["phase"] == "Pending"
    assert status["initContainerStatuses"][1]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    initialized = conditions(status)["Initialized"]
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [first next]"
    pod.stop()
    assert pod.status["phase"] == "Failed"
    assert "waiting" in pod.state()["state"]  # it never was


def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(pods: Pods) -> None:
    pod = pods.start(
        container("main", *FOREVER), initContainers=[container("first", "sh", "-c", "exit 4")], restartPolicy="Never"
    )
    assert pod.ended()["phase"] == "Failed"
    assert pod.status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert pod.state()["state"]["waiting"]["reason"] == "PodInitializing"
    assert not pod.log_path("main").exists()


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_a_failed_init_container_is_tried_again(pods: Pods, policy: str) -> None:
    script = "test -e /shared/been || { touch /shared/been; exit 1; }"
    first = container("first", "sh", "-c", script, **SHARED)
    pod = pods.start(container("main", *FOREVER), initContainers=[first], restartPolicy=policy, **VOLUME)
    status = pod.running()
    assert status["phase"] == "Running"
    assert status["initContainerStatuses"][0]["restartCount"] == 1
    assert conditions(status)["Initialized"]["status"] == "True"


def test_a_sidecar_runs_beside_the_others_and_ends_with_them(pods: Pods) -> None:
    helper = sidecar("helper", "sh", "-c", WAITS.format("helper").replace("echo up", "touch /shared/up"), **SHARED)
    main = container("main", "sh", "-c", "until test -e /shared/up; do sleep 0.01; done", **SHARED)
    pod = pods.start(main, initContainers=[helper], restartPolicy="Never", **VOLUME)
    assert pod.ended()["phase"] == "Succeeded", pod.status
    assert "terminated" in pod.status["initContainerStatuses"][0]["state"]


def test_sidecars_end_after_the_others_the_last_one_first(pods: Pods) -> None:
    """Fails when stop() asks all containers at once."""
    helpers = [sidecar(name, "sh", "-c", WAITS.format(name), **SHARED) for name in ("one", "two")]
    reads = "trap 'sleep 0.2; echo main >> /shared/order; exit 0' TERM; echo up; while :; do sleep 0.01; done"
    watch = sidecar(
        "zero", "sh", "-c", "trap 'cat /shared/order; exit 0' TERM; echo up; while :; do sleep 0.01; done", **SHARED
    )
    pod = pods.start(container("main", "sh", "-c", reads, **SHARED), initContainers=[watch, *helpers], **VOLUME)
    pod.running()
    for name in ("zero", "one", "two", "main"):
        up(pod, name)
    pod.stop(grace=60)
    assert pod.log("zero").split() == ["up", "main", "two", "one"]


def test_a_sidecar_is_started_again_also_when_the_pod_is_not(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER), initContainers=[sidecar("helper", *FOREVER)], restartPolicy="Never")
    pod.running()
    os.kill(pod.process("helper")["pid"], signal.SIGKILL)
    pod.wait(lambda status: status["initContainerStatuses"][0]["restartCount"] == 1)
    status = pod.wait(lambda status: "running" in status["initContainerStatuses"][0]["state"])
    assert status["phase"] == "Running"
    assert conditions(status)["Ready"]["status"] == "True"


def test_an_init_container_without_image_keeps_the_others_waiting(pods: Pods) -> None:
    first = {"name": "first", "image": "absent", "command": ["true"], "imagePullPolicy": "Never"}
    pod = pods.start(container("main", *FOREVER), initContainers=[first])
    status = pod.wait(
        lambda status: status["initContainerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    )
    assert status["phase"] == "Pending"
    assert pod.state()["state"]["waiting"]["reason"] == "PodInitializing"
