"""netlink(7): requests packed with struct, answers as attributes, errors with the kernel's own words.

Several messages go to the kernel in one send: it works through them in order, and answers each with an acknowledgement.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

from kernel import events
from kernel.errors import SystemCallError

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

NLA_F_NESTED = 0x8000

_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_RECEIVE = 1 << 17

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class NetlinkError(SystemCallError):
    """The kernel refused a netlink request; `detail` is what it said beyond the errno, often empty."""

    def __init__(self, name: str, arguments: Mapping[str, object], errno: int, detail: str = "") -> None:
        super().__init__(name, arguments, errno)
        self.detail = detail
        if detail:
            self.message += f": {detail}"


class Message(NamedTuple):
    """One request: its kernel name and number, its body without the header, and how events and errors show it.

    An errno in `accept` is an answer as good as success: that is what makes a request idempotent.
    """

    name: str
    number: int
    body: bytes
    flags: int = 0
    accept: tuple[int, ...] = ()
    shown: Mapping[str, object] = {}


def attribute(kind: int, payload: bytes | str | int) -> bytes:
    """One padded attribute: text gets its final NUL, an int is an u32 in host order.

    Raises ValueError when the payload does not fit the 16 bits of the length field, which would otherwise wrap and
    turn the payload's tail into attributes of its choosing (CVE-2021-43784).
    """
    if isinstance(payload, str):
        data = payload.encode() + b"\0"
    elif isinstance(payload, int):
        data = struct.pack("=I", payload)
    else:
        data = payload
    length = _ATTRIBUTE.size + len(data)
    if length > 0xFFFF:
        raise ValueError(f"netlink attribute {kind} of {len(data)} bytes does not fit its length field")
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message's body or of a nested attribute, in order, without their flags."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """A netlink socket of the network namespace it was opened in, wherever its process goes afterwards."""

    def __init__(self, protocol: int = NETLINK_ROUTE, groups: Iterable[int] = ()) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self.socket.bind((0, 0))  # before it has a port the kernel takes it for the sender, and tells it nothing
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, *messages: Message) -> list[list[bytes]]:
        """Send the messages at once and wait for every answer: the bodies that came for each message.

        The kernel does not stop at a failure; the first one is raised when all have been answered.
        """
        first = self._sequence + 1
        self._sequence += len(messages)
        self.socket.send(b"".join(_packed(message, first + i) for i, message in enumerate(messages)))
        replies: list[list[bytes]] = [[] for _ in messages]
        failures: list[NetlinkError] = []
        waiting = len(messages)
        while waiting:
            for kind, flags, sequence, body in _messages(self.socket.recv(_RECEIVE)):
                index = sequence - first
                if not 0 <= index < len(messages):
                    continue  # the rest of a request that was given up
                if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                    replies[index].append(body)
                    continue
                waiting -= 1
                failure = _settle(messages[index], flags, body)
                if failure is not None:
                    failures.append(failure)
        if failures:
            raise failures[0]
        return replies

    def notices(self) -> list[tuple[int, bytes]]:
        """The next datagram's notifications: number and body. Raises OSError with ENOBUFS where some were lost."""
        return [(kind, body) for kind, _, _, body in _messages(self.socket.recv(_RECEIVE))]


def _packed(message: Message, sequence: int) -> bytes:
    flags = NLM_F_REQUEST | NLM_F_ACK | message.flags
    return _HEADER.pack(_HEADER.size + len(message.body), message.number, flags, sequence, 0) + message.body


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _settle(message: Message, flags: int, body: bytes) -> NetlinkError | None:
    """Report one finished request; the error that it deserves, if any."""
    # NLMSG_DONE carries a dump's errno in the same place as NLMSG_ERROR.
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if events.instruments:
        events.emit(message.name, message.shown, None, code)
    if code == 0 or code in message.accept:
        return None
    detail = ""
    if flags & _NLM_F_ACK_TLVS:
        # After the errno comes the header of our request, without its body as it is "capped".
        start = 4 + (_HEADER.size if flags & _NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0])
        detail = dict(attributes(body[start:])).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return NetlinkError(message.name, message.shown, code, detail)
