"""The quality of service that a pod's requests and limits amount to, as kubelet computes it. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from runtime.pod.quantities import parse

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
_COUNTED = ("cpu", "memory")


def qos_class(spec: Mapping[str, Any]) -> str:
    """Of a pod's spec as decoded JSON. Guaranteed are pods all of whose containers have limits of cpu and memory, and
    requests that are the same, or none; BestEffort those with neither requests nor limits."""
    requests: dict[str, Decimal] = {}
    limits: dict[str, Decimal] = {}
    all_limited = True
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        limited = _amounts(resources.get("limits"))
        all_limited = all_limited and len(limited) == len(_COUNTED)
        # A limit without a request is a request of the same amount.
        _add(requests, limited | _amounts(resources.get("requests")))
        _add(limits, limited)
    if not requests and not limits:
        return BEST_EFFORT
    return GUARANTEED if all_limited and requests == limits else BURSTABLE


def _amounts(given: Mapping[str, str] | None) -> dict[str, Decimal]:
    return {name: amount for name in _COUNTED if (amount := parse((given or {}).get(name, "0")))}


def _add(sums: dict[str, Decimal], amounts: Mapping[str, Decimal]) -> None:
    for name, amount in amounts.items():
        sums[name] = sums.get(name, Decimal(0)) + amount
