"""Pods with users of their own: hostUsers: false, and `rawpod run --userns auto`."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

from runtime import leaks
from runtime.pod import sandbox
from runtime.pod.idblocks import SIZE, IdBlocks
from tests.pods import Pods, container, pods, settings_on_disk

__all__ = ["pods", "settings_on_disk"]

FOREVER = ("sh", "-c", "echo up; exec sleep 1000000")


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def test_root_in_the_pod_is_nobody_on_the_host(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER), container("other", *FOREVER), hostUsers=False)
    pod.running()
    first = IdBlocks(pods.settings.root).find(pod.uid)
    assert first is not None
    assert first >= SIZE
    owned = set()
    for name in ("main", "other"):
        pid = pod.process(name)["pid"]
        assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(first), str(SIZE)]
        assert os.stat(f"/proc/{pid}").st_uid == first
        owned.add(os.readlink(f"/proc/{pid}/ns/user"))
    assert len(owned) == 1
    assert owned != {os.readlink("/proc/self/ns/user")}


def test_pods_have_ids_that_do_not_overlap(pods: Pods) -> None:
    started = [pods.start(container("main", *FOREVER), name=f"p{n}", hostUsers=False) for n in range(3)]
    for pod in started:
        pod.running()
    blocks = IdBlocks(pods.settings.root)
    firsts = [blocks.find(pod.uid) for pod in started]
    assert len(set(firsts)) == 3
    assert all(first is not None and first % SIZE == 0 for first in firsts)


def test_the_root_filesystem_belongs_to_the_pods_users_and_is_writable(pods: Pods) -> None:
    text = (
        "stat -c %u:%g / /etc /usr/bin/env; touch /new /etc/new /usr/new 2>/dev/null; stat -c %u /new /etc/new; id -u"
    )
    pod = pods.start(container("main", *script(text)), hostUsers=False, restartPolicy="Never")
    pod.ended()
    assert pod.log("main").split() == ["0:0", "0:0", "0:0", "0", "0", "0"]


def test_etc_files_shm_and_the_network_are_the_pods(pods: Pods) -> None:
    text = (
        "stat -c %u:%a /etc/hosts /etc/resolv.conf /dev/shm; echo x >> /etc/hosts && echo written; cat /etc/hostname;"
        "ls /sys/class/net; touch /dev/shm/x && echo shared; stat -c %u /proc/sys/net/ipv4/ip_forward"
    )
    pod = pods.start(container("main", *script(text)), hostUsers=False, restartPolicy="Never")
    pod.ended()
    assert pod.log("main").split() == [
        *("0:644", "0:644", "0:1777", "written", "web", "eth0", "lo", "shared", "0"),
    ]


def test_files_made_through_volumes_have_the_ids_of_the_container_on_disk(pods: Pods, on_disk: Path) -> None:
    """An id-mapped mount: neither the pod's own block nor nobody. Fails without the mappings of compile._mounts()."""
    (on_disk / "there").touch()
    os.chown(on_disk / "there", 1000, 1000)
    text = "stat -c %u /host/there; touch /host/root; chown 7:8 /host/root; touch /empty/root; stat -c %u /empty/root"
    pod = pods.start(
        container("main", *script(text), volumeMounts=[{"name": n, "mountPath": f"/{n}"} for n in ("host", "empty")]),
        hostUsers=False,
        restartPolicy="Never",
        volumes=[{"name": "host", "hostPath": {"path": str(on_disk)}}, {"name": "empty", "emptyDir": {}}],
    )
    pod.ended()
    assert pod.log("main").split() == ["1000", "0"]
    made = (on_disk / "root").stat()
    assert (made.st_uid, made.st_gid) == (7, 8)


def test_volumes_in_memory_belong_to_the_pods_users(pods: Pods) -> None:
    text = "stat -L -c %u:%a /memory /secret/key; cat /secret/key; touch /memory/new && stat -c %u /memory/new"
    pod = pods.start(
        container(
            "main", *script(text), volumeMounts=[{"name": n, "mountPath": f"/{n}"} for n in ("memory", "secret")]
        ),
        hostUsers=False,
        restartPolicy="Never",
        values={"Secret": {"s": {"metadata": {"name": "s"}, "data": {"key": b64encode(b"hidden\n").decode()}}}},
        volumes=[
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
        ],
    )
    pod.ended()
    assert pod.log("main").split() == ["0:777", "0:400", "hidden", "0"]


def test_a_restart_finds_its_layers_and_the_removal_frees_the_ids(pods: Pods) -> None:
    pod = pods.start(container("main", *script("touch /new; exit 3")), hostUsers=False, restartPolicy="OnFailure")
    pod.wait(lambda status: status["containerStatuses"][0]["restartCount"] >= 1)
    blocks = IdBlocks(pods.settings.root)
    assert blocks.find(pod.uid) is not None
    pod.stop()
    assert blocks.find(pod.uid) is not None  # what it wrote is there still, and bears them
    sandbox.destroy(pods.settings, pod.uid)
    assert blocks.find(pod.uid) is None


def test_an_id_block_without_its_pod_is_reported(pods: Pods) -> None:
    blocks = IdBlocks(pods.settings.root)
    blocks.acquire("gone")
    try:
        assert any("id block" in line and "gone" in line for line in leaks.leaks(pods.settings))
    finally:
        blocks.release("gone")


def test_run_with_users_of_its_own_and_exec_into_it(pods: Pods) -> None:
    """The program itself: --userns auto, and `rawpod exec`, which joins the user namespace first."""
    given = pods.settings.to_json()
    options = [f"--{name}={given[name]}" for name in ("root", "state", "cgroup", "bridge", "subnet", "socket")]
    program = [
        sys.executable,
        "-c",
        "from runtime.cli.main import main; main()",
        *options,
        "--missing-controllers=warn",
    ]

    def rawpod(*words: str) -> str:
        return subprocess.run([*program, *words], capture_output=True, text=True, timeout=60, check=True).stdout

    uid = rawpod("run", "-d", "--userns", "auto", "--name", "own", "host", "sleep", "1000").strip()
    try:
        first = IdBlocks(pods.settings.root).find(uid)
        assert rawpod("exec", "own", "cat", "/proc/self/uid_map").split() == ["0", str(first), str(SIZE)]
        assert rawpod("exec", "own", "stat", "-c", "%u", "/etc").split() == ["0"]
    finally:
        rawpod("rm", "-f", "own")
    assert IdBlocks(pods.settings.root).find(uid) is None
