"""Netlink messages are what the kernel's headers say, whatever is put into them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns import links
from netns.netlink import attribute, attributes, nested


def test_an_attribute_is_padded_and_its_length_is_not() -> None:
    assert attribute(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0\0\0\0"
    assert attribute(10, 7) == struct.pack("=HHI", 8, 10, 7)
    assert attribute(1, b"") == struct.pack("=HH", 4, 1)


@pytest.mark.parametrize("size", [65532, 65536, 65536 + 32, 1 << 20])
def test_an_attribute_whose_length_would_wrap_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        attribute(1, bytes(size))
    with pytest.raises(ValueError, match="does not fit"):
        nested(1, attribute(2, bytes(40000)), attribute(2, bytes(min(size, 40000))))


def test_the_largest_attribute_is_taken() -> None:
    assert list(attributes(attribute(1, bytes(65531)))) == [(1, bytes(65531))]


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=300)), max_size=20))
def test_attributes_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    assert list(attributes(b"".join(attribute(kind, data) for kind, data in pairs))) == pairs


@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_an_end(data: bytes) -> None:
    list(attributes(data))


def test_nested_attributes_lose_their_flag() -> None:
    ((kind, inner),) = attributes(nested(18, attribute(1, "veth")))
    assert (kind, list(attributes(inner))) == (18, [(1, b"veth\0")])


def test_a_pair_is_made_in_one_message() -> None:
    message = links.new_veth("rp0", 4, "eth0", b"\x0a\x58\0\0\0\1", 9)
    found = dict(attributes(message.body[16:]))
    assert found[3] == b"rp0\0"
    assert found[10] == struct.pack("=I", 4)
    info = dict(attributes(found[18]))
    peer = dict(attributes(info[2]))[1]
    assert dict(attributes(peer[16:])) == {3: b"eth0\0", 1: b"\x0a\x58\0\0\0\1", 28: struct.pack("=I", 9)}
