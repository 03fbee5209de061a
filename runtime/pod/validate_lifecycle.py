"""What must hold for how a container ends."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.pod import termination
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.objects import Container
from runtime.pod.validate_mounts import absolute_path

_FORBIDDEN_MOUNTS = ("/", "/proc", "/sys", "/dev")


def termination_faults(container: Container, path: Path) -> Iterator[Fault]:
    """The message's file is mounted: over what a program cannot do without it must not be."""
    text, place = container.termination_message_path, (*path, "terminationMessagePath")
    if text:
        target = _normal(text)
        wrong = list(absolute_path(text, place))
        if not wrong and (target in _FORBIDDEN_MOUNTS or target.startswith(("/proc/", "/sys/"))):
            wrong = [Fault(place, f"a file cannot be mounted over {shown(target)}", "another path")]
        yield from wrong
        for index, mount in enumerate(container.volume_mounts):
            if _normal(mount.mount_path) == target:
                yield Fault(place, f"{shown(target)} is also mounted by volumeMounts[{index}]", "another path")
    policy = container.termination_message_policy
    if policy not in ("", termination.FILE, termination.FALLBACK):
        right = nearest(policy, (termination.FILE, termination.FALLBACK))
        yield Fault((*path, "terminationMessagePolicy"), f"unknown policy {shown(policy)}", right)


def _normal(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
