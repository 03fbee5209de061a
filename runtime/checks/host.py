"""What a description asks of the host itself, looked up before anything is made."""

from __future__ import annotations

import os

from kernel.errors import BadInput, HostError, NotSupported
from runtime import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime import spec


def check(config: spec.Config) -> None:
    """Raise HostError for what the host lacks, BadInput for a parameter of the host's own network namespace."""
    if config.process is not None:
        labels.check(config.process)
    if config.linux is not None:
        _check_sysctl(config.linux)
        if config.linux.intel_rdt is not None:
            _refuse_rdt()


def _check_sysctl(linux: spec.Linux) -> None:
    """A network namespace that is joined may be the one that rawpod itself is in."""
    asked = [key for key in linux.sysctl if key.startswith(("net.", "net/"))]
    if not asked:
        return
    for namespace in linux.namespaces:
        if namespace.type == "network" and namespace.path and _is_own(namespace.path):
            raise BadInput(f"linux.sysctl[{asked[0]!r}]: {namespace.path!r} is the host's own network namespace")


def _refuse_rdt() -> None:
    """`linux.intelRdt` divides caches and memory bandwidth by way of resctrl (config-linux.md, "IntelRdt")."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounted = b" - resctrl " in file.read()
    if not mounted:
        raise HostError(
            "linux.intelRdt: no resctrl filesystem is mounted on this host",
            remedy="mount -t resctrl resctrl /sys/fs/resctrl, on a processor with RDT",
        )
    raise NotSupported("linux.intelRdt: rawpod does not divide caches yet")


def _is_own(path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat("/proc/self/ns/net"))
    except OSError:
        return False  # joining it will fail, and say why
