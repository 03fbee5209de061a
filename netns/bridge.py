"""The bridge on the host with what belongs to it: address, sysctls, table of rules, published ports.

The caller holds the lock, alone for everything but `ready()`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from kernel.errors import BadInput, HostError
from netns import firewall, links, ruleset
from netns.addresses import Subnet, ip_text
from netns.links import RTN_LOCAL, RTN_UNICAST, Link
from netns.netlink import NETLINK_NETFILTER, Netlink
from netns.pod import read_sysctl, write_sysctl
from netns.ports import HostPort

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ, and a word in nft's language

Published = Sequence[tuple[HostPort, str]]


class Bridge:
    """A bridge by name. Its alias says which state directory it serves, so that no two instances share one."""

    def __init__(self, name: str, subnet: Subnet, state: Path, internal: bool) -> None:
        if not _NAME.fullmatch(name) or name in ("all", "default"):
            raise BadInput(f"bridge '{name}' is not a link's name: up to 15 letters, digits, '-', '_' and '.'")
        self.name = name
        self.alias = f"rawpod {state}"[:200]
        self._subnet = subnet
        self._internal = internal
        self._mark = state / "network" / "firewall"
        self._lock = state / "network" / "lock"
        self._held = -1
        self._table = firewall.table_of(name)

    @contextmanager
    def locked(self, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Hold the bridge's lock (flock(2)): shared to use the bridge, alone to change it or its rules.

        A run of nft(8) shares the hold, so that it still counts when its parent is killed in the middle.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, kind)
            yield
        finally:
            os.close(self._held)
            self._held = -1

    def ready(self, host: Netlink) -> int:
        """The bridge's index if it is complete with its rules, else 0."""
        link = links.find(host, self.name)
        if link is None or not link.up or not self._is_ours(link):
            return 0
        with Netlink(NETLINK_NETFILTER) as nftables:
            return link.ifindex if self._intact(nftables) else 0

    def set_up(self, host: Netlink, published: Published) -> int:
        """Make what is missing, in an order that ends with setting the bridge up. Returns its index."""
        index = self.ready(host)
        if index:
            return index
        self.check_conflicts(host)
        elements = [ruleset.text_of(ruleset.element_of(*one)) for one in published]
        transaction = firewall.Transaction(self._rules(elements), self._held)
        try:
            index = self._make(host)
        finally:
            transaction.wait()
        self._allow_loopback(published)
        with Netlink(NETLINK_NETFILTER) as nftables:
            self._mark.write_text(self._expected(nftables))
        host.request(links.set_up(self.name))
        return index

    def tear_down(self, host: Netlink) -> None:
        """Remove bridge and rules, if they are there and ours. ip_forward stays: others may rely on it by now."""
        link = links.find(host, self.name)
        if link is not None and not self._is_ours(link):
            return
        with Netlink(NETLINK_NETFILTER) as nftables:
            there = ruleset.exists(nftables, self._table)
        rules = firewall.Transaction(firewall.removal(self.name), self._held) if there else None
        try:
            if link is not None:
                host.request(links.del_link(self.name))
        finally:
            if rules is not None:
                rules.wait()
        self._mark.unlink(missing_ok=True)

    def repair(self, host: Netlink, published: Published) -> list[str]:
        """Restore what somebody else took away; says what."""
        done = []
        if not self.ready(host):
            self.set_up(host, published)
            done.append(f"restored bridge '{self.name}' and its rules")
        else:
            self._address(host)
        if self._needs_forwarding() and write_sysctl("net/ipv4/ip_forward", "1"):
            done.append("switched on net.ipv4.ip_forward")
        if self.publish(published):
            done.append("restored the published ports")
        return done

    def publish(self, published: Published) -> bool:
        """Make the map of hostPorts hold these and no others; whether that was a change."""
        with Netlink(NETLINK_NETFILTER) as nftables:
            there = ruleset.elements(nftables, self._table, firewall.MAP)
        wanted = {ruleset.element_of(*one) for one in published}
        text = firewall.change(
            self.name,
            add=map(ruleset.text_of, sorted(wanted - there)),
            remove=map(ruleset.text_of, sorted(there - wanted)),
        )
        if text:
            firewall.Transaction(text, self._held).wait()
        self._allow_loopback(published)
        return bool(text)

    def check_conflicts(self, host: Netlink) -> None:
        """Raise HostError where the name is another's link, or a route leads into the subnet."""
        link = links.find(host, self.name)
        if link is not None and not self._is_ours(link):
            raise HostError(
                f"link '{self.name}' exists and is not this rawpod's bridge ({link.kind or 'link'}, '{link.alias}')",
                remedy="choose another name with --bridge",
            )
        for body in host.request(links.get_routes())[0]:
            route = links.read_route(body)
            if route.kind not in (RTN_UNICAST, RTN_LOCAL) or route.prefix <= 1:
                continue  # a default route, or one of the two halves that VPNs put before it
            if link is not None and route.link == link.ifindex:
                continue
            if self._subnet.overlaps(route.destination, route.prefix):
                raise HostError(
                    f"subnet '{self._subnet}' overlaps the host's route "
                    f"'{ip_text(route.destination)}/{route.prefix}' on link {self._link_text(host, route.link)}",
                    remedy="choose another with --subnet",
                )

    def _make(self, host: Netlink) -> int:
        mac = b"\x0a\x58" + self._subnet.gateway.to_bytes(4, "big")
        name = self.name
        host.request(links.new_bridge(name, mac), links.alias_link(name, self.alias), links.silence_link(name))
        # A pod must not be able to advertise itself as the host's IPv6 router (CVE-2020-13401).
        for key, value in (("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "1")):
            write_sysctl(f"net/ipv6/conf/{name}/{key}", value)
        if self._needs_forwarding():
            write_sysctl("net/ipv4/ip_forward", "1")
        return self._address(host)

    def _address(self, host: Netlink) -> int:
        link = links.find(host, self.name)
        if link is None:
            raise HostError(f"bridge '{self.name}' vanished while it was made", remedy="try again")
        host.request(links.new_address(link.ifindex, self._subnet.gateway, self._subnet.prefix))
        return link.ifindex

    def _allow_loopback(self, published: Published) -> None:
        """Let the host reach hostPorts at 127.0.0.1: the chain `guard` must be there before."""
        if published:
            write_sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")

    def _needs_forwarding(self) -> bool:
        return not self._internal and read_sysctl("net/ipv4/ip_forward") != "1"

    def _is_ours(self, link: Link) -> bool:
        return link.kind == "bridge" and link.alias == self.alias

    def _rules(self, elements: Sequence[str] = ()) -> str:
        return firewall.rules(self.name, self._subnet, elements, internal=self._internal)

    def _expected(self, nftables: Netlink) -> str:
        """What the kernel holds, with a mark of what was meant: another subnet or mode makes other rules."""
        return f"{ruleset.fingerprint(nftables, self._table)} {crc32(self._rules().encode()):08x}"

    def _intact(self, nftables: Netlink) -> bool:
        try:
            return self._mark.read_text() == self._expected(nftables)
        except (FileNotFoundError, ValueError):
            return False

    def _link_text(self, host: Netlink, index: int) -> str:
        for body in host.request(links.get_links())[0]:
            link = links.read_link(body)
            if link.ifindex == index:
                return f"'{link.name}'"
        return str(index)
