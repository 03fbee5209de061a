"""What of an object may not change once it is made, by Kubernetes' rules. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime.supervisor.resources import Object

Cause = tuple[str, str]

# Kubernetes also lets images, activeDeadlineSeconds and a negative grace period change; a pod here is as it was begun.
_POD = (
    "Forbidden: pod updates may not change fields other than `spec.tolerations` (only additions to existing "
    "tolerations), and this one changes {}: delete the pod and make it anew"
)
_SHOWN = 5


def faults(old: Object, new: Object) -> list[Cause]:
    """Pairs of field and message, none if the change is allowed. A pod's new spec is bound to its node already."""
    match old["kind"]:
        case "Pod":
            return _pod(old["spec"], new["spec"])
        case "Deployment" | "ReplicaSet":
            if new["spec"].get("selector") != old["spec"].get("selector"):
                return [("spec.selector", "field is immutable (delete the object and make it anew)")]
        case "ConfigMap" | "Secret":
            return _held(old, new)
    return []


def _pod(old: Object, new: Object) -> list[Cause]:
    had, wanted = old.get("tolerations") or [], new.get("tolerations") or []
    if all(toleration in wanted for toleration in had):
        new = {**new, "tolerations": had} if had else {key: new[key] for key in new if key != "tolerations"}
    changed = list(_changes(old, new, "spec"))
    if not changed:
        return []
    told = ", ".join(changed[:_SHOWN]) + (f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
    return [("spec", _POD.format(told))]


def _held(old: Object, new: Object) -> list[Cause]:
    causes = []
    if old["kind"] == "Secret" and (new.get("type") or "Opaque") != (old.get("type") or "Opaque"):
        causes.append(("type", "field is immutable"))
    if old.get("immutable"):
        fields = ("data", "binaryData", "stringData", "immutable")
        told = "Forbidden: field is immutable when `immutable` is set"
        causes += [(field, told) for field in fields if new.get(field) != old.get(field)]
    return causes


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    """The paths of the smallest parts that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if old.get(key) != new.get(key):
                yield from _changes(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, f"{path}[{index}]")
    elif old != new:
        yield path
