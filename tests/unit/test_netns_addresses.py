"""Leases: nobody gets another's address, whatever happened to the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput, HostError
from netns.addresses import Pool, Subnet, ip_number


def pool(path: Path, subnet: str = "10.0.0.0/29") -> Pool:
    return Pool(path, Subnet.parse(subnet))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.0", "prefix length"),
        ("10.0.0.0/", "prefix length"),
        ("10.0.0.0/31", "prefix length"),
        ("10.0.0.0/7", "prefix length"),
        ("10.0.0.0/ 8", "prefix length"),
        ("10.0.0.0/²4", "prefix length"),
        ("10.0.0.1/24", "perhaps '10.0.0.0/24'"),
        ("10.0/16", "not an IPv4 network"),
        ("fd00::/64", "not an IPv4 network"),
        ("", "not an IPv4 network"),
    ],
)
def test_a_wrong_subnet_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        Subnet.parse(text)


def test_overlap_is_seen_both_ways() -> None:
    subnet = Subnet.parse("10.88.0.0/16")
    assert subnet.overlaps(ip_number("10.88.7.0"), 24)
    assert subnet.overlaps(ip_number("10.0.0.0"), 8)
    assert not subnet.overlaps(ip_number("10.89.0.0"), 16)


def test_every_address_is_used_once_and_then_none_is_left(tmp_path: Path) -> None:
    given_out = [pool(tmp_path).acquire(f"pod{i}") for i in range(5)]
    assert given_out == [f"10.0.0.{i}" for i in range(2, 7)]
    with pytest.raises(HostError, match=r"no address is free in subnet '10.0.0.0/29' \(.*--subnet\)"):
        pool(tmp_path).acquire("late")
    assert pool(tmp_path).find("late") is None
    pool(tmp_path).release("pod3")
    assert pool(tmp_path).acquire("late") == "10.0.0.5"


def test_a_freed_address_is_the_last_to_be_given_again(tmp_path: Path) -> None:
    first = pool(tmp_path).acquire("one")
    later = []
    for i in range(5):
        pool(tmp_path).release("one" if i == 0 else f"next{i - 1}")
        later.append(pool(tmp_path).acquire(f"next{i}"))
    assert later.index(first) == 4


def test_a_pod_keeps_its_address(tmp_path: Path) -> None:
    address = pool(tmp_path).acquire("one")
    assert pool(tmp_path).acquire("one") == address == pool(tmp_path).find("one")
    assert pool(tmp_path).leases() == {address: "one"}


@pytest.mark.parametrize("damage", [b"", b"one\n", b"one\n10.0.0.6\n", b"\xff\n\xff\n", b"one\n../owners/one\n"])
def test_a_damaged_file_does_not_lose_the_lease(tmp_path: Path, damage: bytes) -> None:
    address = pool(tmp_path).acquire("one")
    other = pool(tmp_path).acquire("two")
    (tmp_path / "network" / "owners" / "one").write_bytes(damage)
    assert pool(tmp_path).leases() == {address: "one", other: "two"}
    assert pool(tmp_path).acquire("one") == address
    pool(tmp_path).release("one")
    assert pool(tmp_path).leases() == {other: "two"}


@pytest.mark.parametrize("damage", [b"", b"x", b"99999999", b"-4"])
def test_a_damaged_cursor_is_no_obstacle(tmp_path: Path, damage: bytes) -> None:
    pool(tmp_path).acquire("one")
    (tmp_path / "network" / "cursor").write_bytes(damage)
    assert pool(tmp_path).acquire("two") != pool(tmp_path).find("one")


def test_leases_of_an_earlier_subnet_are_kept(tmp_path: Path) -> None:
    old = pool(tmp_path).acquire("one")
    new = pool(tmp_path, "10.1.0.0/24")
    assert new.acquire("two") == "10.1.0.3"
    assert new.find("one") == old
    new.release("one")
    assert list(new.leases().values()) == ["two"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=40))
def test_no_address_has_two_pods(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]) -> None:
    state = tmp_path_factory.mktemp("pool")
    expected: dict[str, str] = {}
    for acquire, number in steps:
        uid = f"pod{number}"
        if not acquire:
            pool(state).release(uid)
            expected.pop(uid, None)
        elif uid in expected or len(expected) < 5:
            address = pool(state).acquire(uid)
            assert expected.setdefault(uid, address) == address
        assert pool(state).leases() == {address: uid for uid, address in expected.items()}
