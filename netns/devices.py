"""A network device of the host that moves into another network namespace, with its addresses."""

from __future__ import annotations

import socket
import struct
import sys

from kernel.errors import ContainerError
from kernel.record import Record
from netns.links import find, get_links, read_link
from netns.namespace import entered
from netns.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Message, Netlink, NetlinkError, attribute, attributes

_RTM_SETLINK, _RTM_NEWADDR, _RTM_GETADDR = 19, 20, 22
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD, _IFA_F_PERMANENT, _IFA_F_NOPREFIXROUTE = 0x02, 0x80, 0x200
_IFF_UP = 1
_RT_SCOPE_UNIVERSE = 0

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")


class Address(Record):
    """An address of a device: family, prefix length, what the kernel keeps of it, and its flags."""

    family: int
    prefix: int
    flags: int
    values: tuple[tuple[int, bytes], ...]


def move_device(host_name: str, name: str, netns_fd: int) -> str:
    """Move the device into the namespace, as `name` or by a template such as "eth%d"; the name it has there.

    Moving takes a device's addresses away and sets it down: the permanent global ones are given back, and it is set up
    (config-linux.md, "Network Devices"). Raises ContainerError when it is not there, cannot be moved, or when the name
    is taken.
    """
    with Netlink() as here:
        link = find(here, host_name)
        if link is None:
            raise ContainerError(f"network device {host_name!r}: no such device on the host")
        addresses = _addresses(here, link.ifindex)
        with entered(netns_fd):
            there = Netlink()
        with there:
            before = _indices(there)
            if name in before.values():
                # The kernel moves first and renames then: the device would be lost with the namespace.
                raise ContainerError(
                    f"network device {host_name!r} -> {name!r}: there is one of that name in the namespace",
                    remedy="give another name, or a template such as 'eth%d'",
                )
            try:
                here.request(_move(link.ifindex, name, netns_fd))
            except NetlinkError as error:
                what = f"network device {host_name!r} -> {name!r}: {error.strerror}"
                raise ContainerError(what, remedy=error.detail or None) from None
            (index,) = set(after := _indices(there)) - set(before)
            there.request(*(_add(index, address) for address in addresses), _set_up(index))
    return after[index]


def _indices(netlink: Netlink) -> dict[int, str]:
    links = [read_link(body) for body in netlink.request(get_links())[0]]
    return {link.ifindex: link.name for link in links}


def _addresses(netlink: Netlink, index: int) -> list[Address]:
    request = Message("RTM_GETADDR", _RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0), NLM_F_DUMP, shown={"index": index})
    found = []
    for body in netlink.request(request)[0]:
        family, prefix, flags, scope, owner = _IFADDR.unpack_from(body)
        values = dict(attributes(body[_IFADDR.size :]))
        flags = int.from_bytes(values.get(_IFA_FLAGS, bytes([flags])), sys.byteorder)
        if owner == index and scope == _RT_SCOPE_UNIVERSE and flags & _IFA_F_PERMANENT:
            kept = tuple((kind, values[kind]) for kind in (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST) if kind in values)
            found.append(Address(family, prefix, flags & (_IFA_F_NODAD | _IFA_F_NOPREFIXROUTE), kept))
    return found


def _move(index: int, name: str, netns_fd: int) -> Message:
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(_IFLA_IFNAME, name)
    body += attribute(_IFLA_NET_NS_FD, netns_fd)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, shown={"index": index, "name": name, "netns_fd": netns_fd})


def _add(index: int, address: Address) -> Message:
    body = _IFADDR.pack(address.family, address.prefix, 0, _RT_SCOPE_UNIVERSE, index)
    body += b"".join(attribute(kind, value) for kind, value in address.values)
    body += attribute(_IFA_FLAGS, address.flags | _IFA_F_PERMANENT)
    shown = {"index": index, "address": f"{socket.inet_ntop(address.family, address.values[0][1])}/{address.prefix}"}
    return Message("RTM_NEWADDR", _RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_REPLACE, shown=shown)


def _set_up(index: int) -> Message:
    body = _IFINFO.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
    return Message("RTM_SETLINK", _RTM_SETLINK, body, shown={"index": index, "flags": "up"})
