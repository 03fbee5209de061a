"""What the containers of a pod share: its cgroup, its namespaces, its address, its files in /etc, its volumes.

Setting it up is a plan of operations; `destroy` takes everything away again from the uid alone, whatever a crash left.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cgroups import hierarchy as cgroup_hierarchy
from cgroups.cgroup import Cgroup, prepare
from cgroups.controllers import Limits
from cgroups.hierarchy import V2_CONTROLLERS, Hierarchy
from kernel import process
from kernel.errors import Conflict, ContainerError, NotFound
from kernel.operation import Assembly, Operation
from kernel.pidfd import pidfd_open, pidfd_send_signal, wait_pidfd
from kernel.record import Record
from netns import namespace
from netns.loopback import raise_loopback
from rootfs.idmap import IdMaps, write_maps
from runtime.channel import Channel, error_from
from runtime.pod import idblocks
from runtime.pod.dns import resolv_conf
from runtime.pod.idblocks import IdBlocks
from runtime.settings import Settings
from runtime.user_namespace import BecomeRoot

if TYPE_CHECKING:
    from netns.attach import Network
    from runtime.pod.objects_pod import PodDNSConfig

_FLAGS = {"net": process.CLONE_NEWNET, "ipc": process.CLONE_NEWIPC, "uts": process.CLONE_NEWUTS}

SYSTEM = "system"
"""The cgroup of the supervisor and the monitors, beside those of the pods."""


class Places(Record):
    """All names that belong to one pod, computed from its uid."""

    settings: Settings
    uid: str

    @property
    def directory(self) -> Path:
        return self.settings.pod(self.uid)

    def namespace(self, kind: str) -> Path:
        """Where the pod's "net", "ipc" or "uts" namespace is pinned."""
        return self.directory / "ns" / kind

    def etc(self, name: str) -> Path:
        """The pod's own hosts, hostname or resolv.conf."""
        return self.directory / "etc" / name

    def bundle(self, container: str) -> Path:
        return self.directory / "containers" / container

    @property
    def memory_volumes(self) -> Path:
        """Volumes that live in memory: the state directory is on a tmpfs."""
        return self.directory / "volumes"

    @property
    def overlay(self) -> Path:
        """Upper layers, and below .volumes the volumes on disk; container names never begin with a dot."""
        return self.settings.overlay / self.uid

    @property
    def id_blocks(self) -> IdBlocks:
        return IdBlocks(self.settings.root)

    @property
    def ids(self) -> int | None:
        """The first id of the host that the pod's own users have; None without such users."""
        return self.id_blocks.find(self.uid)

    def cgroup(self, hierarchy: Hierarchy) -> Cgroup:
        return rawpod_cgroup(self.settings, hierarchy).child(self.uid)


def rawpod_cgroup(settings: Settings, hierarchy: Hierarchy) -> Cgroup:
    """The cgroup above all pods of this instance."""
    return Cgroup(hierarchy.subtree(settings.cgroup))


def system_cgroup(settings: Settings, hierarchy: Hierarchy) -> Cgroup:
    """The cgroup for supervisor, spawner and monitors, made if it is not there."""
    return rawpod_cgroup(settings, hierarchy).child(SYSTEM).create()


def network_of(settings: Settings) -> Network:
    """The instance's network. Imported here, where pods without one of their own do not come by."""
    from netns.attach import Network

    return Network(settings.bridge, settings.subnet, settings.state, settings.internal)


class PodCgroup(Operation):
    """The pod's cgroup with all controllers there are, so that use can be read where nothing is limited, too."""

    hierarchy: Hierarchy
    above: Cgroup
    cgroup: Cgroup
    limits: Limits

    def describe(self) -> str:
        written = " ".join(f"{name}={value!r}" for name, value in self.limits.files())
        return f"create cgroup {self.cgroup.path} {written}".rstrip()

    def execute(self, assembly: Assembly) -> None:
        controllers = self.hierarchy.controllers & set(V2_CONTROLLERS)
        try:
            self._create(controllers)
        except NotFound:
            # Another instance's last pod took the empty cgroup above away between two of our steps.
            self._create(controllers)

    def _create(self, controllers: frozenset[str]) -> None:
        prepare(self.hierarchy.root, self.above, controllers, spare=SYSTEM)
        self.cgroup.create()
        self.limits.apply(self.cgroup)
        self.cgroup.enable(controllers)

    def undo(self, assembly: Assembly) -> None:
        end_cgroup(self.cgroup)


class IdBlock(Operation):
    """65,536 ids of the host for the pod's own users."""

    places: Places

    def describe(self) -> str:
        return f"allot {idblocks.SIZE} user ids to {self.places.uid}"

    def execute(self, assembly: Assembly) -> None:
        self.places.id_blocks.acquire(self.places.uid)

    def undo(self, assembly: Assembly) -> None:
        self.places.id_blocks.release(self.places.uid)


class Namespaces(Operation):
    """The pod's namespaces, held by bind mounts and by no process, so that none has to live for them.

    The caller makes them in its own place and steps back at once: no process is forked for it. There is no way back
    from a user namespace: with `users`, a process makes it and those that are to belong to it, and ends once they are
    pinned.
    """

    places: Places
    kinds: tuple[str, ...]
    hostname: str
    users: bool = False

    def describe(self) -> str:
        kinds = ("user", *self.kinds) if self.users else self.kinds
        return f"pin new namespaces {', '.join(kinds)} in {self.places.directory / 'ns'}"

    def execute(self, assembly: Assembly) -> None:
        (self.places.directory / "ns").mkdir(mode=0o700, exist_ok=True)
        if self.users:
            self._by_another_process()
        else:
            self._in_our_place()

    def _by_another_process(self) -> None:
        ids = self.places.ids
        assert ids is not None, "IdBlock comes first"
        mapping = ((0, ids, idblocks.SIZE),)
        ours, theirs = Channel.pair()
        child = process.clone3(process.CLONE_NEWUSER)
        if child.pid == 0:
            self._furnish_and_wait(ours, theirs)
        theirs.close()
        try:
            write_maps(child.pid, IdMaps(mapping, mapping))
            ours.send("mapped")
            message, _ = ours.receive()
            if message is None or message["kind"] != "furnished":
                raise error_from(message) if message else ContainerError("the pod's first process was killed")
            for kind in ("user", *self.kinds):
                namespace.pin(child.pid, kind, self.places.namespace(kind))
        finally:
            ours.close()
            wait_pidfd(child.pidfd)
            os.close(child.pidfd)

    def _furnish_and_wait(self, ours: Channel, theirs: Channel) -> NoReturn:
        try:
            ours.close()
            theirs.forward_events()
            theirs.receive()
            # As its root: whoever makes an ipc namespace owns its message queues' directory.
            BecomeRoot().execute(Assembly())
            process.unshare(sum(_FLAGS[kind] for kind in self.kinds))
            self._furnish()
            theirs.send("furnished")
            theirs.receive()  # the end of the stream: all is pinned
        except BaseException as error:
            theirs.send_error(error, "furnish the pod's namespaces")
        finally:
            os._exit(0)

    def _in_our_place(self) -> None:
        home = {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in self.kinds}
        try:
            process.unshare(sum(_FLAGS[kind] for kind in self.kinds))
            try:
                self._furnish()
                for kind in self.kinds:
                    namespace.pin("self", kind, self.places.namespace(kind))
            finally:
                for kind, fd in home.items():
                    process.setns(fd, _FLAGS[kind])
        finally:
            for fd in home.values():
                os.close(fd)

    def _furnish(self) -> None:
        if "uts" in self.kinds:
            process.sethostname(self.hostname)
        if "net" in self.kinds:
            raise_loopback()

    def undo(self, assembly: Assembly) -> None:
        for kind in ("user", *self.kinds):
            namespace.unpin(self.places.namespace(kind))


class AttachNetwork(Operation):
    """The pod's link to the bridge, its address, and its ports on the host."""

    places: Places
    ports: tuple[tuple[str, int, int, str], ...] = ()

    def describe(self) -> str:
        return f"attach {self.places.namespace('net')} to {self.places.settings.bridge}"

    def execute(self, assembly: Assembly) -> None:
        network = network_of(self.places.settings)
        fd = os.open(self.places.namespace("net"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            network.attach(self.places.uid, fd)
        finally:
            os.close(fd)
        if self.ports:
            from netns.ports import HostPort

            network.publish(self.places.uid, [HostPort(*port) for port in self.ports])

    def undo(self, assembly: Assembly) -> None:
        network_of(self.places.settings).detach(self.places.uid)


class EtcFiles(Operation):
    """hosts, hostname and resolv.conf, which every container of the pod has mounted."""

    places: Places
    hostname: str
    names: tuple[str, ...]
    network: str
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    dns_policy: str = "Default"
    dns_config: PodDNSConfig | None = None

    def describe(self) -> str:
        return f"write hosts, hostname, resolv.conf to {self.places.directory / 'etc'}"

    def execute(self, assembly: Assembly) -> None:
        (self.places.directory / "etc").mkdir(mode=0o755, exist_ok=True)
        for name, text in self._contents().items():
            path = self.places.etc(name)
            path.write_text(text)
            path.chmod(0o644)
            if (owner := self.places.ids) is not None:
                os.chown(path, owner, owner)

    def _contents(self) -> dict[str, str]:
        from netns.hosts import host_resolv_conf, hosts_file

        address = "127.0.1.1"  # as Debian names a host that has no address of its own
        if self.network == "pod" and (lease := network_of(self.places.settings).lease(self.places.uid)):
            address = lease.address
        resolvers = _text_of(Path("/etc/resolv.conf")) if self.network == "host" else host_resolv_conf()
        return {
            "hosts": hosts_file(" ".join(self.names), address, self.aliases),
            "hostname": f"{self.hostname}\n",
            "resolv.conf": resolv_conf(resolvers, self.dns_policy, self.dns_config),
        }


def destroy(settings: Settings, uid: str, *, timeout: float = 5.0) -> None:
    """Take away all that belongs to the pod, from its uid alone; what is gone already is no error.

    Ends the monitor first, which would otherwise restart what is ended. Raises Conflict while a process of the pod
    cannot be ended (in uninterruptible sleep): then nothing but processes is gone, and it can be tried again.
    """
    from runtime.pod import directory, logs

    places = Places(settings, directory.check_uid(uid))
    status = directory.read_status(places.directory)
    if status is not None:
        _end_monitor(status)
    release(settings, uid, network=_had_network(status), timeout=timeout)
    remove_tree(places.overlay)
    # After the last file that bears one of its ids.
    places.id_blocks.release(uid)
    logs.remove(settings.logs, uid)
    remove_tree(places.directory)


def _text_of(path: Path) -> str:
    """A file of the host that the host may do without: empty then."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def release(settings: Settings, uid: str, *, network: bool, timeout: float = 5.0) -> None:
    """End the pod's processes and take away its kernel objects; its directory, logs and what it wrote stay."""
    places = Places(settings, uid)
    end_cgroup(places.cgroup(cgroup_hierarchy.find()), timeout)
    # Namespaces before the network: the kernel takes a link away with its namespace, which is faster than by request.
    unmount_below(places.directory)
    if network:
        network_of(settings).detach(uid, namespace_gone=True)


def forget_former(settings: Settings, booted: float | None = None) -> None:
    """Remove what pods wrote before this machine was `booted` (seconds since 1970) and that have no directory any more.

    Directories are in memory: those of pods that nobody removed went with the last boot, and their layers did not.
    """
    since = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if booted is None else booted
    try:
        found = list(settings.overlay.iterdir())
    except FileNotFoundError:
        return
    for path in found:
        # Both: another instance may have the same root, and the clock may have been set.
        if not settings.pod(path.name).exists() and path.lstat().st_ctime < since:
            remove_tree(path)
            IdBlocks(settings.root).release(path.name)


def tidy(settings: Settings) -> None:
    """Remove the cgroups above the pods if no pod and no monitor is left, and what is left of former boots."""
    forget_former(settings)
    above = rawpod_cgroup(settings, cgroup_hierarchy.find())
    for cgroup in (above.child(SYSTEM), above):
        with contextlib.suppress(OSError):
            os.rmdir(cgroup.path)


def end_cgroup(cgroup: Cgroup, timeout: float = 5.0) -> None:
    """Kill all processes of a cgroup, frozen ones too, and remove it."""
    if not cgroup.exists():
        return
    cgroup.kill()
    if not cgroup.wait_empty(timeout):
        raise Conflict(f"cgroup {cgroup.path!r} has processes that do not end", remedy="they are retried")
    cgroup.delete()


def unmount_below(directory: Path) -> None:
    """Unmount whatever is mounted below a directory, the last mounted first."""
    from kernel.mountinfo import own_mounts
    from kernel.mounts import MNT_DETACH, umount2

    for row in reversed(own_mounts()):
        if row.mount_point.startswith(f"{directory}/"):
            umount2(row.mount_point, MNT_DETACH)


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours that payloads have written below."""
    from rootfs import removal

    try:
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        removal.remove_tree(parent, directory.name)
    finally:
        os.close(parent)


def _had_network(status: dict[str, object] | None) -> bool:
    """Whether the pod may have had an address: in doubt, yes."""
    internal = status.get("rawpod") if status else None
    return not isinstance(internal, dict) or internal.get("network", "pod") == "pod"


def _end_monitor(status: dict[str, object]) -> None:
    import signal

    from kernel.errors import SystemCallError
    from runtime.pod.directory import monitor_alive

    monitor = status["rawpod"]["monitor"]  # type: ignore[index]
    if monitor["pid"] == os.getpid():
        return
    try:
        pidfd = pidfd_open(monitor["pid"])
    except SystemCallError:
        return
    try:
        # The pidfd first, the comparison afterwards: between the two the pid cannot change hands unnoticed.
        if monitor_alive(status):
            with contextlib.suppress(SystemCallError):
                pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
