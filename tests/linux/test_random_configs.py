"""Any configuration ends as a container that ran or as a typed error, and leaves nothing.

RAWPOD_RANDOM_CONFIGS=10000 .venv/bin/pytest tests/linux/test_random_configs.py tries as many; 150 otherwise.
"""

import copy
import json
import os
import select

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import RawpodError
from kernel.names import MEMORY_POLICIES, MEMORY_POLICY_FLAGS, POLICIES, RLIMITS, SCHED_FLAGS
from runtime import spec
from runtime.create import create

COUNT = int(os.environ.get("RAWPOD_RANDOM_CONFIGS", "150"))

BASE = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["sh", "-c", ":"], "env": ["PATH=/bin"]},
    "mounts": [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/dev", "type": "tmpfs"},
        {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/sys", "type": "sysfs", "options": ["ro", "nosuid"]},
    ],
    "hostname": "box",
    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup")]},
}

numbers = st.sampled_from([0, 1, -1, 2, 5, 100, 1000, 65534, 2**31, 2**32 - 1, 2**32, 2**63, -(2**63), 2**64 - 1])
words = st.sampled_from(
    ["", "x", "/", "/bin", "/tmp/new", "..", "/../etc", "a\0b", "ü", "/proc/self/fd", "/bin/busybox"]
)
anything = st.none() | st.booleans() | numbers | words | st.lists(words, max_size=2) | st.builds(dict)
capabilities = st.lists(st.sampled_from(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_NOPE", "chown"]), max_size=3)
OPTIONS = (
    "ro rw nosuid suid nodev noexec rro rnosuid bind rbind private rshared rslave unbindable remount noatime relatime "
    "strictatime sync dirsync nosymfollow tmpcopyup size=64k size=nope mode=700 mode=9 nope idmap ridmap"
)
options = st.lists(st.sampled_from(OPTIONS.split()), max_size=4)
mounts = st.fixed_dictionaries(
    {
        "destination": st.sampled_from(
            ["/mnt", "/tmp", "/etc/a/b", "/proc", "/bin/sh", "mnt", "/", "/dev/x", "/proc/sys"]
        )
    },
    optional={
        "type": st.sampled_from(["tmpfs", "bind", "proc", "sysfs", "mqueue", "cgroup", "overlay", "nope", ""]),
        "source": st.sampled_from(["tmpfs", "/tmp", "/dev/null", "/nowhere", "", "rootfs", "/usr/bin"]),
        "options": options,
    },
)
seccomp = st.fixed_dictionaries(
    {"defaultAction": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_NOPE"])},
    optional={
        "architectures": st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_NOPE"]), max_size=2),
        "flags": st.lists(st.sampled_from(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_NOPE"]), max_size=1),
        "syscalls": st.lists(
            st.fixed_dictionaries(
                {
                    "names": st.lists(st.sampled_from(["uname", "mount", "nope", "execve"]), max_size=2),
                    "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"]),
                },
                optional={
                    "errnoRet": numbers,
                    "args": st.lists(
                        st.fixed_dictionaries(
                            {
                                "index": st.integers(-1, 7),
                                "value": numbers,
                                "op": st.sampled_from(["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NOPE"]),
                            }
                        ),
                        max_size=2,
                    ),
                },
            ),
            max_size=3,
        ),
    },
)
ids = st.lists(st.fixed_dictionaries({"containerID": numbers, "hostID": numbers, "size": numbers}), max_size=2)
hook = st.fixed_dictionaries(
    {"path": st.sampled_from(["/bin/true", "/bin/false", "/nowhere", "true", "/bin/busybox", "/etc"])},
    optional={
        "args": st.lists(words, max_size=2),
        "env": st.lists(st.sampled_from(["A=1", "=", "A", "PATH=/bin"]), max_size=2),
        "timeout": st.sampled_from([-1, 0, 1, 2**63 - 1, 2**63]),
    },
)
HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", "nope"]
lists = st.sampled_from(["", "0", "0-1", "0,1", "1-0", "x", "63", "9" * 20])
PARTS = {
    ("ociVersion",): st.sampled_from(["1.0.0", "1.0.2-dev", "1.2.0", "2.0.0", "", "1"]),
    ("root",): st.fixed_dictionaries({"path": words}, optional={"readonly": st.booleans()}),
    ("root", "readonly"): st.booleans(),
    ("hostname",): st.sampled_from(["", "a", "a" * 65, "a\nb"]),
    ("domainname",): st.sampled_from(["", "a.example"]),
    ("mounts",): st.lists(mounts, max_size=3),
    ("hooks",): st.dictionaries(st.sampled_from(HOOKS), st.lists(hook, max_size=2), max_size=2),
    ("process", "cwd"): words,
    ("process", "args"): st.lists(words, max_size=2),
    ("process", "env"): st.lists(st.sampled_from(["A=1", "=", "A", "PATH=", "HOME=/x", "A=\0"]), max_size=3),
    ("process", "user"): st.fixed_dictionaries(
        {"uid": numbers, "gid": numbers}, optional={"additionalGids": st.lists(numbers, max_size=2), "umask": numbers}
    ),
    ("process", "capabilities"): st.fixed_dictionaries(
        dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), capabilities)
    ),
    ("process", "rlimits"): st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from([*RLIMITS, "RLIMIT_NOPE"]),
                "soft": numbers,
                "hard": numbers,
            }
        ),
        max_size=2,
    ),
    ("process", "noNewPrivileges"): st.booleans(),
    ("process", "oomScoreAdj"): numbers,
    ("process", "scheduler"): st.fixed_dictionaries(
        {"policy": st.sampled_from([*POLICIES, "SCHED_NOPE"])},
        optional={
            "nice": st.integers(-21, 20) | numbers,
            "priority": st.integers(-1, 100),
            "flags": st.lists(
                st.sampled_from([*SCHED_FLAGS, "SCHED_FLAG_NOPE"]),
                max_size=2,
            ),
            "runtime": numbers,
            "deadline": numbers,
            "period": numbers,
        },
    ),
    ("process", "terminal"): st.booleans(),
    ("process", "consoleSize"): st.fixed_dictionaries({"height": numbers, "width": numbers}),
    ("process", "apparmorProfile"): st.sampled_from(["", "nope"]),
    ("process", "selinuxLabel"): st.sampled_from(["", "nope"]),
    ("process", "execCPUAffinity"): st.fixed_dictionaries({}, optional={"initial": lists, "final": lists}),
    ("process", "ioPriority"): st.fixed_dictionaries(
        {"class": st.sampled_from(["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "nope"]), "priority": numbers}
    ),
    ("linux", "namespaces"): st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["mount", "pid", "network", "ipc", "uts", "user", "cgroup", "time", "nope"])},
            optional={"path": st.sampled_from(["", "/proc/self/ns/net", "/nowhere", "relative"])},
        ),
        max_size=8,
    ),
    ("linux", "uidMappings"): ids,
    ("linux", "gidMappings"): ids,
    ("linux", "devices"): st.lists(
        st.fixed_dictionaries(
            {"path": st.sampled_from(["/dev/null", "/dev/x", "/x", "dev", "/dev"]), "type": st.sampled_from("cbpux")},
            optional={"major": numbers, "minor": numbers, "fileMode": numbers, "uid": numbers},
        ),
        max_size=2,
    ),
    ("linux", "sysctl"): st.dictionaries(
        st.sampled_from(["net.ipv4.ip_forward", "kernel.domainname", "fs.mqueue.msg_max", "nope", "net/../kernel"]),
        st.sampled_from(["0", "1", "", "nope"]),
    ),
    ("linux", "resources"): st.dictionaries(
        st.sampled_from(["memory", "cpu", "pids", "devices", "unified", "hugepageLimits", "rdma", "network"]), anything
    ),
    ("linux", "seccomp"): seccomp,
    ("linux", "maskedPaths"): st.lists(words, max_size=2),
    ("linux", "readonlyPaths"): st.lists(words, max_size=2),
    ("linux", "rootfsPropagation"): st.sampled_from(["", "private", "rslave", "shared", "nope"]),
    ("linux", "personality"): st.fixed_dictionaries(
        {"domain": st.sampled_from(["LINUX", "LINUX32", "NOPE"])}, optional={"flags": st.lists(words, max_size=1)}
    ),
    ("linux", "memoryPolicy"): st.fixed_dictionaries(
        {"mode": st.sampled_from([*MEMORY_POLICIES, "nope"])},
        optional={
            "nodes": lists,
            "flags": st.lists(
                st.sampled_from([*MEMORY_POLICY_FLAGS, "nope"]),
                max_size=2,
            ),
        },
    ),
    ("linux", "netDevices"): st.dictionaries(
        st.sampled_from(["rpnone", "a/b", "", "x" * 16]),
        st.fixed_dictionaries({}, optional={"name": words}),
        max_size=2,
    ),
    ("linux", "intelRdt"): st.fixed_dictionaries({}, optional={"closID": words, "memBwSchema": words}),
    ("linux", "timeOffsets"): st.dictionaries(
        st.sampled_from(["monotonic", "boottime", "nope"]),
        st.fixed_dictionaries({"secs": numbers, "nanosecs": numbers}),
    ),
}


@st.composite
def configs(draw):
    """The base with one to four parts replaced, now and then by something of any type."""
    tree = copy.deepcopy(BASE)
    for path in draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4, unique=True)):
        value = draw(PARTS[path]) if draw(st.integers(0, 9)) else draw(anything)
        *way, last = path
        place = tree
        for step in way:
            place = place[step] if isinstance(place, dict) and isinstance(place.get(step), dict) else {}
        place[last] = value
    return tree


@pytest.mark.timeout(3600)
def test_a_random_configuration_runs_or_is_a_typed_error(box):
    outcomes = {"ran": 0, "refused": 0}

    @settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(configs())
    def one(tree):
        outcomes["ran" if _runs(box, tree) else "refused"] += 1

    one()
    assert outcomes["ran"] and outcomes["refused"], outcomes


def _runs(box, tree):
    container = None
    with open(os.devnull, "r+") as null:
        fd = null.fileno()
        try:
            config = spec.load(json.dumps(tree).encode())
            container = create(
                "box",
                config,
                box.bundle,
                cgroup=box.cgroup.child("box"),
                hierarchy=box.hierarchy,
                stdio=(fd, fd, fd),
                state_dir=box.bundle / "state",
                missing_controllers="warn",
            )
            container.start()
        except RawpodError as error:
            assert str(error)
            return False
        finally:
            if container is not None:
                _wait_or_kill(container)
                container.delete()
    return True


def _wait_or_kill(container):
    poller = select.poll()
    poller.register(container.pidfd, select.POLLIN)
    if not poller.poll(2000):
        container.kill()
    container.wait()
