"""Who reaches whom: pods, the host, the outside; and who must not."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from kernel.errors import Conflict, HostError, NotSupported
from netns.namespace import entered
from netns.pod import read_sysctl, write_sysctl
from netns.ports import HostPort
from netns.watch import Watch
from tests.conftest import IN_TEST_MACHINE
from tests.netns_lab import HOST_ADDRESS, OUTSIDE_ADDRESS, Lab, Namespace, ask, internal, lab, outside, run

__all__ = ["internal", "lab", "outside"]

# As long as a client waits for what must not be answered; what must be takes a millisecond.
DENIED = 0.4
_BRIDGED = "net/bridge/bridge-nf-call-iptables"


@pytest.fixture(params=[True, False], ids=["bridge-nf", "plain"])
def bridged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hosts where bridged packets go through the rules as well (as Docker wants it), and hosts where they do not."""
    if IN_TEST_MACHINE:
        run("modprobe", "br_netfilter")  # not elsewhere: it would send the machine's own bridges through its rules
    if not write_sysctl(_BRIDGED, "1" if request.param else "0") and request.param:
        pytest.skip("needs br_netfilter")
    yield
    write_sysctl(_BRIDGED, "1")


def unreachable(namespace: Namespace, address: str, port: int) -> bool:
    try:
        namespace.ask(address, port, DENIED)
    except OSError:
        return True
    return False


def test_pods_reach_each_other(lab: Lab, bridged: None) -> None:
    one, first = lab.pod("one")
    two, second = lab.pod("two")
    lab.serve(one, 80)
    assert two.ask(first.address, 80) == second.address


def test_the_host_reaches_a_pod_and_a_pod_the_host(lab: Lab) -> None:
    one, first = lab.pod("one")
    lab.serve(one, 80)
    assert ask(first.address, 80) == first.gateway
    lab.serve_on_host("0.0.0.0", 8081)
    assert one.ask(first.gateway, 8081) == first.address


def test_the_outside_sees_the_hosts_address(lab: Lab, outside: Namespace, bridged: None) -> None:
    one, _ = lab.pod("one")
    lab.serve(outside, 80)
    assert one.ask(OUTSIDE_ADDRESS, 80) == HOST_ADDRESS


def test_the_outside_cannot_route_into_the_bridge(lab: Lab, outside: Namespace) -> None:
    one, first = lab.pod("one")
    lab.serve(one, 80)
    outside.run("ip", "route", "add", "default", "via", HOST_ADDRESS)
    assert unreachable(outside, first.address, 80)


def test_an_internal_pod_reaches_pods_and_the_bridge_alone(internal: Lab, outside: Namespace, bridged: None) -> None:
    one, first = internal.pod("one")
    two, second = internal.pod("two")
    internal.serve(one, 80)
    internal.serve(outside, 80)
    internal.serve_on_host("0.0.0.0", 8081)
    assert two.ask(first.address, 80) == second.address
    assert two.ask(first.gateway, 8081) == second.address
    assert unreachable(two, OUTSIDE_ADDRESS, 80)
    # A pod with CAP_NET_ADMIN may give itself the route that it was not given.
    two.run("ip", "route", "add", "default", "via", first.gateway)
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert unreachable(two, OUTSIDE_ADDRESS, 80)
    assert unreachable(two, HOST_ADDRESS, 8081)


def test_a_pod_cannot_send_from_an_address_outside_the_subnet(lab: Lab, outside: Namespace) -> None:
    one, first = lab.pod("one")
    lab.serve_on_host("0.0.0.0", 8081)
    assert one.ask(first.gateway, 8081) == first.address
    one.run("ip", "address", "add", "198.51.100.7/32", "dev", "eth0")
    one.run("ip", "route", "change", "default", "via", first.gateway, "src", "198.51.100.7")
    run("ip", "route", "add", "198.51.100.7", "dev", lab.bridge)
    assert unreachable(one, HOST_ADDRESS, 8081)


def test_a_host_port_leads_to_the_pod_from_everywhere(lab: Lab, outside: Namespace, bridged: None) -> None:
    one, first = lab.pod("one")
    two, _ = lab.pod("two")
    lab.serve(one, 80)
    lab.network.publish("one", [HostPort("", 8080, 80)])
    assert outside.ask(HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS
    assert ask(HOST_ADDRESS, 8080) in (HOST_ADDRESS, first.gateway)
    assert ask("127.0.0.1", 8080) == first.gateway
    assert two.ask(HOST_ADDRESS, 8080) == first.gateway
    assert one.ask(HOST_ADDRESS, 8080) == first.gateway, "hairpin"
    assert one.ask(first.gateway, 8080) == first.gateway
    lab.network.detach("one")
    assert unreachable(outside, HOST_ADDRESS, 8080)


def test_a_host_port_does_not_catch_what_is_meant_for_others(lab: Lab, outside: Namespace) -> None:
    one, _ = lab.pod("one")
    lab.serve(one, 80)
    lab.serve(outside, 8080)
    lab.network.publish("one", [HostPort("", 8080, 80)])
    assert one.ask(OUTSIDE_ADDRESS, 8080) == HOST_ADDRESS
    assert ask(OUTSIDE_ADDRESS, 8080) == HOST_ADDRESS


def test_a_host_port_of_one_address_is_there_alone(lab: Lab, outside: Namespace) -> None:
    one, _ = lab.pod("one")
    lab.serve(one, 80)
    lab.network.publish("one", [HostPort("127.0.0.1", 8080, 80)])
    assert ask("127.0.0.1", 8080)
    assert unreachable(outside, HOST_ADDRESS, 8080)


def test_the_hosts_loopback_stays_its_own(lab: Lab) -> None:
    one, first = lab.pod("one")
    lab.network.publish("one", [HostPort("", 8080, 80)])
    assert read_sysctl(f"net/ipv4/conf/{lab.bridge}/route_localnet") == "1"
    for route in ("127.0.0.0/8", "127.0.0.1"):
        one.run("ip", "route", "del", "table", "local", "local", route, "dev", "lo")
    one.run("ip", "route", "add", "127.0.0.1", "via", first.gateway, "src", first.address)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 8082))
        server.settimeout(DENIED)

        def heard() -> bool:
            with entered(one.fd), socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"", ("127.0.0.1", 8082))
            try:
                return server.recvfrom(1)[1][0] == first.address
            except TimeoutError:
                return False

        assert not heard()
        # What keeps it out is the rule, and the rule comes back.
        run("nft", "flush", "chain", "inet", f"rawpod_{lab.bridge}", "guard")
        assert heard()
        lab.network.repair(lambda: {"one": one.path})
        assert not heard()


def test_a_host_port_has_one_owner(lab: Lab) -> None:
    lab.pod("one")
    lab.pod("two")
    lab.network.publish("one", [HostPort("", 8080, 80), HostPort("", 8080, 80, "UDP")])
    lab.network.publish("one", [HostPort("", 8080, 80), HostPort("", 8080, 80, "UDP")])
    with pytest.raises(Conflict, match=r"hostPort '127.0.0.1:8080/tcp' belongs to pod 'one'"):
        lab.network.publish("two", [HostPort("127.0.0.1", 8080, 80)])
    with pytest.raises(Conflict, match="asked for twice"):
        lab.network.publish("two", [HostPort("", 8081, 80), HostPort("", 8081, 81)])
    lab.serve_on_host("127.0.0.1", 8083)
    with pytest.raises(Conflict, match="in use by a process of the host"):
        lab.network.publish("two", [HostPort("", 8083, 80)])
    with pytest.raises(HostError, match=r"'203\.0\.113\.9' is not an address of this host"):
        lab.network.publish("two", [HostPort("203.0.113.9", 8084, 80)])
    lab.network.detach("one")
    lab.network.publish("two", [HostPort("127.0.0.1", 8080, 80)])


def test_an_internal_pod_has_no_host_ports(internal: Lab) -> None:
    internal.pod("one")
    with pytest.raises(NotSupported, match="hostPort"):
        internal.network.publish("one", [HostPort("", 8080, 80)])


def test_what_others_took_away_comes_back(lab: Lab, outside: Namespace) -> None:
    one, first = lab.pod("one")
    two, second = lab.pod("two")
    lab.serve(one, 80)
    lab.serve(outside, 80)
    lab.network.publish("one", [HostPort("", 8080, 80)])
    pods = {"one": one.path, "two": two.path}
    assert lab.network.repair(lambda: pods) == []
    table = f"rawpod_{lab.bridge}"
    for damage in (
        ["nft", "flush", "ruleset"],
        ["nft", "flush", "chain", "inet", table, "postrouting"],
        ["nft", "flush", "map", "inet", table, "hostports"],
        ["ip", "link", "delete", first.link],
        ["ip", "link", "set", first.link, "down"],
        ["ip", "link", "set", first.link, "nomaster"],
        ["ip", "address", "flush", "dev", lab.bridge],
        ["ip", "link", "set", lab.bridge, "down"],
        ["ip", "link", "delete", lab.bridge],
        ["sysctl", "-qw", "net.ipv4.ip_forward=0"],
    ):
        run(*damage)
        lab.network.repair(lambda: pods)
        assert lab.network.repair(lambda: pods) == [], damage
        assert one.ask(OUTSIDE_ADDRESS, 80) == HOST_ADDRESS, damage
        assert two.ask(first.address, 80) == second.address, damage
        assert outside.ask(HOST_ADDRESS, 8080) == OUTSIDE_ADDRESS, damage
        assert one.ask(HOST_ADDRESS, 8080) == first.gateway, damage


def test_a_flushed_ruleset_is_no_obstacle(lab: Lab) -> None:
    lab.pod("one")
    lab.network.publish("one", [HostPort("", 8080, 80)])
    run("nft", "flush", "ruleset")
    lab.network.detach("one")
    lab.pod("two")
    run("nft", "flush", "ruleset")
    lab.network.publish("two", [HostPort("", 8080, 80)])
    assert "chain guard" in run("nft", "list", "table", "inet", f"rawpod_{lab.bridge}")


def test_what_is_taken_away_is_noticed(lab: Lab) -> None:
    _, attachment = lab.pod("one")
    with Watch() as watch:
        assert not watch.lost()
        lab.pod("two")
        watch.lost()
        for damage in (["nft", "flush", "ruleset"], ["ip", "link", "delete", attachment.link]):
            run(*damage)
            assert select.select(watch.descriptors, [], [], 5)[0]
            assert watch.lost(), damage
            assert not watch.lost()
