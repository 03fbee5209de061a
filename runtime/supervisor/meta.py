"""What the supervisor reads from and writes into any object's metadata and conditions. Pure."""

import hashlib
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from runtime.supervisor.resources import Object

FINISHED_PHASES = frozenset({"Succeeded", "Failed"})
TEMPLATE_HASH = "pod-template-hash"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes': no vowels, so no words; nothing that looks like another


def timestamp(now: float) -> str:
    """Seconds since the epoch as Kubernetes writes a time: 2024-05-01T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def seconds(text: str) -> float:
    """A time as Kubernetes writes it, with or without fractions, as seconds since the epoch."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def short_hash(data: bytes, length: int) -> str:
    """A name's suffix from a digest of `data`."""
    number = int.from_bytes(hashlib.sha256(data).digest()[:16], "big")
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def template_hash(template: Object) -> str:
    """The hash of a pod template: equal templates have equal hashes, whatever the order of their keys."""
    return short_hash(json.dumps(template, sort_keys=True, separators=(",", ":")).encode(), 10)


def name_of(item: Object) -> tuple[str, str]:
    """Namespace and name."""
    return item["metadata"]["namespace"], item["metadata"]["name"]


def uid_of(item: Object) -> str:
    """The object's uid."""
    uid: str = item["metadata"]["uid"]
    return uid


def terminating(item: Object) -> bool:
    """Whether the object is being deleted."""
    return item["metadata"].get("deletionTimestamp") is not None


def controller_of(item: Object) -> str | None:
    """The uid of the owner that controls the object, or None."""
    for reference in item["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            uid: str = reference["uid"]
            return uid
    return None


def reference_to(owner: Object) -> Object:
    """The ownerReference that makes `owner` the controller."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def replicas_of(item: Object) -> int:
    """How many replicas a Deployment or ReplicaSet asks for; 1 if it does not say."""
    replicas: int | None = item["spec"].get("replicas")
    return 1 if replicas is None else replicas


def phase_of(pod: Object) -> str:
    """The pod's phase."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def finished(pod: Object) -> bool:
    """Whether all of the pod's containers have ended and none will be started again."""
    return phase_of(pod) in FINISHED_PHASES


def condition(item: Object, kind: str) -> Object | None:
    """The object's condition of that type, or None."""
    found: Iterable[Object] = (item.get("status") or {}).get("conditions") or ()
    return next((entry for entry in found if entry.get("type") == kind), None)


def ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is True."""
    entry = condition(pod, "Ready")
    return entry is not None and entry.get("status") == "True"


def available_at(pod: Object, min_ready: int) -> float | None:
    """When a ready pod is, was or will be available: ready for `min_ready` seconds. None if it is not ready."""
    entry = condition(pod, "Ready")
    if entry is None or entry.get("status") != "True":
        return None
    since = entry.get("lastTransitionTime")
    return seconds(since) + min_ready if since and min_ready else 0.0


def with_condition(item: Object, kind: str, holds: bool, reason: str, message: str, now: float) -> Object:
    """The condition as it is now: its times move only when it does."""
    value = "True" if holds else "False"
    entry: dict[str, Any] = {"type": kind, "status": value, "reason": reason, "message": message}
    before = condition(item, kind)
    changed = before is None or before.get("status") != value
    entry["lastTransitionTime"] = timestamp(now) if changed or before is None else before["lastTransitionTime"]
    return entry
