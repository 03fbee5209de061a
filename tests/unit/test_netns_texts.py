"""The texts: rules for nft, /etc/hosts, /etc/resolv.conf, and hostPorts as they are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import BadInput, Conflict, NotSupported
from netns.addresses import Subnet
from netns.attach import Network
from netns.firewall import change, rules, table_of
from netns.hosts import host_resolv_conf, hosts_file, resolv_conf
from netns.ports import HostPort, PortBook, checked
from netns.ruleset import element_of, text_of

SUBNET = Subnet.parse("10.88.0.0/16")


def test_the_usual_bridge_has_the_usual_table() -> None:
    assert table_of("rawpod0") == "rawpod"
    assert table_of("test0") == "rawpod_test0"


def test_only_an_internal_network_is_without_masquerade() -> None:
    masquerade = 'ip saddr 10.88.0.0/16 oifname != "rawpod0" masquerade'
    assert masquerade in rules("rawpod0", SUBNET, [], internal=False)
    internal = rules("rawpod0", SUBNET, [], internal=True)
    assert masquerade not in internal
    assert 'iifname "rawpod0" ip daddr != 10.88.0.1 drop' in internal


def test_debian_12_knows_every_word() -> None:
    assert "destroy" not in rules("rawpod0", SUBNET, [], internal=True) + change("rawpod0", add=["x"], remove=["y"])


@pytest.mark.parametrize("port", [HostPort("0.0.0.0", 8080, 80, "tcp"), HostPort("192.0.2.1", 65535, 1, "sctp")])
def test_an_element_is_written_as_it_was_read(port: HostPort) -> None:
    host = "0.0.0.0/0" if port.host_ip == "0.0.0.0" else port.host_ip
    text = text_of(element_of(port, "10.88.0.5"))
    assert text == f"{host} . {port.protocol} . {port.host_port} : 10.88.0.5 . {port.container_port}"


def test_no_change_is_no_text() -> None:
    assert change("rawpod0", add=[], remove=[]) == ""


@pytest.mark.parametrize(
    ("port", "error", "complaint"),
    [
        (HostPort("", 0, 80), BadInput, "hostPort '0'"),
        (HostPort("", 80, 65536), BadInput, "containerPort '65536'"),
        (HostPort("", 80, 80, "ICMP"), BadInput, "protocol 'ICMP'"),
        (HostPort("here", 80, 80), BadInput, "hostIP 'here'"),
        (HostPort("1.2.3.4; flush ruleset", 80, 80), BadInput, "hostIP"),
        (HostPort("::1", 80, 80), NotSupported, "IPv4"),
    ],
)
def test_a_wrong_host_port_is_refused(port: HostPort, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        checked(port)


def test_a_host_port_has_one_form() -> None:
    assert checked(HostPort("", 80, 8080)) == HostPort("0.0.0.0", 80, 8080, "tcp")


def test_the_book_names_the_owner(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports")
    book.write("one", [HostPort("192.0.2.1", 80, 80, "tcp")])
    book.write("two", [HostPort("192.0.2.2", 80, 80, "tcp"), HostPort("192.0.2.1", 80, 80, "udp")])
    with pytest.raises(Conflict, match="belongs to pod 'one'"):
        book.write("three", [HostPort("192.0.2.1", 80, 81, "tcp")])
    with pytest.raises(Conflict, match="belongs to pod"):
        book.write("three", [HostPort("0.0.0.0", 80, 81, "tcp")])
    assert book.uids() == ["one", "two"]
    book.remove("one")
    book.write("three", [HostPort("192.0.2.1", 80, 81, "tcp")])


def test_a_damaged_page_of_the_book_is_no_obstacle(tmp_path: Path) -> None:
    book = PortBook(tmp_path)
    for text in (b"\xff\xfe", b"0.0.0.0 x y tcp\n", b"0.0.0.0 80\n"):
        (tmp_path / "one").write_bytes(text)
        assert book.of("one") == []
        assert book.has("one")


@pytest.mark.parametrize("bridge", ["", "a" * 16, 'x"; flush', "1st", "a/b", "all"])
def test_a_bridges_name_cannot_be_anything_else(bridge: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bridge"):
        Network(bridge, "10.88.0.0/16", tmp_path)


def test_hosts_has_loopback_the_pod_and_its_aliases() -> None:
    text = hosts_file("web-1", "10.88.0.5", [("192.0.2.9", ["db", "db.example"])])
    assert text.splitlines()[-2:] == ["10.88.0.5\tweb-1", "192.0.2.9\tdb db.example"]
    assert text.startswith("127.0.0.1\tlocalhost\n::1\t")


def test_a_pod_is_not_sent_to_the_hosts_loopback() -> None:
    text = "# made by hand\nsearch example\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\noptions edns0"
    assert resolv_conf(text) == "# made by hand\nsearch example\nnameserver 192.0.2.53\noptions edns0\n"


def test_behind_a_stub_are_the_real_servers(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("# nameserver of systemd\nnameserver 127.0.0.53\n")
    assert "192.0.2.53" not in host_resolv_conf(tmp_path)
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    (tmp_path / "run/systemd/resolve/resolv.conf").write_text("nameserver 192.0.2.53\n")
    assert host_resolv_conf(tmp_path) == "nameserver 192.0.2.53\n"


def test_a_host_without_resolv_conf_gives_an_empty_one(tmp_path: Path) -> None:
    assert host_resolv_conf(tmp_path) == ""
