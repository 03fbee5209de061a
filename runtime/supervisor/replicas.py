"""ReplicaSet -> Pods: as many as asked for, no more. Pure."""

from runtime.supervisor.actions import Action, Create, Delete, UpdateStatus, target
from runtime.supervisor.meta import available_at, finished, phase_of, ready, reference_to, replicas_of, terminating
from runtime.supervisor.resources import Object
from runtime.supervisor.selectors import of_spec

FINISHED_KEPT = 5
"""Ended pods of a ReplicaSet that are left to be looked at."""


def active(pods: list[Object]) -> list[Object]:
    """The pods that count: neither being deleted nor ended."""
    return [pod for pod in pods if not terminating(pod) and not finished(pod)]


def keep(replica_set: Object, pods: list[Object]) -> list[Action]:
    """The pods to create or delete."""
    # Pods that the selector does not select would be released as soon as they are made, without end.
    if terminating(replica_set) or not of_spec(replica_set["spec"]["selector"])(_pod(replica_set)):
        return []
    counted = active(pods)
    missing = replicas_of(replica_set) - len(counted)
    actions: list[Action] = [Create(_pod(replica_set)) for _ in range(missing)]
    if missing < 0:
        actions += [Delete(*target(pod)) for pod in _worst_first(counted)[:-missing]]
    ended = sorted((pod for pod in pods if finished(pod) and not terminating(pod)), key=_age)
    actions += [Delete(*target(pod)) for pod in ended[: max(0, len(ended) - FINISHED_KEPT)]]
    return actions


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]


def _worst_first(pods: list[Object]) -> list[Object]:
    """Not running before running, not ready before ready, young before old: what is lost least is deleted first."""
    youngest_first = sorted(pods, key=_age, reverse=True)
    return sorted(youngest_first, key=lambda pod: (phase_of(pod) == "Running", ready(pod)))


def _pod(replica_set: Object) -> Object:
    template = replica_set["spec"]["template"]
    wanted = template.get("metadata") or {}
    metadata = {key: dict(wanted[key]) for key in ("labels", "annotations") if wanted.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata,
            "generateName": f"{replica_set['metadata']['name']}-",
            "namespace": replica_set["metadata"]["namespace"],
            "ownerReferences": [reference_to(replica_set)],
        },
        "spec": template["spec"],
    }


class Count:
    """How many of some pods count, are ready and are available at a time."""

    def __init__(self, pods: list[Object], min_ready: int, now: float) -> None:
        counted = active(pods)
        times = [at for pod in counted if (at := available_at(pod, min_ready)) is not None]
        self.replicas = len(counted)
        self.ready = len(times)
        self.available = sum(1 for at in times if at <= now)
        self.next_available = min((at for at in times if at > now), default=None)


def status(replica_set: Object, pods: list[Object], now: float) -> tuple[list[Action], float | None]:
    """The status to write, if it differs, and when it changes by itself (a pod becomes available)."""
    count = Count(pods, replica_set["spec"].get("minReadySeconds") or 0, now)
    template = (replica_set["spec"]["template"].get("metadata") or {}).get("labels") or {}
    labelled = [pod for pod in active(pods) if template.items() <= (pod["metadata"].get("labels") or {}).items()]
    wanted = {
        "replicas": count.replicas,
        "fullyLabeledReplicas": len(labelled),
        "readyReplicas": count.ready,
        "availableReplicas": count.available,
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    if wanted == replica_set.get("status"):
        return [], count.next_available
    return [UpdateStatus(*target(replica_set), wanted)], count.next_available
