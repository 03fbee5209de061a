"""Features of the kernel tried out for `rawpod doctor`: each leaves nothing behind, whatever it finds."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from cgroups.cgroup import Cgroup
from cgroups.device_rules import DENY_ALL
from cgroups.devices import restrict
from cgroups.hierarchy import Hierarchy
from kernel import mounts, pidfd, process, seccomp
from kernel.errors import HostError
from netns import links
from netns.netlink import Netlink
from rootfs.binds import clone
from rootfs.idmap import IdMaps, idmap, user_namespace
from runtime.inventory import nft_program
from runtime.seccomp.rules import ACTIONS

_NAMESPACES = (
    process.CLONE_NEWNS
    | process.CLONE_NEWPID
    | process.CLONE_NEWNET
    | process.CLONE_NEWUTS
    | process.CLONE_NEWIPC
    | process.CLONE_NEWCGROUP
)


def clone_into_cgroup(hierarchy: Hierarchy) -> None:
    """clone3(2) with every namespace a container gets, into a new cgroup."""
    cgroup = Cgroup(hierarchy.root).child(f"rawpod-doctor-{os.getpid()}").create()
    try:
        descriptor = cgroup.open()
        try:
            child = process.clone3(_NAMESPACES, cgroup_fd=descriptor)
            if child.pid == 0:
                os._exit(0)
        finally:
            os.close(descriptor)
        pidfd.wait_pidfd(child.pidfd)
        os.close(child.pidfd)
    finally:
        cgroup.delete()


def restrict_devices(hierarchy: Hierarchy) -> None:
    """Attach a device program to a new cgroup."""
    cgroup = Cgroup(hierarchy.root).child(f"rawpod-doctor-{os.getpid()}").create()
    try:
        restrict(cgroup, [DENY_ALL])
    finally:
        cgroup.delete()


def seccomp_filter() -> None:
    """Ask for the actions and the flag that filters use."""
    for action in ACTIONS.values():
        if not seccomp.action_available(action):
            raise HostError(f"the kernel does not know the action {action:#x}")
    if not seccomp.flag_available(seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER):
        raise HostError("the kernel passes no calls to listeners")


def overlay(root: Path) -> None:
    """Mount an overlay, attached nowhere, whose upper layer is on the file system of `root`."""
    with tempfile.TemporaryDirectory(prefix=".rawpod-doctor-", dir=_existing(root)) as directory:
        for name in ("lower", "upper", "work"):
            (Path(directory) / name).mkdir()
        context = mounts.fsopen("overlay")
        try:
            for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")):
                mounts.fsconfig_set_string(context, key, f"{directory}/{name}")
            mounts.fsconfig_create(context)
            os.close(mounts.fsmount(context))
        finally:
            os.close(context)
        # The kernel leaves a directory of mode 0 in the work directory (Documentation/filesystems/overlayfs.rst).
        for left in (Path(directory) / "work").iterdir():
            left.chmod(0o700)


def id_mapped_mount(root: Path) -> None:
    """Make a user namespace, and a mount of `root`'s file system, attached nowhere, with the ids it maps."""
    ids = IdMaps(((0, 65536, 65536),), ((0, 65536, 65536),))
    namespace = user_namespace(ids)
    try:
        directory = str(_existing(root))
        tree = clone(directory, recursive=False)
        try:
            idmap(tree, namespace, directory)
        finally:
            os.close(tree)
    finally:
        os.close(namespace)


def bridge() -> None:
    """Make a bridge in a network namespace of its own."""
    with Netlink() as netlink:
        netlink.request(links.new_bridge("rpdoctor0", b"\2\0\0\0\0\1"))


def veth() -> None:
    """Make a veth pair in a network namespace of its own."""
    from netns.veth import link_name

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink() as netlink:
            netlink.request(links.new_veth(link_name("doctor"), 0, "eth0", b"\2\0\0\0\0\2", home))
    finally:
        os.close(home)


def firewall() -> None:
    """Load the rules that pods get into a network namespace of its own. Raises HostError with what nft(8) said."""
    import subprocess

    from netns.addresses import Subnet
    from netns.firewall import rules

    program = nft_program()
    if program is None:
        raise HostError("the program nft is missing", remedy="apt-get install nftables")
    text = rules("rpdoctor0", Subnet.parse("10.88.0.0/16"), [], internal=False)
    answer = subprocess.run([program, "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = next(iter(answer.stderr.splitlines()), f"exit status {answer.returncode}")
        raise HostError(f"nft refused the rules of pods: {said}")


def in_own_network(trial: Callable[[], None]) -> None:
    """Run a trial in a thread whose network namespace is new and ends with it; its error is raised here."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            process.unshare(process.CLONE_NEWNET)
            trial()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _existing(directory: Path) -> Path:
    """The nearest of the directory and those above that is there."""
    return next(path for path in (directory, *directory.parents) if path.is_dir())
