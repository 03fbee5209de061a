"""The pod's side of its network: what is done inside the pod's namespace."""

from __future__ import annotations

from kernel import events
from netns import links
from netns.netlink import Netlink

LINK = "eth0"

# For links that come later: pods have IPv4 only, and nobody on the bridge may give them a route (CVE-2020-13401).
_DEFAULTS = {"disable_ipv6": "1", "accept_ra": "0", "autoconf": "0", "accept_redirects": "0"}


def prepare() -> Netlink:
    """Ready the namespace the caller has entered for its link; the socket stays of this namespace."""
    for name, value in _DEFAULTS.items():
        write_sysctl(f"net/ipv6/conf/default/{name}", value)
    return Netlink()


def configure(netlink: Netlink, index: int, address: int, prefix: int, gateway: int | None) -> None:
    """Address, default route (none on an internal network) and loopback, all idempotent."""
    messages = [links.set_up("lo"), links.new_address(index, address, prefix), links.set_up(LINK)]
    if gateway is not None:
        messages.append(links.new_default_route(index, gateway))
    netlink.request(*messages)


def write_sysctl(name: str, value: str) -> bool:
    """Set /proc/sys/NAME of the network namespace entered; False where the kernel has no such setting."""
    with events.report("sysctl", setting=name, value=value):
        try:
            with open(f"/proc/sys/{name}", "w") as file:
                file.write(value)
        except FileNotFoundError:
            return False
    return True


def read_sysctl(name: str) -> str:
    """The value of /proc/sys/NAME, without the line's end."""
    with open(f"/proc/sys/{name}") as file:
        return file.read().strip()
