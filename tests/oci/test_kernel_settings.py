"""config-linux.md: sysctl, personality, IntelRdt."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.core.somaxconn", "256"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "9000"),
        ("fs.mqueue.msg_max", "11"),
        ("kernel.domainname", "example.test"),
    ],
)
def test_a_sysctl_of_the_containers_namespaces_is_set(box, name, value):
    """Sysctl: `sysctl` "allows kernel parameters to be modified at runtime for the container"."""
    path = "/proc/sys/" + name.replace(".", "/")
    before = Path(path).read_text()
    box.linux["sysctl"] = {name: value}
    assert box.run("cat", path).ok().out == f"{value}\n"
    assert Path(path).read_text() == before


@pytest.mark.parametrize(
    "name", ["kernel.sysrq", "vm.swappiness", "net.no.such.thing", "../../etc/x", "kernel.hostname.x", ""]
)
def test_a_sysctl_that_is_not_the_containers_is_refused(box, name):
    """config.md, Valid values: a parameter of the host, or none at all, is no value that a container can have."""
    box.linux["sysctl"] = {name: "1"}
    box.refused()


@pytest.mark.parametrize(("kind", "name"), [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.msgmax")])
def test_a_sysctl_of_a_namespace_that_is_the_hosts_is_refused(box, kind, name):
    """Sysctl: in the runtime's namespace it would be the host that changes."""
    box.without(kind)
    box.linux["sysctl"] = {name: "1"}
    box.refused()


def test_the_personality_is_the_configured_one(box):
    """Personality: "`LINUX32` will set the `uname` system call to show a 32 bit CPU type, such as `i686`"."""
    box.linux["personality"] = {"domain": "LINUX32"}
    assert box.run("uname", "-m").ok().out == "i686\n"


def test_the_usual_personality_can_be_asked_for(box):
    """Personality: `domain`: `LINUX`."""
    box.linux["personality"] = {"domain": "LINUX"}
    assert box.run("uname", "-m").ok().out == "x86_64\n"


def test_an_unknown_personality_is_an_error(box):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.linux["personality"] = {"domain": "NO_SUCH"}
    box.refused()


def test_intel_rdt_without_resctrl_is_an_error(box):
    """IntelRdt: "If no mounted `resctrl` pseudo-filesystem is available ..., the runtime MUST generate an error"."""
    assert not any(" - resctrl " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    box.linux["intelRdt"] = {"closID": "guaranteed_group", "l3CacheSchema": "L3:0=7f0;1=1f"}
    box.refused()
