"""Which pod has which address of a subnet."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kernel.errors import BadInput, HostError
from kernel.leases import Leases


class Subnet(NamedTuple):
    """An IPv4 network: the first host is the gateway, the others are for pods."""

    network: int
    prefix: int

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """From "10.88.0.0/16"; raises BadInput."""
        address, slash, length = text.partition("/")
        try:
            network = ip_number(address)
        except OSError:
            raise BadInput(f"subnet '{text}' is not an IPv4 network such as '10.88.0.0/16'") from None
        if not slash or not length.isascii() or not length.isdigit() or not 8 <= int(length) <= 30:
            raise BadInput(f"subnet '{text}' needs a prefix length from 8 to 30")
        subnet = cls(network, int(length))
        if network & (subnet.size - 1):
            right = ip_text(network & ~(subnet.size - 1))
            raise BadInput(f"subnet '{text}' has bits set beyond its prefix", remedy=f"perhaps '{right}/{length}'")
        return subnet

    def __str__(self) -> str:
        return f"{ip_text(self.network)}/{self.prefix}"

    @property
    def size(self) -> int:
        """Addresses in it, the network's own and the broadcast address counted."""
        return 1 << 32 - self.prefix

    @property
    def gateway(self) -> int:
        """The bridge's address."""
        return self.network + 1

    def overlaps(self, network: int, prefix: int) -> bool:
        """Whether it shares an address with another network."""
        shift = 32 - min(self.prefix, prefix)
        return self.network >> shift == network >> shift


def ip_number(text: str) -> int:
    """ "10.88.0.5" as a number; raises OSError."""
    number: int = struct.unpack("!I", socket.inet_pton(socket.AF_INET, text))[0]
    return number


def ip_text(number: int) -> str:
    """A number as "10.88.0.5"."""
    return socket.inet_ntop(socket.AF_INET, struct.pack("!I", number))


class Pool:
    """The addresses of a subnet, and who has them, as files below `state`."""

    def __init__(self, state: Path, subnet: Subnet) -> None:
        self.subnet = subnet
        network = state / "network"
        self._leases = Leases(network / "owners", state / "addresses", network / "cursor", "address")

    def acquire(self, uid: str) -> str:
        """The pod's address: the one it has, or the next free one. Raises HostError when none is left.

        The search goes on after the last address given: neighbours may still know the former owner of one just freed.
        """
        address = self._leases.acquire(uid, self._after)
        if address is None:
            raise HostError(f"no address is free in subnet '{self.subnet}'", remedy="choose a larger one with --subnet")
        return address

    def release(self, uid: str) -> None:
        """Free the pod's address; nothing to do where it has none."""
        self._leases.release(uid)

    def find(self, uid: str) -> str | None:
        """The pod's address, if it has one."""
        return self._leases.find(uid)

    def leases(self) -> dict[str, str]:
        """Every lease: address to uid. One whose owner's name is gone is known by what the file says, or as ""."""
        return self._leases.all()

    def forget(self, address: str) -> None:
        """Free an address whose owner's name is gone."""
        self._leases.forget(address)

    def empty(self) -> bool:
        """Whether no address is leased."""
        return self._leases.empty()

    def _after(self, last: int) -> Iterator[tuple[int, str]]:
        usable = self.subnet.size - 3  # neither the network, nor the gateway, nor the broadcast address
        for step in range(usable):
            offset = 2 + (max(last, 1) - 1 + step) % usable
            yield offset, ip_text(self.subnet.network + offset)
