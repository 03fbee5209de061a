"""From the states of a pod's containers to what Kubernetes says of the pod: its phase, its conditions, who may start.

Pure. The rules are kubelet's: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and, for sidecars,
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.pod.records import ContainerRecord

MAIN, INIT, SIDECAR = "main", "init", "sidecar"
"""What a container is to its pod. A sidecar is an init container that goes on beside the main ones."""


def restart_policy(role: str, policy: str) -> str:
    """That of a container in a pod whose policy is `policy`: init containers run to success, sidecars always."""
    if role == SIDECAR:
        return "Always"
    return "OnFailure" if role == INIT and policy == "Always" else policy


def startable(records: Sequence[ContainerRecord]) -> int:
    """How many containers, from the first on, may run: each of the init containers waits for those before it."""
    for index, record in enumerate(records):
        if record.role == MAIN:
            break
        if not _initialized(record):
            return index + 1
    return len(records)


def _initialized(record: ContainerRecord) -> bool:
    """Whether what comes after an init container may start."""
    return record.has_started if record.role == SIDECAR else record.succeeded


def phase(records: Sequence[ContainerRecord], *, finished: bool, failed: bool = False) -> str:
    """Pending, Running, Succeeded or Failed; the last two once `finished` says that nothing will run again.

    With `failed` a finished pod has failed whatever its containers' exit codes are.
    """
    main = [record for record in records if record.role == MAIN]
    if finished:
        needed = [record for record in records if record.role != SIDECAR]
        return "Succeeded" if not failed and all(record.succeeded for record in needed) else "Failed"
    if any(record.role != MAIN and not _initialized(record) for record in records) and not _has_begun(main):
        return "Pending"
    return "Running" if all(record.ran for record in main) else "Pending"


def _has_begun(main: Sequence[ContainerRecord]) -> bool:
    return any(record.ran for record in main)


def conditions(
    records: Sequence[ContainerRecord], phase: str, *, sandbox_ready: bool
) -> dict[str, tuple[bool, str, str]]:
    """For each type of condition whether it holds, and if not the reason and message."""
    main = [record for record in records if record.role == MAIN]
    before = [record.name for record in records if record.role != MAIN and not _initialized(record)]
    unready = [record.name for record in records if record.role != INIT and not record.ready]
    ready = _without(unready, "ContainersNotReady", "containers with unready status")
    if phase in ("Succeeded", "Failed"):
        ready = (False, "PodCompleted" if phase == "Succeeded" else "PodFailed", "")
    if _has_begun(main):
        before = []  # what has been is not undone by a sidecar that is started again
    return {
        "PodReadyToStartContainers": (sandbox_ready, "", ""),
        "Initialized": (True, "PodCompleted", "")
        if phase == "Succeeded"
        else _without(before, "ContainersNotInitialized", "containers with incomplete status"),
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": (True, "", ""),
    }


def _without(names: list[str], reason: str, message: str) -> tuple[bool, str, str]:
    return (False, reason, f"{message}: [{' '.join(names)}]") if names else (True, "", "")
