"""The leak oracle sees each kind of thing that can be left behind, and nothing where nothing was."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from kernel import mounts
from kernel.pidfd import process_start_time
from netns.links import del_link, new_bridge
from netns.netlink import Netlink
from netns.veth import link_name
from runtime.inventory import Inventory
from runtime.leaks import difference, leaks, snapshot
from runtime.pod import sandbox
from runtime.pod.idblocks import IdBlocks
from runtime.settings import Settings

UID = "0b0b0b0b-1111-2222-3333-444444444444"

Trace = Callable[[Settings, Cgroup], AbstractContextManager[object]]


@contextmanager
def a_cgroup(_: Settings, cgroup: Cgroup) -> Iterator[None]:
    pod = cgroup.parent.child(UID).create()
    yield
    pod.delete()


@contextmanager
def a_mount(settings: Settings, _: Cgroup) -> Iterator[None]:
    mounts.mount("tmpfs", settings.state, "tmpfs")
    yield
    mounts.umount2(settings.state)


@contextmanager
def a_pinned_namespace(settings: Settings, _: Cgroup) -> Iterator[None]:
    path = settings.state / "net"
    path.touch()
    mounts.mount("/proc/self/ns/net", path, None, mounts.MS_BIND)
    yield
    mounts.umount2(path)


@contextmanager
def a_link(settings: Settings, _: Cgroup) -> Iterator[None]:
    with Netlink() as netlink:
        netlink.request(new_bridge(settings.bridge, b"\2\0\0\0\0\1"))
        yield
        netlink.request(del_link(settings.bridge))


@contextmanager
def a_lease(settings: Settings, _: Cgroup) -> Iterator[None]:
    path = settings.state / "addresses/10.1.2.3"
    path.parent.mkdir()
    path.write_text(f"{UID}\n10.1.2.3\n")
    yield
    path.unlink()


@contextmanager
def a_table(_: Settings, __: Cgroup) -> Iterator[None]:
    subprocess.run(["nft", "add table inet oracle; add chain inet oracle c"], check=True)
    yield
    subprocess.run(["nft", "delete table inet oracle"], check=True)


@contextmanager
def a_descriptor(_: Settings, __: Cgroup) -> Iterator[None]:
    with socket.socket():
        yield


@contextmanager
def a_process(_: Settings, __: Cgroup) -> Iterator[None]:
    # With no pipe to us: a descriptor of ours would be a trace of its own.
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield
        child.kill()


@contextmanager
def a_zombie(_: Settings, __: Cgroup) -> Iterator[None]:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield


@contextmanager
def a_pod_directory(settings: Settings, _: Cgroup) -> Iterator[None]:
    settings.pod(UID).mkdir(parents=True)
    yield
    settings.pod(UID).rmdir()


@contextmanager
def an_overlay_directory(settings: Settings, _: Cgroup) -> Iterator[None]:
    (settings.overlay / UID).mkdir(parents=True)
    yield
    (settings.overlay / UID).rmdir()


@contextmanager
def a_loop_device(settings: Settings, _: Cgroup) -> Iterator[None]:
    image = settings.root / "disk"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["modprobe", "--quiet", "loop"], check=False)
    answer = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.skip(f"needs a loop device: {answer.stderr.strip()}")
    yield
    subprocess.run(["losetup", "--detach", answer.stdout.strip()], check=True)


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        (a_cgroup, f"left behind: cgroup .*/{UID} of pod {UID}"),
        (a_mount, "left behind: mount .*/state \\(tmpfs\\)"),
        (a_pinned_namespace, "left behind: pinned namespace .*/state/net"),
        (a_link, "left behind: link rpt"),
        (a_lease, f"left behind: address lease 10.1.2.3 of pod {UID}"),
        (a_table, "left behind: nftables table inet oracle"),
        (a_descriptor, "left behind: file descriptor socket: in process"),
        (a_process, "left behind: process \\d+ \\(sleep\\)"),
        (a_zombie, "left behind: zombie \\d+ \\(true\\)"),
        (a_pod_directory, f"left behind: pod directory .*/{UID}"),
        (an_overlay_directory, f"left behind: overlay directory .*/{UID}"),
        (a_loop_device, "left behind: loop device /dev/loop\\d+ of .*/root/disk"),
    ],
)
def test_what_is_left_behind_is_seen_and_named(trace: Trace, line: str, settings: Settings, cgroup: Cgroup) -> None:
    import re

    def now() -> Inventory:
        return snapshot(settings, watched=[os.getpid()], alone=True)

    before = now()
    with trace(settings, cgroup):
        found = difference(before, now())
        vanished = difference(now(), before)
    assert any(re.match(line, each) for each in found), found
    assert vanished == [each.replace("left behind: ", "gone: ") for each in found]
    assert difference(before, now()) == []


def _write_pod(settings: Settings, uid: str, pid: int, start: int, phase: str = "Running") -> Path:
    directory = settings.pod(uid)
    directory.mkdir(parents=True)
    status = {"phase": phase, "rawpod": {"monitor": {"pid": pid, "startTime": start}}}
    (directory / "status.json").write_text(json.dumps(status))
    return directory


def test_an_instance_that_never_ran_is_clean(settings: Settings) -> None:
    assert leaks(settings) == []


def test_what_a_living_pod_has_is_no_leak(settings: Settings, cgroup: Cgroup) -> None:
    directory = _write_pod(settings, UID, os.getpid(), process_start_time(os.getpid()))
    pod = cgroup.parent.child(UID).create()
    cgroup.delete()
    (settings.overlay / UID).mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as payload:
        pod.add(payload.pid)
        assert leaks(settings) == []
        payload.kill()
    pod.delete()
    (directory / "status.json").unlink()
    directory.rmdir()
    (settings.overlay / UID).rmdir()


def test_what_a_pod_left_whose_monitor_is_dead_is_named(settings: Settings, cgroup: Cgroup) -> None:
    # The pid is alive and started at another time: somebody else's by now.
    directory = _write_pod(settings, UID, os.getpid(), process_start_time(os.getpid()) - 1)
    pod = cgroup.parent.child(UID).create()
    cgroup.delete()
    with subprocess.Popen(["sleep", "1000"]) as payload:
        pod.add(payload.pid)
        found = leaks(settings)
        payload.kill()
    assert found == [
        f"left behind: cgroup {pod} of pod {UID}",
        f"left behind: pod directory {directory} of pod {UID}",
        f"left behind: process {payload.pid} (sleep) of pod {UID}",
    ]
    pod.delete()
    (directory / "status.json").unlink()
    directory.rmdir()


def test_an_ended_pod_keeps_its_directory_and_what_it_wrote_and_nothing_else(
    settings: Settings, cgroup: Cgroup
) -> None:
    directory = _write_pod(settings, UID, os.getpid(), 1, phase="Succeeded")
    overlay = settings.overlay / UID
    overlay.mkdir(parents=True)
    cgroup.delete()
    pod = cgroup.parent.child(UID).create()
    assert leaks(settings) == [f"left behind: cgroup {pod} of pod {UID}"]
    pod.delete()
    overlay.rmdir()
    (directory / "status.json").unlink()
    directory.rmdir()


def test_what_pods_wrote_before_a_reboot_goes_with_the_next_tidying(settings: Settings) -> None:
    """Their directories were in memory. What is younger, or has a directory, stays."""
    blocks = IdBlocks(settings.root)
    blocks.acquire("former")
    for uid in ("former", "present"):
        (settings.overlay / uid / "main/0/upper").mkdir(parents=True)
    settings.pod("present").mkdir(parents=True)
    sandbox.tidy(settings)
    assert sorted(os.listdir(settings.overlay)) == ["former", "present"]
    sandbox.forget_former(settings, booted=time.time() + 60)
    assert os.listdir(settings.overlay) == ["present"]
    assert blocks.find("former") is None
    sandbox.remove_tree(settings.overlay / "present")
    settings.pod("present").rmdir()


def test_a_living_pods_missing_link_and_cgroup_are_named(settings: Settings, cgroup: Cgroup) -> None:
    cgroup.delete()
    directory = _write_pod(settings, UID, os.getpid(), process_start_time(os.getpid()))
    with a_lease(settings, cgroup):
        assert leaks(settings) == [
            f"missing: cgroup of pod {UID}",
            f"missing: link of pod {UID}, whose address is 10.1.2.3",
        ]
    (directory / "status.json").unlink()
    directory.rmdir()


def test_a_bridge_and_a_port_without_a_pod_are_named(settings: Settings) -> None:
    subprocess.run(["ip", "link", "add", settings.bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "add", link_name(UID), "master", settings.bridge, "type", "veth"], check=True)
    assert leaks(settings) == [f"left behind: link {link_name(UID)}", f"left behind: link {settings.bridge}"]
    subprocess.run(["ip", "link", "del", link_name(UID)], check=True)
    subprocess.run(["ip", "link", "del", settings.bridge], check=True)


def test_a_stray_process_in_the_system_cgroup_is_named(settings: Settings, cgroup: Cgroup) -> None:
    system = cgroup.parent.child("system").create()
    cgroup.delete()
    with subprocess.Popen(["sleep", "1000"]) as stray:
        system.add(stray.pid)
        assert leaks(settings) == [f"left behind: process {stray.pid} (sleep)"]
        stray.kill()


def test_a_snapshot_is_quick_enough_to_be_taken_after_every_test(settings: Settings) -> None:
    best = min(_seconds(lambda: snapshot(settings, watched=[os.getpid()], alone=True)) for _ in range(5))
    # 10 ms on a processor of its own; an emulated one takes ten times as long.
    assert best < 0.5


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
