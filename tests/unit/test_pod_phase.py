"""What Kubernetes says of a pod, from its containers' states."""

from __future__ import annotations

import pytest

from runtime.pod import phase
from runtime.pod.phase import INIT, MAIN, SIDECAR
from runtime.pod.records import ContainerRecord, Running, State, Terminated, Waiting

UP = Running("now")
NEW = Waiting("ContainerCreating")


def ended(code: int) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", "then", "now", "id")


def record(role: str, state: State, last: Terminated | None = None) -> ContainerRecord:
    return ContainerRecord(f"{role}-container", "image", role, state=state, last=last)


LOOPS = record(MAIN, Waiting("CrashLoopBackOff"), ended(1))


@pytest.mark.parametrize(
    ("records", "finished", "shown"),
    [
        ([record(MAIN, NEW)], False, "Pending"),
        ([record(MAIN, UP)], False, "Running"),
        ([record(MAIN, UP), record(MAIN, NEW)], False, "Pending"),
        ([record(MAIN, UP), record(MAIN, ended(1))], False, "Running"),
        ([LOOPS], False, "Running"),
        ([record(MAIN, ended(0))], False, "Running"),
        ([record(MAIN, ended(0)), record(MAIN, ended(0))], True, "Succeeded"),
        ([record(MAIN, ended(0)), record(MAIN, ended(1))], True, "Failed"),
        ([record(INIT, UP), record(MAIN, NEW)], False, "Pending"),
        ([record(INIT, ended(1)), record(MAIN, NEW)], False, "Pending"),
        ([record(INIT, ended(1)), record(MAIN, NEW)], True, "Failed"),
        ([record(INIT, ended(0)), record(MAIN, UP)], False, "Running"),
        ([record(SIDECAR, NEW), record(MAIN, NEW)], False, "Pending"),
        ([record(SIDECAR, Waiting("CrashLoopBackOff"), ended(1)), record(MAIN, UP)], False, "Running"),
        ([record(SIDECAR, ended(143)), record(MAIN, ended(0))], True, "Succeeded"),
    ],
)
def test_the_phase_follows_from_the_containers(records: list[ContainerRecord], finished: bool, shown: str) -> None:
    assert phase.phase(records, finished=finished) == shown


def test_a_pod_that_failed_has_failed_whatever_its_containers_say() -> None:
    assert phase.phase([record(MAIN, ended(0))], finished=True, failed=True) == "Failed"


@pytest.mark.parametrize(
    ("records", "count"),
    [
        ([record(MAIN, NEW), record(MAIN, NEW)], 2),
        ([record(INIT, NEW), record(MAIN, NEW)], 1),
        ([record(INIT, ended(1)), record(MAIN, NEW)], 1),
        ([record(INIT, ended(0)), record(INIT, NEW), record(MAIN, NEW)], 2),
        ([record(SIDECAR, NEW), record(MAIN, NEW)], 1),
        ([record(SIDECAR, UP), record(INIT, ended(0)), record(MAIN, NEW)], 3),
    ],
)
def test_init_containers_wait_for_those_before_them(records: list[ContainerRecord], count: int) -> None:
    assert phase.startable(records) == count


@pytest.mark.parametrize(
    ("role", "policy", "own"),
    [
        (MAIN, "Always", "Always"),
        (MAIN, "Never", "Never"),
        (INIT, "Always", "OnFailure"),
        (INIT, "OnFailure", "OnFailure"),
        (INIT, "Never", "Never"),
        (SIDECAR, "Never", "Always"),
    ],
)
def test_what_restarts_a_container_depends_on_what_it_is(role: str, policy: str, own: str) -> None:
    assert phase.restart_policy(role, policy) == own


def test_conditions_name_the_containers_they_wait_for() -> None:
    found = phase.conditions(
        [record(SIDECAR, NEW), record(INIT, NEW), record(MAIN, NEW)], "Pending", sandbox_ready=True
    )
    assert list(found) == ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    incomplete = "containers with incomplete status: [sidecar-container init-container]"
    assert found["Initialized"] == (False, "ContainersNotInitialized", incomplete)
    unready = "containers with unready status: [sidecar-container main-container]"
    assert found["Ready"] == found["ContainersReady"] == (False, "ContainersNotReady", unready)


def test_a_pod_that_is_over_is_not_ready_any_more() -> None:
    records = [record(INIT, ended(0)), record(MAIN, ended(0))]
    found = phase.conditions(records, "Succeeded", sandbox_ready=False)
    assert found["Initialized"] == (True, "PodCompleted", "")
    assert found["Ready"] == (False, "PodCompleted", "")
    assert phase.conditions(records, "Failed", sandbox_ready=False)["ContainersReady"] == (False, "PodFailed", "")
