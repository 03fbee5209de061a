"""Deployment -> ReplicaSets, by the Recreate strategy: the old pods are gone before the new ones come. Pure."""

from typing import Any

from runtime.supervisor.actions import Action, Create, Delete, Scale, UpdateStatus, target
from runtime.supervisor.meta import (
    TEMPLATE_HASH,
    finished,
    reference_to,
    replicas_of,
    template_hash,
    terminating,
    with_condition,
)
from runtime.supervisor.replicas import Count
from runtime.supervisor.resources import Object

DEFAULT_HISTORY = 10

Pods = dict[str, list[Object]]
"""Pods by the uid of the ReplicaSet that controls them."""


def roll(deployment: Object, owned: list[Object], pods: Pods, taken: set[str]) -> list[Action]:
    """The ReplicaSets to create, scale and delete. `taken` are the names of ReplicaSets that are another's."""
    if terminating(deployment):
        return []
    current, old = split(deployment, owned)
    actions: list[Action] = [Scale(*target(one), 0) for one in old if replicas_of(one) != 0]
    # A terminating pod may still run and hold what the new one needs; a set not yet scaled down may still make pods.
    old_runs = bool(actions) or any(not finished(pod) for one in old for pod in pods.get(one["metadata"]["uid"], ()))
    desired = replicas_of(deployment)
    if current is None:
        if not old_runs and _name(deployment) not in taken:
            actions.append(Create(_replica_set(deployment)))
    elif (replicas := min(desired, replicas_of(current)) if old_runs else desired) != replicas_of(current):
        actions.append(Scale(*target(current), replicas))
    return actions + _forget(deployment, old, pods)


def split(deployment: Object, owned: list[Object]) -> tuple[Object | None, list[Object]]:
    """The ReplicaSet of the deployment's present template, if there is one, and all others."""
    wanted = template_hash(deployment["spec"]["template"])
    current = next((one for one in owned if (one["metadata"].get("labels") or {}).get(TEMPLATE_HASH) == wanted), None)
    return current, [one for one in owned if one is not current]


def _forget(deployment: Object, old: list[Object], pods: Pods) -> list[Action]:
    limit = deployment["spec"].get("revisionHistoryLimit")
    kept = DEFAULT_HISTORY if limit is None else limit
    empty = [
        one for one in old if replicas_of(one) == 0 and not pods.get(one["metadata"]["uid"]) and not terminating(one)
    ]
    empty.sort(key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
    return [Delete(*target(one)) for one in empty[: max(0, len(empty) - kept)]]


def _name(deployment: Object) -> str:
    return f"{deployment['metadata']['name']}-{template_hash(deployment['spec']['template'])}"


def _replica_set(deployment: Object) -> Object:
    spec = deployment["spec"]
    mark = {TEMPLATE_HASH: template_hash(spec["template"])}
    template_metadata = spec["template"].get("metadata") or {}
    labels = {**(template_metadata.get("labels") or {}), **mark}
    selector = spec["selector"]
    wanted: dict[str, Any] = {
        "replicas": replicas_of(deployment),
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **mark}},
        "template": {**spec["template"], "metadata": {**template_metadata, "labels": labels}},
    }
    if spec.get("minReadySeconds"):
        wanted["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": _name(deployment),
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": wanted,
    }


def status(
    deployment: Object, owned: list[Object], pods: Pods, taken: set[str], now: float
) -> tuple[list[Action], float | None]:
    """The status to write, if it differs, and when it changes by itself."""
    current, _ = split(deployment, owned)
    min_ready = deployment["spec"].get("minReadySeconds") or 0
    total = Count([pod for one in owned for pod in pods.get(one["metadata"]["uid"], ())], min_ready, now)
    updated = Count(pods.get(current["metadata"]["uid"], []) if current else [], min_ready, now)
    desired = replicas_of(deployment)
    wanted = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total.replicas,
        "updatedReplicas": updated.replicas,
        "readyReplicas": total.ready,
        "availableReplicas": total.available,
        "unavailableReplicas": max(0, desired - total.available),
        "conditions": [
            _available(deployment, total.available, desired, now),
            _progressing(deployment, updated, total, desired, current is None and _name(deployment) in taken, now),
        ],
    }
    if wanted == deployment.get("status"):
        return [], total.next_available
    return [UpdateStatus(*target(deployment), wanted)], total.next_available


def _available(deployment: Object, available: int, desired: int, now: float) -> Object:
    # Recreate guarantees no minimum while it changes templates, so available means: all that are asked for.
    reason = "MinimumReplicasAvailable" if available >= desired else "MinimumReplicasUnavailable"
    message = f"{available} of {desired} replicas are available"
    return with_condition(deployment, "Available", available >= desired, reason, message, now)


def _progressing(deployment: Object, updated: Count, total: Count, desired: int, taken: bool, now: float) -> Object:
    if taken:
        message = f'a replicaset "{_name(deployment)}" exists and is not this deployment\'s; delete or rename it'
        return with_condition(deployment, "Progressing", False, "ReplicaSetNameTaken", message, now)
    if updated.available >= desired and updated.replicas == total.replicas == desired:
        message = "the replicas of the present template are all available"
        return with_condition(deployment, "Progressing", True, "NewReplicaSetAvailable", message, now)
    message = f"{updated.replicas} of {desired} replicas have the present template"
    return with_condition(deployment, "Progressing", True, "ReplicaSetUpdated", message, now)
