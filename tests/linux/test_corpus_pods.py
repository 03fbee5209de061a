"""Holes around sysctls, shared files, identity and pods' networks (the numbers are those of docs/security-corpus.md).

Each test says by which change it was seen to fail.
"""

import os
from pathlib import Path

import pytest

from kernel import relay
from kernel.errors import BadInput
from runtime import spec
from runtime.pod import names
from tests.linux.test_corpus_mounts import ran
from tests.pods import container, pods, settings_on_disk

__all__ = ["pods", "settings_on_disk"]

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("value", ["1+kernel.core_pattern=|/x", "1\nkernel.core_pattern=|/x", "1 #", "$(x)", "", "1;2"])
def test_row_43_a_value_that_a_pod_gives_is_numbers(value):
    """CVE-2022-0811: a "+" in a value began another parameter. Seen to fail without the grammar of values."""
    assert names.sysctl_value(value)


@pytest.mark.parametrize(
    "name", ["kernel.core_pattern", "kernel/core_pattern", "net.ipv4.ip_forward", "net/../kernel/core_pattern", "", "."]
)
def test_row_43_a_name_that_a_pod_gives_is_on_the_list(name):
    """CVE-2024-3154. Seen to fail without the look into SAFE_SYSCTLS."""
    assert names.sysctl(name)


def test_row_43_a_value_is_written_to_the_one_parameter_whatever_is_in_it(box):
    """CVE-2022-0811 below pods: one file, one write, no words. There is no list to be split, so nothing to take out."""
    before = CORE_PATTERN.read_bytes()
    config = box.config("busybox", "cat", "/proc/sys/kernel/domainname")
    config.linux.sysctl = {"kernel.domainname": "a+kernel.core_pattern=|/x"}
    assert ran(box, config) == "a+kernel.core_pattern=|/x\n"
    assert CORE_PATTERN.read_bytes() == before


def test_row_45_a_payload_has_no_file_of_the_runtimes(box):
    """CVE-2022-0847: who writes into the cache of a file that is shared writes into all that use it.

    Neither mapped nor mounted nor open is anything of rawpod's or of its interpreter. Seen to fail with the
    checkout mounted.
    """
    container = box.create(box.config("busybox", "sleep", "1000"))
    container.start()
    try:
        proc = Path(f"/proc/{container.pid}")
        mapped = {line.split(maxsplit=5)[5] for line in (proc / "maps").read_text().splitlines() if "/" in line}
        assert {path.rpartition("/")[2] for path in mapped} == {"busybox"}
        assert os.stat(proc / "exe").st_ino == (box.root / "bin/busybox").stat().st_ino
        mounted = [line.split()[3] for line in (proc / "mountinfo").read_text().splitlines()]
        assert not [path for path in mounted if str(CHECKOUT) in path]
        assert not [fd for fd in (proc / "fd").iterdir() if "relay" in os.readlink(fd)]
    finally:
        container.kill()
        container.wait()
        container.delete()


def test_row_45_no_two_processes_are_executed_through_the_same_file():
    """CVE-2022-0847: seals do not stop a write into the page cache. Seen to fail with make() keeping what it made."""
    made = [relay.make(), relay.make()]
    try:
        assert len({os.fstat(fd).st_ino for fd in made}) == 2
    finally:
        for fd in made:
            os.close(fd)


@pytest.mark.parametrize("users", [{}, {"hostUsers": False}])
def test_row_47_a_container_that_is_restarted_has_the_same_user(pods, users):
    """CVE-2019-11245: the first start had the user asked for, the second was root.

    Seen to fail with the user left out of later attempts in Blueprint.prepare().
    """
    pod = pods.start(
        container("main", "sh", "-c", "id -u; id -g; id -G; cat /proc/self/uid_map; exit 1"),
        restartPolicy="Always",
        securityContext={"runAsUser": 1000, "runAsGroup": 1001, "runAsNonRoot": True},
        **users,
    )
    pod.wait(lambda now: now["containerStatuses"][0]["restartCount"] >= 3)
    attempts = [path.read_text().splitlines() for path in sorted(pod.log_path("main").glob("*.log"))]
    printed = {tuple(line.partition(" F ")[2] for line in lines) for lines in attempts if lines}
    whole = max(printed, key=len)
    assert whole[:3] == ("1000", "1001", "1001")
    assert all(whole[: len(lines)] == lines for lines in printed), printed  # the last attempt may still be printing


def test_row_50_a_pod_cannot_speak_for_others_on_its_network(pods):
    """CVE-2020-13401: a pod with CAP_NET_RAW made itself the others' and the host's IPv6 router.

    It has no raw sockets and listens to no advertisement, nor do links that come later. Seen to fail with CAP_NET_RAW
    among the default capabilities, and without the settings of netns.pod.prepare().
    """
    script = (
        "import socket\n"
        "for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_INET6, socket.SOCK_RAW),"
        " (socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_DGRAM)):\n"
        "    try: socket.socket(family, kind, socket.IPPROTO_ICMP if family == socket.AF_INET else 58); print('made')\n"
        "    except PermissionError: pass\n"
        "for link in ('eth0', 'default'):\n"
        "    for name in ('accept_ra', 'autoconf', 'accept_redirects'):\n"
        "        print(name, open(f'/proc/sys/net/ipv6/conf/{link}/{name}').read().strip())\n"
    )
    pod = pods.start(container("main", "/usr/bin/python3", "-c", script), restartPolicy="Never")
    assert pod.ended()["phase"] == "Succeeded", pod.log("main")
    assert pod.log("main").splitlines() == ["accept_ra 0", "autoconf 0", "accept_redirects 0"] * 2


def test_row_46_an_empty_localhost_profile_is_an_error(box):
    """CVE-2023-2431 is tried on pods in test_pod_seccomp; here a description whose filter has no default action.

    Seen to fail with a default for default_action in spec.Seccomp.
    """
    config = box.config("sh")
    with pytest.raises(BadInput, match="defaultAction"):
        spec.load(spec.dump(config).replace(b'"linux":{', b'"linux":{"seccomp":{},'))
