"""The nftables rules of one bridge: a table of their own, written as text and applied by nft(8) as one transaction.

    guard         what pods may never send, whatever else the host allows
    prerouting    hostPorts, for what comes from outside and from pods
    output        hostPorts, for what the host itself sends
    postrouting   masquerade: pods to the outside; and what must come back through the host to be translated back
    forward       pods among themselves, answers and hostPorts; nothing else gets in
    input         for an internal network: the host is reachable at the bridge's address only

The only rules that depend on pods are the elements of the map `hostports`: no rule is added or removed for a pod.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from kernel import events
from kernel.errors import HostError
from netns.addresses import Subnet, ip_text

MAP = "hostports"

_PLACES = ("/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft")
_TO_POD = (
    f"fib daddr type local meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @{MAP}"
)


def table_of(bridge: str) -> str:
    """The table's name, in family inet."""
    return "rawpod" if bridge == "rawpod0" else f"rawpod_{bridge}"


def rules(bridge: str, subnet: Subnet, elements: Iterable[str], *, internal: bool) -> str:
    """The text that makes the table anew, whatever was there."""
    table = table_of(bridge)
    listed = ", ".join(elements)
    pods = f"ip saddr {subnet}"
    masquerade = [] if internal else [f'{pods} oifname != "{bridge}" masquerade']
    masquerade += [
        # A pod that asks for a hostPort of a pod beside it would be answered directly, from an address it never asked.
        f'{pods} oifname "{bridge}" ct status dnat masquerade',
        f'ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade',
    ]
    forward = [f'iifname "{bridge}" oifname "{bridge}" accept']
    if internal:
        forward.append(f'iifname "{bridge}" drop')
    else:
        forward.append(f'oifname "{bridge}" ct state established,related accept')
        forward.append(f'oifname "{bridge}" ct status dnat accept')
    forward.append(f'oifname "{bridge}" drop')
    guard = [
        # The bridge may have route_localnet, and then a pod could reach what listens on 127.0.0.1 (CVE-2020-8558).
        f'iifname "{bridge}" ip daddr 127.0.0.0/8 drop',
        f'iifname "{bridge}" ip saddr != {subnet} drop',
        f'iifname "{bridge}" meta nfproto ipv6 drop',
    ]
    chains = [
        _chain("guard", "filter hook prerouting priority raw", guard),
        _chain("prerouting", "nat hook prerouting priority dstnat", [_TO_POD]),
        _chain("output", "nat hook output priority -100", [_TO_POD]),
        _chain("postrouting", "nat hook postrouting priority srcnat", masquerade),
        _chain("forward", "filter hook forward priority filter", forward),
    ]
    if internal:
        only = [f'iifname "{bridge}" ip daddr != {ip_text(subnet.gateway)} drop']
        chains.append(_chain("input", "filter hook input priority filter", only))
    return "\n".join(
        [
            # Adding first makes the deletion succeed; `destroy` came after Debian 12's nft 1.0.6.
            f"add table inet {table}",
            f"delete table inet {table}",
            f"table inet {table} {{",
            f"  map {MAP} {{",
            "    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
            "    flags interval",
            *([f"    elements = {{ {listed} }}"] if listed else []),
            "  }",
            *chains,
            "}\n",
        ]
    )


def _chain(name: str, hook: str, rules: list[str]) -> str:
    body = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n    type {hook}; policy accept;\n{body}  }}"


def change(bridge: str, *, add: Iterable[str], remove: Iterable[str]) -> str:
    """The text that changes the map's elements; "" for no change."""
    where = f"element inet {table_of(bridge)} {MAP}"
    lines = [("delete", ", ".join(remove)), ("add", ", ".join(add))]
    return "".join(f"{verb} {where} {{ {listed} }}\n" for verb, listed in lines if listed)


def removal(bridge: str) -> str:
    """The text that removes the table, which need not be there."""
    table = table_of(bridge)
    return f"add table inet {table}\ndelete table inet {table}\n"


class Transaction:
    """One run of nft(8), started at once: `wait()` is for after the caller's own work.

    It holds the file `lock` open until it ends, whatever becomes of its parent, and so whatever lock is on it.
    Not by subprocess: its import alone takes 10 ms, as long as the kernel takes for the rules.
    """

    def __init__(self, text: str, lock: int) -> None:
        self.text = text
        program = next((place for place in _PLACES if os.access(place, os.X_OK)), None)
        if program is None:
            raise HostError("the program 'nft' is missing", remedy="apt-get install nftables")
        script = os.memfd_create("nft", os.MFD_CLOEXEC)
        self._errors = os.memfd_create("nft-errors", os.MFD_CLOEXEC)
        try:
            os.write(script, text.encode())
            os.lseek(script, 0, os.SEEK_SET)
            actions = [(os.POSIX_SPAWN_DUP2, script, 0), (os.POSIX_SPAWN_DUP2, self._errors, 2)]
            actions.append((os.POSIX_SPAWN_DUP2, lock, 3))
            environment = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C"}
            self._pid = os.posix_spawn(
                program, ["nft", "-f", "-"], environment, file_actions=actions, setsigmask=[], setsigdef=[]
            )
        except BaseException:
            os.close(self._errors)
            raise
        finally:
            os.close(script)

    def wait(self) -> None:
        """Wait for the end; raises HostError with what nft said."""
        try:
            with events.report("nft", script=self.text):
                _, status = os.waitpid(self._pid, 0)
                if status == 0:
                    return
                said = os.pread(self._errors, 4096, 0).decode(errors="replace").strip()
                missing = "Operation not supported" in said or "No such file or directory" in said
                remedy = "the kernel needs nf_tables with nat, masquerade and fib" if missing else None
                raise HostError(f"nft refused the rules: {said or f'status {status}'}", remedy=remedy)
        finally:
            os.close(self._errors)
