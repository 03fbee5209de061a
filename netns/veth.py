"""A pod's veth pair on the host: named, made, deleted, and found when nobody knows it any more."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from netns import links, pod
from netns.netlink import Netlink

_GROUP_OF_THE_DEAD = 0x72700000  # "rp", with a pid in the lower bits
_PATIENCE = 0.005  # seconds; a namespace that is alone in dying takes 2 ms, a request 20 ms


def link_name(uid: str) -> str:
    """The name of the pod's link on the host."""
    from hashlib import sha256

    return f"rp{sha256(uid.encode()).hexdigest()[:12]}"


def mac_of(address: int) -> bytes:
    """The MAC address that goes with an address, so that a neighbour's old entry is right for the next owner too."""
    return b"\x0a\x58" + address.to_bytes(4, "big")


def connect(host: Netlink, inside: Netlink, name: str, alias: str, bridge: int, address: int, netns_fd: int) -> int:
    """Make the pair, or keep it where both ends know each other. Returns the index of the pod's end."""
    ours, there = links.find(host, name), links.find(inside, pod.LINK)
    if ours and there and (ours.peer, there.peer) == (there.ifindex, ours.ifindex):
        host.request(links.set_master(name, bridge), links.set_up(name))
        return there.ifindex
    if ours:
        host.request(links.del_link(name))
    host.request(
        links.new_veth(name, bridge, pod.LINK, mac_of(address), netns_fd),
        links.alias_link(name, alias),
        links.silence_link(name),
        links.set_up(name),
    )
    there = links.find(inside, pod.LINK)
    assert there is not None  # made in the same request as ours
    return there.ifindex


def delete(host: Netlink, name: str, *, namespace_gone: bool) -> None:
    """Delete the pair, if it is there. With `namespace_gone` the kernel is at it: wait a little for its word."""
    if namespace_gone:
        with Netlink(groups=(links.RTNLGRP_LINK,)) as notices:
            if links.find(host, name) is None or _wait_deleted(notices, name):
                return
    if links.find(host, name) is not None:
        host.request(links.del_link(name))


def pod_links(host: Netlink, bridge: str, alias: str) -> set[str]:
    """The names of all links of ours: on the bridge, or with an alias that begins so."""
    found = [links.read_link(body) for body in host.request(links.get_links())[0]]
    port_of = next((link.ifindex for link in found if link.name == bridge and link.kind == "bridge"), -1)
    return {
        link.name
        for link in found
        if link.kind == "veth" and link.name.startswith("rp")
        if link.master == port_of or link.alias.startswith(alias)
    }


def delete_together(host: Netlink, names: Sequence[str]) -> None:
    """Delete links as one group: 100 take little longer than one."""
    if names:
        group = _GROUP_OF_THE_DEAD | os.getpid() & 0xFFFFF
        host.request(*(links.set_group(name, group) for name in names))
        host.request(links.del_group(group))


def _wait_deleted(notices: Netlink, name: str) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([notices.socket], [], [], left)[0]:
            break
        try:
            gone = [links.read_link(body) for kind, body in notices.notices() if kind == links.RTM_DELLINK]
        except OSError:
            break  # so much happened that notices were lost
        # The bridge also tells that its port left, before the link is gone; that notice names no kind.
        if any(link.name == name and link.kind for link in gone):
            return True
    return False
