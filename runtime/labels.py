"""AppArmor profiles and SELinux labels, for hosts that have them: /proc/thread-self/attr (apparmor(7), selinux(8))."""

from __future__ import annotations

import os

from kernel.errors import HostError
from kernel.operation import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Assembly
    from runtime import spec

_APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"
_SELINUX_ENFORCE = "/sys/fs/selinux/enforce"


def apparmor_enabled() -> bool:
    """Whether the kernel has AppArmor and uses it."""
    try:
        with open(_APPARMOR_ENABLED, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def selinux_enabled() -> bool:
    """Whether the kernel has SELinux and a policy is loaded: only then is selinuxfs mounted with this file."""
    return os.path.exists(_SELINUX_ENFORCE)


def check(process: spec.Process) -> None:
    """Refuse a label that the host cannot apply. Raises HostError."""
    if process.apparmor_profile and not apparmor_enabled():
        raise HostError(
            f"process.apparmorProfile: {process.apparmor_profile!r}: this host has no AppArmor",
            remedy="leave the profile out, or boot with lsm=...,apparmor",
        )
    if process.selinux_label and not selinux_enabled():
        raise HostError(
            f"process.selinuxLabel: {process.selinux_label!r}: SELinux is disabled or not supported on this host",
            remedy="leave the label out, or boot with lsm=...,selinux and a policy",
        )


class PinAttributes(Operation):
    """Keep the directory of the process's own attributes, of the host's procfs, for later: assembly.fds["attr"].

    The container's /proc may hold anything by then (CVE-2019-16884, CVE-2025-52881).
    """

    def describe(self) -> str:
        return "open /proc/thread-self/attr"

    def execute(self, assembly: Assembly) -> None:
        assembly.fds["attr"] = os.open("/proc/thread-self/attr", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def apply(process: spec.Process, attributes: int) -> None:
    """Have the next execve change to the process's profile and label. `attributes` is what PinAttributes opened.

    The kernel takes it only from the credentials with which the file was opened: opened here, not before.
    """
    if process.apparmor_profile:
        name = "apparmor/exec" if _exists("apparmor", attributes) else "exec"
        _write(attributes, name, f"exec {process.apparmor_profile}", f"AppArmor profile {process.apparmor_profile!r}")
    if process.selinux_label:
        _write(attributes, "exec", process.selinux_label, f"SELinux label {process.selinux_label!r}")


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _write(directory: int, name: str, text: str, what: str) -> None:
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        remedy = "is it loaded?" if error.errno == 2 else None
        raise HostError(f"{what}: {os.strerror(error.errno or 0).lower()}", remedy=remedy) from None
