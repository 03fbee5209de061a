"""Which pod has which address: leases that survive crashes, and allocation among many processes.

A lease is one inode with two names, `owners/UID` and `addresses/IP`. link(2) makes the second name only where it is
free, so no address is given twice, and a process killed at any step leaves either no lease or one that is found by
the pod's uid. What the file holds (the uid, then the address) is for readers; the names and the inode are the truth.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kernel import events
from kernel.errors import BadInput, HostError


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
        self._addresses = state / "addresses"
        self._owners = state / "network" / "owners"
        self._cursor = state / "network" / "cursor"

    def acquire(self, uid: str) -> str:
        """The pod's address: the one it has, or the next free one. Raises HostError when none is left.

        The search goes on after the last address given (next fit), so that one just freed rests for as long as
        possible: neighbours may still know its former owner.
        """
        owner = self._owners / uid
        with self._locked() as cursor:
            address = self._address_of(owner)
            if address is None:
                with events.report("lease", uid=uid):
                    owner.write_text(f"{uid}\n")
                offset = self._link_next(owner, _read_number(cursor))
                address = ip_text(self.subnet.network + offset)
                os.pwrite(cursor, b"%010d\n" % offset, 0)
                with events.report("lease", uid=uid, address=address):
                    owner.write_text(f"{uid}\n{address}\n")
        return address

    def release(self, uid: str) -> None:
        """Free the pod's address; nothing to do where it has none."""
        owner = self._owners / uid
        if not owner.exists():
            return
        with self._locked():
            address = self._address_of(owner)
            if address is not None:
                with events.report("release", uid=uid, address=address):
                    (self._addresses / address).unlink(missing_ok=True)
            with events.report("release", uid=uid):
                owner.unlink(missing_ok=True)

    def find(self, uid: str) -> str | None:
        """The pod's address, if it has one."""
        return self._address_of(self._owners / uid)

    def leases(self) -> dict[str, str]:
        """Every lease: address to uid. One whose owner's name is gone is known by what the file says, or as ""."""
        owners = {entry.inode(): entry.name for entry in _entries(self._owners)}
        return {
            entry.name: owners.get(entry.inode()) or _first_line(Path(entry.path))
            for entry in _entries(self._addresses)
        }

    def forget(self, address: str) -> None:
        """Free an address whose owner's name is gone."""
        with events.report("release", address=address):
            (self._addresses / address).unlink(missing_ok=True)

    def empty(self) -> bool:
        """Whether no address is leased."""
        return not _entries(self._addresses)

    def _link_next(self, owner: Path, last: int) -> int:
        usable = self.subnet.size - 3  # neither the network, nor the gateway, nor the broadcast address
        taken: frozenset[str] = frozenset()
        for step in range(usable):
            offset = 2 + (last - 1 + step) % usable
            address = ip_text(self.subnet.network + offset)
            if address in taken:
                continue
            try:
                with events.report("link", address=address):
                    os.link(owner, self._addresses / address)
                return offset
            except FileExistsError:
                taken = frozenset(os.listdir(self._addresses))
        owner.unlink()
        raise HostError(f"no address is free in subnet '{self.subnet}'", remedy="choose a larger one with --subnet")

    def _address_of(self, owner: Path) -> str | None:
        try:
            status = owner.stat()
            hint = owner.read_bytes().split(b"\n")[1:2]
        except FileNotFoundError:
            return None
        if status.st_nlink < 2:
            return None
        if hint and hint[0]:
            try:
                address = hint[0].decode()
                if os.path.samestat((self._addresses / address).stat(), status):
                    return address
            except (OSError, ValueError):
                pass  # the file was damaged: the inode tells
        return next((entry.name for entry in _entries(self._addresses) if entry.inode() == status.st_ino), None)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        for directory in (self._addresses, self._owners):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._cursor, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def _read_number(fd: int) -> int:
    text = os.pread(fd, 16, 0).strip()
    return int(text) if text.isdigit() else 1


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""
