"""What `process`, `hooks` and the smaller parts of `linux` must fulfil."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime.checks.config import check
from runtime.checks.sysctl import components, sysctl_faults
from tests.unit.test_spec import config


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("process.rlimits", [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}], "process.rlimits[0].type: unknown"),
        (
            "process.rlimits",
            [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2,
            "process.rlimits[1].type: 'RLIMIT_CPU'",
        ),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0]: soft 2 and hard 1"),
        ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 0, "hard": 2**64}], "process.rlimits[0]: soft"),
        ("process.user.umask", 0o1000, "process.user.umask: 512"),
        ("process.consoleSize", {"height": 65536, "width": 1}, "process.consoleSize"),
        ("process.scheduler", {"policy": "SCHED_MAGIC"}, "process.scheduler.policy: unknown 'SCHED_MAGIC'"),
        ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority: 0 is out of range"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority: only for"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice: 20"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}, "process.scheduler.flags[0]: unknown 'X'"),
        ("process.scheduler", {"policy": "SCHED_OTHER", "period": 1}, "are only for SCHED_DEADLINE"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_NONE", "priority": 0}, "process.ioPriority.class: unknown"),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority: 8"),
        ("process.execCPUAffinity", {"initial": "a"}, "process.execCPUAffinity.initial: 'a' is not a list"),
        ("process.execCPUAffinity", {"final": "3-1"}, "process.execCPUAffinity.final: '3-1' is not a range"),
        ("hooks", {"prestart": [{"path": "bin/x"}]}, "hooks.prestart[0].path: 'bin/x'"),
        ("hooks", {"createRuntime": [{"path": "/x", "timeout": 0}]}, "hooks.createRuntime[0].timeout: 0"),
        ("hooks", {"poststop": [{"path": "/x", "env": ["A"]}]}, "hooks.poststop[0].env[0]: not NAME=VALUE"),
        ("hooks", {"poststart": [{"path": "/x", "args": ["a\0"]}]}, "hooks.poststart[0].args: contains a NUL"),
        ("hooks", {"poststart": [{"path": "/x", "args": [""]}]}, "hooks.poststart[0].args[0]: empty"),
        ("annotations", {"": "x"}, "annotations: a key is empty"),
        ("linux.personality", {"domain": "LINUX64"}, "linux.personality.domain: unknown 'LINUX64'"),
        ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags[0]: 'X'"),
        ("linux.memoryPolicy", {"mode": "MPOL_MAGIC"}, "linux.memoryPolicy.mode: unknown"),
        ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes: missing"),
        ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "takes none"),
        ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "4096"}, "linux.memoryPolicy.nodes: '4096'"),
        (
            "linux.memoryPolicy",
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
            "exclude each other",
        ),
        ("linux.netDevices", {"eth0": {}}, "linux.netDevices: set without a 'network' namespace"),
        ("linux.netDevices", {"a/b": {}}, "linux.netDevices['a/b']: not the name"),
        ("linux.netDevices", {"eth0": {"name": "x" * 16}}, "linux.netDevices['eth0'].name"),
        ("linux.netDevices", {"eth0": {"name": "e%s"}}, "linux.netDevices['eth0'].name"),
        ("linux.netDevices", {"a": {"name": "c"}, "b": {"name": "c"}}, "'c' is given twice"),
        ("linux.sysctl", {"kernel.shmmax": "1"}, "without an 'ipc' namespace"),
        ("linux.sysctl", {"kernel.panic": "1"}, "linux.sysctl['kernel.panic']: belongs to the host"),
        ("linux.sysctl", {"net.core.somaxconn": "1\n2"}, "NUL or newline"),
    ],
)
def test_what_is_malformed_is_named(path: str, value: object, said: str) -> None:
    changes = {path: value, "process.terminal": True} if path == "process.consoleSize" else {path: value}
    with pytest.raises(BadInput) as caught:
        check(config(changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("process.commandLine", "cmd.exe"),
        ("process.user.username", "Administrator"),
        ("process.consoleSize", {"height": 10**6, "width": 1}),
        ("process.capabilities", {"bounding": ["CAP_FROM_THE_FUTURE"]}),
        ("process.cwd", "/a/../b"),
        ("process.scheduler", {"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}]),
        ("hooks", {"prestart": [{"path": "/x", "args": ["x"], "env": ["A="], "timeout": 1}]}),
        ("linux.memoryPolicy", {"mode": "MPOL_INTERLEAVE", "nodes": "0-1,3"}),
    ],
)
def test_what_is_well_formed_or_not_for_linux_is_taken(path: str, value: object) -> None:
    check(config({path: value}))


def test_sysctls_go_with_the_namespaces_that_they_belong_to() -> None:
    keys = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "1", "fs.mqueue.msg_max": "1", "kernel.domainname": "x"}
    assert list(sysctl_faults(keys, ["network", "ipc", "uts"])) == []
    assert len(list(sysctl_faults(keys, []))) == len(keys)


def test_the_host_name_has_a_field_of_its_own() -> None:
    assert list(sysctl_faults({"kernel.hostname": "x"}, ["uts"])) == [
        "linux.sysctl['kernel.hostname']: set by the field hostname"
    ]


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("net.ipv4.ip_forward", ["net", "ipv4", "ip_forward"]),
        ("net/ipv4/ip_forward", ["net", "ipv4", "ip_forward"]),
        ("net.ipv4.conf.eth0/1.rp_filter", ["net", "ipv4", "conf", "eth0.1", "rp_filter"]),
        ("net/ipv4/conf/eth0.1/rp_filter", ["net", "ipv4", "conf", "eth0.1", "rp_filter"]),
    ],
)
def test_the_first_separator_of_a_sysctl_is_the_one_that_separates(key: str, parts: list[str]) -> None:
    assert components(key) == parts


@given(st.text(alphabet="net.ipv4/_-\0 é", max_size=20))
def test_no_sysctl_that_is_taken_leaves_the_containers_part_of_proc_sys(key: str) -> None:
    # CVE-2022-0811. Fails when _is_component lets ".." or an empty component through.
    if not list(sysctl_faults({key: "1"}, ["network"])):
        assert components(key)[0] == "net"
        assert all(part and part not in (".", "..") and "/" not in part for part in components(key))


def test_the_state_that_hooks_read_is_the_specifications() -> None:
    from runtime.hooks import Subject

    subject = Subject("1.2.0", "web", "/b", {"a": "1"})
    assert json.loads(subject.state("creating", 7)) == {
        "ociVersion": "1.2.0",
        "id": "web",
        "status": "creating",
        "pid": 7,
        "bundle": "/b",
        "annotations": {"a": "1"},
    }
    assert "pid" not in json.loads(subject.state("stopped", 0))
