"""Which seccomp profile a container has: its own choice before the pod's, RuntimeDefault where neither says anything.

Localhost profiles are files below ROOT/seccomp, as a kubelet has them below its own root. One that is missing, empty or
malformed keeps the container from being made: no profile is never taken for no restriction (CVE-2023-2431).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from kernel.errors import BadInput, SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from runtime import spec
from runtime.pod.faults import shown
from runtime.pod.objects import Container, Pod, SeccompProfile
from runtime.seccomp.default import default_profile
from runtime.seccomp.profile_file import MAX_SIZE, parse

DIRECTORY = "seccomp"
RUNTIME_DEFAULT, LOCALHOST, UNCONFINED = "RuntimeDefault", "Localhost", "Unconfined"


def chosen(pod: Pod, container: Container) -> SeccompProfile:
    """What the manifest asks for."""
    for context in (container.security_context, pod.spec.security_context):
        if context is not None and context.seccomp_profile is not None:
            return context.seccomp_profile
    return SeccompProfile(RUNTIME_DEFAULT)


def resolve(
    pod: Pod, container: Container, capabilities: Collection[str], directory: Path, given: Path
) -> spec.Seccomp | None:
    """The profile of a container whose bounding set has `capabilities`; None for Unconfined.

    Localhost profiles are in `directory`. `given`, where it exists, is a profile that `rawpod run` was given for this
    pod, and stands before all others. Raises BadInput.
    """
    if given.exists():
        return read(given, capabilities)
    profile = chosen(pod, container)
    if profile.type == UNCONFINED:
        return None
    if profile.type == RUNTIME_DEFAULT:
        return default_profile(capabilities)
    if profile.type == LOCALHOST and profile.localhost_profile:
        what = f"seccomp profile {shown(profile.localhost_profile)}"
        return _parse(_read_beneath(directory, profile.localhost_profile, what), what, capabilities)
    raise BadInput(f"container {shown(container.name)}: unknown seccomp profile {shown(profile.type)}")


def read(path: Path, capabilities: Collection[str]) -> spec.Seccomp:
    """The profile in a file. Raises BadInput where there is none or it cannot be used."""
    what = f"seccomp profile {str(path)!r}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"{what}: {os.strerror(error.errno or 0).lower()}") from None
    return _parse(_content(fd, what), what, capabilities)


def _read_beneath(directory: Path, name: str, what: str) -> bytes:
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        problem = os.strerror(error.errno or 0).lower()
        raise BadInput(f"{what}: {str(directory)!r}: {problem}", remedy=f"put it below {str(directory)!r}") from None
    try:
        fd = openat2(root, name, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except SystemCallError as error:
        raise BadInput(f"{what}: {error.strerror}", remedy=f"put it below {str(directory)!r}") from None
    finally:
        os.close(root)
    return _content(fd, what)


def _content(fd: int, what: str) -> bytes:
    import stat

    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadInput(f"{what}: no regular file")
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise BadInput(f"{what}: more than {MAX_SIZE} bytes")
    return data


def _parse(data: bytes, what: str, capabilities: Collection[str]) -> spec.Seccomp:
    host = os.uname()
    return parse(data, what, capabilities, host.machine, host.release)
