"""A pod gets on the bridge and off it, and others who do so at once do not disturb it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kernel import events
from kernel.errors import BadInput, HostError
from netns import links
from netns.attach import Network
from netns.namespace import entered
from netns.netlink import Netlink
from netns.pod import read_sysctl
from runtime.settings import Settings
from tests.netns_lab import Lab, Namespace, internal, lab, run

__all__ = ["internal", "lab"]


def exists(name: str) -> bool:
    with Netlink() as host:
        return links.find(host, name) is not None


def test_a_pod_has_a_link_an_address_and_a_route(lab: Lab) -> None:
    pod, attachment = lab.pod("one")
    assert f"inet {attachment.address}/{attachment.prefix} brd" in pod.run("ip", "address", "show", "eth0")
    assert f"default via {attachment.gateway} dev eth0" in pod.run("ip", "route")
    assert attachment.mac in pod.run("ip", "link", "show", "eth0")
    assert "UP,LOWER_UP" in pod.run("ip", "link", "show", "lo")
    assert f"master {lab.bridge}" in run("ip", "link", "show", attachment.link)
    assert lab.network.lease("one") == attachment
    assert lab.network.leases() == {attachment.address: "one"}


def test_nothing_is_left_when_the_last_pod_is_gone(lab: Lab) -> None:
    lab.pod("one")
    lab.pod("two")
    lab.network.detach("one")
    assert exists(lab.bridge)
    lab.network.detach("two")
    assert not exists(lab.bridge)
    assert f"rawpod_{lab.bridge}" not in run("nft", "list", "tables")
    assert lab.network.leases() == {}


def test_attaching_again_keeps_address_and_link(lab: Lab) -> None:
    pod, first = lab.pod("one")
    with Netlink() as host:
        before = links.find(host, first.link)
        assert lab.network.attach("one", pod.fd) == first
        assert links.find(host, first.link) == before


def test_attaching_a_new_namespace_keeps_the_address(lab: Lab) -> None:
    _, first = lab.pod("one")
    old = lab.namespaces["one"]
    again, second = lab.pod("one")
    old.close()
    assert second == first
    assert first.address in again.run("ip", "address", "show", "eth0")


def test_detaching_what_is_not_there_is_no_error(lab: Lab) -> None:
    lab.network.detach("never")
    lab.network.detach("never", namespace_gone=True)


def test_a_freed_address_rests(lab: Lab) -> None:
    _, first = lab.pod("one")
    lab.pod("two")
    lab.network.detach("one")
    assert lab.pod("three")[1].address != first.address


def test_a_pod_takes_no_router_advertisement(lab: Lab) -> None:
    pod, attachment = lab.pod("one")
    with entered(pod.fd):
        assert read_sysctl("net/ipv6/conf/eth0/accept_ra") == "0"
        assert read_sysctl("net/ipv6/conf/eth0/disable_ipv6") == "1"
    assert read_sysctl(f"net/ipv6/conf/{lab.bridge}/disable_ipv6") == "1"
    assert read_sysctl(f"net/ipv6/conf/{lab.bridge}/accept_ra") == "0"
    for link in (lab.bridge, attachment.link):
        assert "inet6" not in run("ip", "address", "show", link)


def test_the_loopback_has_ipv6(lab: Lab) -> None:
    pod, _ = lab.pod("one")
    with entered(pod.fd), socket.socket(socket.AF_INET6) as server:
        server.bind(("::1", 0))


def test_forwarding_is_switched_on_where_it_is_needed(internal: Lab, settings: Settings) -> None:
    run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    internal.pod("inside")
    assert read_sysctl("net/ipv4/ip_forward") == "0"
    internal.network.detach("inside")
    with Namespace() as namespace:
        network = Network(settings.bridge, settings.subnet, settings.state)
        network.attach("outgoing", namespace.fd)
        assert read_sysctl("net/ipv4/ip_forward") == "1"
        network.detach("outgoing")


@pytest.mark.parametrize("inner", [True, False])
def test_a_route_into_the_subnet_is_a_conflict(lab: Lab, settings: Settings, inner: bool) -> None:
    base = settings.subnet.removesuffix(".0.0/16")
    route = f"{base}.7.0/24" if inner else "10.0.0.0/8"
    run("ip", "link", "add", "other", "type", "bridge")
    try:
        run("ip", "link", "set", "other", "up")
        run("ip", "route", "add", route, "dev", "other")
        with pytest.raises(HostError, match=rf"'{route}' on link 'other' \(choose another with --subnet\)"):
            lab.network.check_conflicts()
        with pytest.raises(HostError, match="--subnet"), Namespace() as namespace:
            lab.network.attach("one", namespace.fd)
        assert not exists(lab.bridge)
        assert lab.network.leases() == {}
    finally:
        run("ip", "link", "delete", "other")


def test_default_routes_are_no_conflict(lab: Lab) -> None:
    run("ip", "link", "add", "other", "type", "bridge")
    try:
        run("ip", "link", "set", "other", "up")
        for route in ("default", "0.0.0.0/1", "128.0.0.0/1"):
            run("ip", "route", "add", route, "dev", "other")
        lab.network.check_conflicts()
    finally:
        run("ip", "link", "delete", "other")


def test_another_link_of_the_bridges_name_is_left_alone(lab: Lab) -> None:
    run("ip", "link", "add", lab.bridge, "type", "bridge")
    try:
        with pytest.raises(HostError, match="choose another name with --bridge"), Namespace() as namespace:
            lab.network.attach("one", namespace.fd)
        assert exists(lab.bridge)
    finally:
        run("ip", "link", "delete", lab.bridge)


def test_two_instances_do_not_share_a_bridge(lab: Lab, settings: Settings, tmp_path: Path) -> None:
    lab.pod("one")
    other = Network(settings.bridge, settings.subnet, tmp_path)
    with pytest.raises(HostError, match="--bridge"), Namespace() as namespace:
        other.attach("two", namespace.fd)
    assert exists(lab.bridge)
    assert other.leases() == {}


def test_a_hundred_pods_of_eight_processes_have_addresses_of_their_own(lab: Lab, settings: Settings) -> None:
    children = []
    for worker in range(8):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                network = Network(settings.bridge, settings.subnet, settings.state)
                for number in range(worker, 100, 8):
                    with Namespace() as namespace:
                        network.attach(f"pod-{number}", namespace.fd)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    leases = lab.network.leases()
    assert sorted(leases.values()) == sorted(f"pod-{number}" for number in range(100))
    assert lab.network.repair(dict) != []
    assert lab.network.leases() == {}
    assert not exists(lab.bridge)


def test_a_name_that_is_no_files_name_is_refused(lab: Lab) -> None:
    for uid in ("", "../up", ".hidden", "a/b", "a\nb"):
        with pytest.raises(BadInput, match="uid"):
            lab.network.attach(uid, -1)


def test_every_request_is_seen(lab: Lab) -> None:
    seen: list[str] = []
    unsubscribe = events.subscribe(lambda event: seen.append(event.name))
    try:
        lab.pod("one")
    finally:
        unsubscribe()
    for name in ("lease", "link", "RTM_NEWLINK", "RTM_NEWADDR", "RTM_NEWROUTE", "nft", "sysctl", "setns"):
        assert name in seen
