"""rtnetlink(7) messages for links, addresses and routes, and the answers as data."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import NamedTuple

from netns.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
)

RTNLGRP_LINK = 1

_RTM_NEWLINK, RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_GETROUTE = 20, 24, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 5, 10, 18, 20
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 26, 27, 28, 29, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = b"\1"
_IFLA_BRPORT_MODE = 4
_VETH_INFO_PEER = 1
_RTEXT_FILTER_SKIP_STATS = 8
_IFF_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE = 254, 4, 0
RTN_UNICAST, RTN_LOCAL = 1, 2

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class Link(NamedTuple):
    """A link as the kernel describes it. `peer` is a veth's other end by its index in that end's own namespace."""

    name: str
    ifindex: int
    up: bool
    kind: str
    master: int
    peer: int
    alias: str


class Route(NamedTuple):
    """An IPv4 route: where to, in which form (RTN_UNICAST …), and out of which link (0 for none or several)."""

    destination: int
    prefix: int
    kind: int
    link: int


def get_link(name: str) -> Message:
    """Ask for one link; no answer (instead of ENODEV) where there is none."""
    body = _named(name) + attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Message("RTM_GETLINK", _RTM_GETLINK, body, accept=(errno.ENODEV,), shown={"link": name})


def get_links() -> Message:
    """Ask for every link."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Message("RTM_GETLINK", _RTM_GETLINK, body, NLM_F_DUMP, shown={"link": "all"})


def new_bridge(name: str, mac: bytes) -> Message:
    """A bridge, down. With an address of its own it does not change to a port's whenever one comes or goes."""
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, "bridge"))
    body = _named(name) + attribute(_IFLA_ADDRESS, mac) + info
    shown = {"link": name, "kind": "bridge", "address": mac.hex(":")}
    return Message("RTM_NEWLINK", _RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL, (errno.EEXIST,), shown)


def new_veth(name: str, bridge: int, peer: str, peer_mac: bytes, netns_fd: int) -> Message:
    """A veth pair, down: `name` here, a port of the bridge; `peer` in the other network namespace from the start."""
    # Setting the peer up in the same message gives ENOTCONN: the two are not tied together yet.
    other = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + b"".join(
        (attribute(_IFLA_IFNAME, peer), attribute(_IFLA_ADDRESS, peer_mac), attribute(_IFLA_NET_NS_FD, netns_fd))
    )
    data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, other))
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, "veth"), data)
    body = _named(name) + attribute(_IFLA_MASTER, bridge) + info
    shown = {"link": name, "kind": "veth", "master": bridge, "peer": peer, "peer_address": peer_mac.hex(":")}
    return Message("RTM_NEWLINK", _RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL, shown=shown | {"netns_fd": netns_fd})


def silence_link(name: str) -> Message:
    """Give the link no IPv6 link-local address: must come before it is set up."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)
    body = _named(name) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    # EAFNOSUPPORT: the kernel runs without IPv6.
    accept = (errno.EAFNOSUPPORT,)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, accept=accept, shown={"link": name, "inet6": "none"})


def alias_link(name: str, alias: str) -> Message:
    """Give the link an alias: a text that ip(8) shows."""
    body = _named(name) + attribute(_IFLA_IFALIAS, alias.encode()[:255])
    return Message("RTM_SETLINK", _RTM_SETLINK, body, shown={"link": name, "alias": alias})


def set_up(name: str) -> Message:
    """Set a link up."""
    body = _named(name, flags=_IFF_UP)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, shown={"link": name, "flags": "up"})


def set_master(name: str, bridge: int) -> Message:
    """Make a link a port of the bridge, again where it was taken out."""
    body = _named(name) + attribute(_IFLA_MASTER, bridge)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, shown={"link": name, "master": bridge})


def set_hairpin(name: str) -> Message:
    """Let a bridge's port get back what it sent: a pod that reaches itself by the host's port needs it."""
    data = nested(_IFLA_INFO_SLAVE_DATA, attribute(_IFLA_BRPORT_MODE, b"\1"))
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_SLAVE_KIND, "bridge"), data)
    # RTM_NEWLINK of an existing link changes it; only this form takes the port's attributes.
    return Message("RTM_NEWLINK", _RTM_NEWLINK, _named(name) + info, shown={"link": name, "hairpin": True})


def set_group(name: str, group: int) -> Message:
    """Put a link into a group, so that many are deleted as one."""
    body = _named(name) + attribute(_IFLA_GROUP, group)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, accept=(errno.ENODEV,), shown={"link": name, "group": group})


def del_link(name: str) -> Message:
    """Delete a link, a veth's other end with it; nothing to do where there is none. Some 20 ms in the kernel."""
    return Message("RTM_DELLINK", RTM_DELLINK, _named(name), accept=(errno.ENODEV,), shown={"link": name})


def del_group(group: int) -> Message:
    """Delete all links of a group in one go."""
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(_IFLA_GROUP, group)
    return Message("RTM_DELLINK", RTM_DELLINK, body, accept=(errno.ENODEV,), shown={"group": group})


def new_address(index: int, address: int, prefix: int) -> Message:
    """Give an IPv4 address to a link, or leave it where it has it."""
    packed, broadcast = struct.pack("!I", address), struct.pack("!I", address | (1 << 32 - prefix) - 1)
    body = _IFADDR.pack(socket.AF_INET, prefix, 0, _RT_SCOPE_UNIVERSE, index) + b"".join(
        (attribute(_IFA_LOCAL, packed), attribute(_IFA_ADDRESS, packed), attribute(_IFA_BROADCAST, broadcast))
    )
    shown = {"index": index, "address": f"{socket.inet_ntoa(packed)}/{prefix}"}
    return Message("RTM_NEWADDR", _RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_REPLACE, shown=shown)


def new_default_route(index: int, gateway: int) -> Message:
    """The IPv4 default route, in place of an earlier one."""
    packed = struct.pack("!I", gateway)
    header = (socket.AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body = _ROUTE.pack(*header) + attribute(_RTA_GATEWAY, packed) + attribute(_RTA_OIF, index)
    shown = {"destination": "default", "gateway": socket.inet_ntoa(packed), "index": index}
    return Message("RTM_NEWROUTE", _RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE, shown=shown)


def get_routes() -> Message:
    """Ask for the IPv4 routes of all tables."""
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    return Message("RTM_GETROUTE", _RTM_GETROUTE, body, NLM_F_DUMP, shown={"family": "inet"})


def find(netlink: Netlink, name: str) -> Link | None:
    """The link of that name, if there is one."""
    replies = netlink.request(get_link(name))[0]
    return read_link(replies[0]) if replies else None


def read_link(body: bytes) -> Link:
    """The link in an answer to RTM_GETLINK, or in a notification."""
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body[_IFINFO.size :]))
    info = dict(attributes(found.get(_IFLA_LINKINFO, b"")))
    return Link(
        _text(found.get(_IFLA_IFNAME)),
        index,
        bool(flags & _IFF_UP),
        _text(info.get(_IFLA_INFO_KIND)),
        _number(found.get(_IFLA_MASTER)),
        _number(found.get(_IFLA_LINK)),
        _text(found.get(_IFLA_IFALIAS)),
    )


def read_route(body: bytes) -> Route:
    """The route in an answer to RTM_GETROUTE."""
    _, prefix, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
    found = dict(attributes(body[_ROUTE.size :]))
    destination = int.from_bytes(found.get(_RTA_DST, b""), "big")
    return Route(destination, prefix, kind, _number(found.get(_RTA_OIF)))


def _named(name: str, flags: int = 0) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, 0, flags, flags) + attribute(_IFLA_IFNAME, name)


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)
