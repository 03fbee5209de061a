"""What must hold for a reference to what containers ask for, in the environment and in volumes."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.pod import downward
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import PodSpec, ResourceFieldSelector


def selector_faults(
    selector: ResourceFieldSelector, spec: PodSpec, path: Path, *, named: bool = False
) -> Iterator[Fault]:
    """What is wrong with a resourceFieldRef. A container is `named`, or else it may be that of the variable."""
    containers = [container.name for container in spec.all_containers]
    if not selector.container_name:
        if named:
            yield Fault((*path, "containerName"), "required", f"one of {', '.join(containers)}")
    elif selector.container_name not in containers:
        wrong = f"no container {shown(selector.container_name)}"
        yield Fault((*path, "containerName"), wrong, nearest(selector.container_name, containers))
    if selector.resource not in downward.RESOURCES:
        section, _, name = selector.resource.partition(".")
        known = section in ("limits", "requests") and (name == "ephemeral-storage" or name.startswith("hugepages-"))
        wrong = "not supported by rawpod yet" if known else f"unknown resource {shown(selector.resource)}"
        yield Fault((*path, "resource"), wrong, f"one of {', '.join(downward.RESOURCES)}")
        return
    units = downward.DIVISORS[selector.resource.partition(".")[2]]
    if selector.divisor not in (None, "", "0", *units):
        yield Fault((*path, "divisor"), f"{shown(selector.divisor)} is no unit", f"one of {', '.join(units)}")
