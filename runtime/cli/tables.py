"""Objects as rows of a table, with kubectl's columns. Pure."""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

Object = dict[str, Any]


class Table:
    """Columns of a kind: their headings, and an object's cells. `wide` columns are shown on demand."""

    def __init__(
        self,
        headings: str,
        cells: Callable[[Object, float], list[str]],
        wide: str = "",
        wide_cells: Callable[[Object], list[str]] = lambda _item: [],
    ) -> None:
        self._headings, self._cells, self._wide, self._wide_cells = headings.split(), cells, wide.split(), wide_cells

    def headings(self, *, wide: bool, namespaces: bool) -> list[str]:
        """The first row."""
        return [*(["NAMESPACE"] if namespaces else []), *self._headings, *(self._wide if wide else [])]

    def row(self, item: Object, *, wide: bool, namespaces: bool, now: float | None = None) -> list[str]:
        """An object's row; AGE is counted to `now`, seconds since the epoch."""
        cells = self._cells(item, time.time() if now is None else now)
        first = [item["metadata"]["namespace"]] if namespaces else []
        return [*first, item["metadata"]["name"], *cells, *(self._wide_cells(item) if wide else [])]


def widths(rows: Iterable[Sequence[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def line(row: Sequence[str], columns: Sequence[int]) -> str:
    """A row, its cells padded to the columns."""
    return "   ".join(cell.ljust(width) for cell, width in zip(row, columns, strict=True)).rstrip()


def age(since: str | None, now: float) -> str:
    """How long ago, as kubectl writes it: two units where the first alone would be coarse."""
    if not since:
        return "<unknown>"
    seconds = max(0, int(now - datetime.fromisoformat(since).timestamp()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"


def _age_of(item: Object, now: float) -> str:
    return age(item["metadata"].get("creationTimestamp"), now)


def _containers(pod: Object) -> list[Object]:
    found: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return found


def pod_status(pod: Object) -> str:
    """The STATUS column: the most telling reason, as kubectl chooses it."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    if initializing := _init_status(pod):
        return initializing
    running = False
    for container in reversed(_containers(pod)):
        state = container.get("state") or {}
        if waiting := (state.get("waiting") or {}).get("reason"):
            reason = waiting
        elif ended := state.get("terminated"):
            reason = _end(ended)
        elif container.get("ready") and state.get("running"):
            running = True
    if reason == "Completed" and running:
        reason = "Running"
    return reason


def _end(ended: Object) -> str:
    signal = f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"
    return str(ended.get("reason") or signal)


def _init_status(pod: Object) -> str:
    """The STATUS of a pod whose init containers are not over, "" once they are."""
    status = pod.get("status") or {}
    if any(one["type"] == "Initialized" and one["status"] == "True" for one in status.get("conditions") or ()):
        return ""
    sidecars = _sidecars(pod)
    for index, container in enumerate(_init_containers(pod)):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason")
        if (ended and ended.get("exitCode") == 0) or (container["name"] in sidecars and container.get("started")):
            continue
        if ended:
            return f"Init:{_end(ended)}"
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(pod['spec']['initContainers'])}"
    return ""


def _init_containers(pod: Object) -> list[Object]:
    found: list[Object] = (pod.get("status") or {}).get("initContainerStatuses") or []
    return found


def _sidecars(pod: Object) -> set[str]:
    """Names of the init containers that count among those of the READY and RESTARTS columns."""
    init = pod["spec"].get("initContainers") or ()
    return {container["name"] for container in init if container.get("restartPolicy") == "Always"}


def _restarts(pod: Object, now: float) -> str:
    sidecars, init = _sidecars(pod), _init_containers(pod)
    containers = [*(one for one in init if one["name"] in sidecars), *_containers(pod)]
    if _init_status(pod):
        containers = init
    ends = [((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for container in containers]
    total, last = sum(container.get("restartCount", 0) for container in containers), max(filter(None, ends), default="")
    return f"{total} ({age(last, now)} ago)" if total and last else str(total)


def _pod(pod: Object, now: float) -> list[str]:
    sidecars = _sidecars(pod)
    beside = [one for one in _init_containers(pod) if one["name"] in sidecars]
    ready = sum(1 for container in (*beside, *_containers(pod)) if container.get("ready"))
    return [
        f"{ready}/{len(pod['spec']['containers']) + len(sidecars)}",
        pod_status(pod),
        _restarts(pod, now),
        _age_of(pod, now),
    ]


def _pod_wide(pod: Object) -> list[str]:
    return [(pod.get("status") or {}).get("podIP") or "<none>", pod["spec"].get("nodeName") or "<none>"]


def _workload_wide(item: Object) -> list[str]:
    containers = item["spec"]["template"]["spec"]["containers"]
    labels = (item["spec"].get("selector") or {}).get("matchLabels") or {}
    names, images = (",".join(container[key] for container in containers) for key in ("name", "image"))
    return [names, images, ",".join(f"{key}={value}" for key, value in labels.items()) or "<none>"]


def _counts(item: Object, *names: str) -> list[str]:
    status = item.get("status") or {}
    return [str(status.get(name, 0)) for name in names]


def _deployment(item: Object, now: float) -> list[str]:
    ready, updated, available = _counts(item, "readyReplicas", "updatedReplicas", "availableReplicas")
    return [f"{ready}/{item['spec'].get('replicas', 1)}", updated, available, _age_of(item, now)]


def _replica_set(item: Object, now: float) -> list[str]:
    return [str(item["spec"].get("replicas", 1)), *_counts(item, "replicas", "readyReplicas"), _age_of(item, now)]


def _keys(item: Object) -> str:
    return str(len(item.get("data") or {}) + len(item.get("binaryData") or {}))


_TEMPLATE = "CONTAINERS IMAGES SELECTOR"

TABLES = {
    "Pod": Table("NAME READY STATUS RESTARTS AGE", _pod, "IP NODE", _pod_wide),
    "Deployment": Table("NAME READY UP-TO-DATE AVAILABLE AGE", _deployment, _TEMPLATE, _workload_wide),
    "ReplicaSet": Table("NAME DESIRED CURRENT READY AGE", _replica_set, _TEMPLATE, _workload_wide),
    "ConfigMap": Table("NAME DATA AGE", lambda item, now: [_keys(item), _age_of(item, now)]),
    "Secret": Table("NAME TYPE DATA AGE", lambda item, now: [item.get("type", ""), _keys(item), _age_of(item, now)]),
}
