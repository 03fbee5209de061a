"""The face of this room: pods on a bridge.

Every name comes from the pod's uid, every step can be done again, and what a killed process left is cured by
`detach(uid)` or `repair(pods)`. Two locks: the pool's, for addresses; and the bridge's, which attach() holds shared and
whoever makes or removes the bridge holds alone. A bridge that is up and ours is complete: being up is its last step.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kernel.errors import BadInput, NotSupported
from netns import links, pod, veth
from netns.addresses import Pool, Subnet, ip_number, ip_text
from netns.bridge import Bridge
from netns.namespace import entered
from netns.netlink import Netlink
from netns.ports import HostPort, PortBook, check_unused, checked
from netns.veth import link_name, mac_of

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class Attachment(NamedTuple):
    """How a pod is on the network. `gateway` is the bridge's address, a default route only where not internal."""

    address: str
    prefix: int
    gateway: str
    link: str
    mac: str


class Network:
    """One bridge with its pods. Making the object does nothing yet; several processes may each have one.

    The methods are for a caller in the host's network namespace; they open no thread, and a second thread needs an
    object of its own.
    """

    def __init__(self, bridge: str, subnet: str, state: Path, internal: bool = False) -> None:
        self.state = Path(state)
        self.internal = internal
        self._subnet = Subnet.parse(subnet)
        self._pool = Pool(self.state, self._subnet)
        self._ports = PortBook(self.state / "network" / "ports")
        self._bridge = Bridge(bridge, self._subnet, self.state, internal)

    def attach(self, uid: str, netns_fd: int) -> Attachment:
        """Put the pod on the bridge: lease, veth pair, eth0 with address and default route, loopback.

        Doing it again gives the same address and keeps a link that is whole. What a failure left is removed.
        Raises HostError, SystemCallError.
        """
        check_uid(uid)
        try:
            attachment = self._attachment(uid, self._pool.acquire(uid))
            with self._bridge_ready() as (host, bridge):
                self._join(host, bridge, uid, attachment, netns_fd)
        except BaseException:
            self.detach(uid)
            raise
        return attachment

    def detach(self, uid: str, *, namespace_gone: bool = False) -> None:
        """Take the pod off the bridge: hostPorts, link, lease; with the last lease go bridge and rules.

        Nothing needs to be there. Deleting the link takes the kernel 20 ms; with `namespace_gone`, which says that
        the caller let go of the pod's namespace for good, the kernel is at it already and is waited for first.
        """
        check_uid(uid)
        if self._ports.has(uid):
            with self._bridge.locked():
                self._bridge.publish(self._published(without=uid))
                self._ports.remove(uid)
        with Netlink() as host:
            veth.delete(host, link_name(uid), namespace_gone=namespace_gone)
            self._pool.release(uid)
            self._tear_down_unused(host)

    def lease(self, uid: str) -> Attachment | None:
        """The pod's address and names, None where it has no address."""
        check_uid(uid)
        address = self._pool.find(uid)
        return None if address is None else self._attachment(uid, address)

    def leases(self) -> dict[str, str]:
        """Every leased address and the uid of its pod ("" where a damaged lease does not tell)."""
        return self._pool.leases()

    def check_conflicts(self) -> None:
        """Raise HostError where a route or a link of the host is in the way of the subnet or the bridge's name."""
        with Netlink() as host:
            self._bridge.check_conflicts(host)

    def publish(self, uid: str, ports: Sequence[HostPort]) -> None:
        """Lead ports of the host to an attached pod, in place of those it had; detach() takes them away.

        Raises Conflict naming the owner of a port, BadInput, NotSupported on an internal network.
        """
        check_uid(uid)
        wanted = [checked(port) for port in ports]
        if wanted and self.internal:
            raise NotSupported(f"hostPort '{wanted[0]}' on an internal network", remedy="run without --internal")
        with self._bridge.locked():
            if self._pool.find(uid) is None:
                raise BadInput(f"pod '{uid}' has no address to publish ports of")
            had = self._ports.of(uid)
            for port in wanted:
                if port not in had:
                    check_unused(port)
            self._ports.write(uid, wanted)
            with Netlink() as host:
                self._bridge.set_up(host, self._published())
                self._bridge.publish(self._published())
                if wanted:
                    host.request(links.set_hairpin(link_name(uid)))

    def repair(self, pods: Callable[[], Mapping[str, Path | None]]) -> list[str]:
        """Make what is there what should be there; says what it did, nothing when all was well.

        `pods` answers every pod of this network by uid, with the file its network namespace is pinned at (None where
        it cannot be reached: such a pod's missing link stays missing). Others' leases, links and ports are removed.
        It is asked after the kernel and the leases were: a pod that comes meanwhile is in its answer, or had not begun.
        """
        done = []
        leases, published = self.leases(), self._ports.uids()
        with Netlink() as host:
            links_there = veth.pod_links(host, self._bridge.name, f"{self._bridge.alias} pod ")
            wanted = pods()
            for address, uid in leases.items():
                if uid not in wanted:
                    self._forget(address, uid)
                    done.append(f"freed address '{address}' of gone pod '{uid}'")
            for uid in published:
                if uid not in wanted:
                    self.detach(uid)
                    done.append(f"withdrew the ports of gone pod '{uid}'")
            strange = sorted(links_there - {link_name(uid) for uid in wanted})
            veth.delete_together(host, strange)
            done += [f"deleted link '{name}' of a gone pod" for name in strange]
            leased = set(self.leases().values())
            if not leased:
                self._tear_down_unused(host)
                return done
            with self._bridge.locked():
                done += self._bridge.repair(host, self._published())
        for uid in wanted:
            if uid in leased:
                done += self._repair_link(uid, wanted[uid])
        return done

    def _attachment(self, uid: str, address: str) -> Attachment:
        gateway = ip_text(self._subnet.gateway)
        return Attachment(address, self._subnet.prefix, gateway, link_name(uid), mac_of(ip_number(address)).hex(":"))

    @contextmanager
    def _bridge_ready(self) -> Iterator[tuple[Netlink, int]]:
        """A socket of the host and the bridge's index; the bridge stays for as long as the body runs."""
        with Netlink() as host:
            with self._bridge.locked(fcntl.LOCK_SH):
                index = self._bridge.ready(host)
                if index:
                    yield host, index
                    return
            with self._bridge.locked():
                yield host, self._bridge.set_up(host, self._published())

    def _join(self, host: Netlink, bridge: int, uid: str, attachment: Attachment, netns_fd: int) -> None:
        """The pair and the pod's side of it."""
        with entered(netns_fd):
            inside = pod.prepare()
        with inside:
            address = ip_number(attachment.address)
            alias = f"{self._bridge.alias} pod {uid}"
            index = veth.connect(host, inside, attachment.link, alias, bridge, address, netns_fd)
            gateway = None if self.internal else self._subnet.gateway
            pod.configure(inside, index, address, attachment.prefix, gateway)

    def _repair_link(self, uid: str, netns: Path | None) -> list[str]:
        name = link_name(uid)
        with Netlink() as host:
            link, bridge = links.find(host, name), links.find(host, self._bridge.name)
        if link is not None and bridge is not None and link.master == bridge.ifindex and link.up:
            return []
        if netns is None:
            return [f"link '{name}' of pod '{uid}' is broken, and its namespace cannot be reached"]
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._bridge_ready() as (host, index):
                self._join(host, index, uid, self._attachment(uid, self._pool.acquire(uid)), fd)
                if self._ports.of(uid):
                    host.request(links.set_hairpin(name))
        finally:
            os.close(fd)
        return [f"connected pod '{uid}' again"]

    def _forget(self, address: str, uid: str) -> None:
        if _UID.fullmatch(uid):
            self.detach(uid)
        self._pool.forget(address)

    def _published(self, without: str = "") -> list[tuple[HostPort, str]]:
        """Every hostPort with its pod's address."""
        addresses = {uid: address for address, uid in self.leases().items() if uid != without}
        return [
            (port, addresses[uid]) for uid in self._ports.uids() if uid in addresses for port in self._ports.of(uid)
        ]

    def _tear_down_unused(self, host: Netlink) -> None:
        if self._pool.empty():
            with self._bridge.locked():
                if self._pool.empty():
                    self._bridge.tear_down(host)


def check_uid(uid: str) -> None:
    """Raise BadInput for a uid that cannot be a file's name."""
    if not _UID.fullmatch(uid):
        raise BadInput(f"pod uid '{uid}' is not made of letters, digits, '-', '_' and '.'")
