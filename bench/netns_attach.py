"""What a pod's network costs: import, attach, detach; and the same requests through pyroute2 where it is installed.

As root: .venv/bin/python bench/netns_attach.py [PODS]
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kernel.process import CLONE_NEWNET, CLONE_NEWNS, setns, unshare
from netns.attach import Network
from netns.namespace import entered


def new_namespace() -> int:
    """A descriptor of a fresh network namespace."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    setns(home, CLONE_NEWNET)
    os.close(home)
    return fd


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def show(what: str, times: list[float]) -> None:
    """One line of figures."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"{what:52} median {statistics.median(ordered):7.2f} ms   p99 {p99:7.2f} ms   n {len(ordered)}")


def import_time(statement: str) -> list[float]:
    """How much longer a bare interpreter takes with the statement than without."""

    def once(code: str) -> float:
        program = f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); {code}"
        return milliseconds(lambda: subprocess.run([sys.executable, "-I", "-c", program], check=True))

    return [once(statement) - once("pass") for _ in range(15)]


def with_pyroute2(ipr: object, bridge: int, number: int, fd: int) -> None:
    """The same pod by pyroute2's synchronous IPRoute, one request each."""
    from pyroute2 import IPRoute

    assert isinstance(ipr, IPRoute)
    name = f"py{number}"
    ipr.link("add", ifname=name, kind="veth", master=bridge, peer={"ifname": "eth0", "net_ns_fd": fd})
    ipr.link("set", ifname=name, state="up")
    with entered(fd):
        inside = IPRoute()
    with inside:
        index = inside.link_lookup(ifname="eth0")[0]
        inside.link("set", index=1, state="up")
        inside.addr("add", index=index, address=f"10.99.{number >> 8}.{number & 255}", prefixlen=16)
        inside.link("set", index=index, state="up")
        inside.route("add", dst="default", gateway="10.99.255.254", oif=index)


def main() -> None:
    """Measure in a namespace of its own."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    show("import netns.attach", import_time("import netns.attach"))
    there = importlib.util.find_spec("pyroute2") is not None
    if there:
        show("import pyroute2", import_time("from pyroute2 import IPRoute"))
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    with tempfile.TemporaryDirectory() as state:
        network = Network("bench0", "10.88.0.0/16", Path(state))
        fds = [new_namespace() for _ in range(pods)]
        show("attach, first (bridge and rules)", [milliseconds(lambda: network.attach("0", fds[0]))])
        show("attach", [milliseconds(lambda i=i: network.attach(str(i), fds[i])) for i in range(1, pods)])
        show("repair, all well", [milliseconds(lambda: network.repair(lambda: {str(i): None for i in range(pods)}))])
        half = pods // 2
        show("detach by request", [milliseconds(lambda i=i: network.detach(str(i))) for i in range(half)])

        def gone(i: int) -> None:
            os.close(fds[i])
            network.detach(str(i), namespace_gone=True)

        rest = range(half, pods - 1)
        show("detach, namespace gone", [milliseconds(lambda i=i: gone(i)) for i in rest])
        show("detach, last (bridge and rules)", [milliseconds(lambda: gone(pods - 1))])
        if there:
            from pyroute2 import IPRoute

            with IPRoute() as ipr:
                ipr.link("add", ifname="bench1", kind="bridge", state="up")
                bridge = ipr.link_lookup(ifname="bench1")[0]
                fds = [new_namespace() for _ in range(pods)]
                times = [milliseconds(lambda i=i: with_pyroute2(ipr, bridge, i + 1, fds[i])) for i in range(pods)]
                show("attach by pyroute2 (no lease, no rules, no checks)", times)


if __name__ == "__main__":
    main()
