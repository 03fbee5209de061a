"""rawpod's own annotations: what a pod can ask for that Kubernetes' fields do not express (docs/manifests.md).

An unknown annotation under rawpod.dev/ is a fault, so that a misspelt limit is not silently no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from kernel.errors import BadInput
from runtime.pod import users
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import Pod, PodSpec
from runtime.pod.signals import signal_number

PREFIX = "rawpod.dev/"
PIDS_LIMIT = "rawpod.dev/pids-limit"
NETWORK = "rawpod.dev/network"
USER = "rawpod.dev/user"
STOP_SIGNAL = "rawpod.dev/stop-signal"
HEALTHCHECK = "rawpod.dev/healthcheck"
_ALL = (PIDS_LIMIT, NETWORK, USER, STOP_SIGNAL, HEALTHCHECK)
MAX_PIDS = 4_194_304  # PID_MAX_LIMIT on 64-bit kernels, proc_sys_kernel(5)

Network = Literal["pod", "host", "none"]


def pids_limit(annotations: dict[str, str]) -> int | None:
    """The largest number of tasks in each container of the pod, or None for no limit."""
    text = annotations.get(PIDS_LIMIT)
    return int(text) if text is not None else None


def user(annotations: dict[str, str]) -> str | None:
    """`USER[:GROUP]` by name or number for all containers, where runAsUser is not set."""
    return annotations.get(USER)


def stop_signal(annotations: dict[str, str]) -> str | None:
    """The signal that asks the pod's containers to end, instead of the one that their images name."""
    return annotations.get(STOP_SIGNAL)


def obeys_healthcheck(annotations: dict[str, str]) -> bool:
    """Whether the images' Healthcheck is run, which kubelet does not and Docker does."""
    return annotations.get(HEALTHCHECK) == "image"


def network(pod: Pod) -> Network:
    """Which network the pod is in: one with an address, the host's, or loopback alone."""
    if pod.spec.host_network:
        return "host"
    return "none" if pod.metadata.annotations.get(NETWORK) == "none" else "pod"


def faults(annotations: dict[str, str], spec: PodSpec, path: Path) -> Iterator[Fault]:
    """What is wrong with a pod's annotations under rawpod.dev/."""
    for name, value in annotations.items():
        place = (*path, name)
        if name == PIDS_LIMIT:
            if not (value.isascii() and value.isdecimal() and len(value) <= 7 and 1 <= int(value) <= MAX_PIDS):
                yield Fault(place, f"{shown(value)} is no number of tasks", f"1 to {MAX_PIDS}")
        elif name == NETWORK:
            if value not in ("pod", "none"):
                yield Fault(
                    place, f"unknown network {shown(value)}", "'pod' or 'none'; for the host's, hostNetwork: true"
                )
            elif spec.host_network:
                yield Fault(place, f"{shown(value)} contradicts hostNetwork: true", "remove one of them")
        elif name == USER:
            try:
                users.parse(value)
            except BadInput as error:
                yield Fault(place, error.message, error.remedy or "")
        elif name == STOP_SIGNAL:
            try:
                signal_number(value)
            except BadInput as error:
                yield Fault(place, error.message, error.remedy or "")
        elif name == HEALTHCHECK:
            if value not in ("image", "none"):
                yield Fault(place, f"unknown health check {shown(value)}", "'image' for that of the image, or 'none'")
        elif name.startswith(PREFIX):
            yield Fault(
                place,
                "unknown annotation of rawpod",
                nearest(name, _ALL),
            )
