"""features.md and features-linux.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CAPABILITIES = [
    f"CAP_{name}"
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()
]
DEFINED = {
    "ociVersionMin",
    "ociVersionMax",
    "hooks",
    "mountOptions",
    "linux",
    "annotations",
    "potentiallyUnsafeConfigAnnotations",
}
MOUNT_MUST = """
    async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec
    noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared
    rslave runbindable rw shared silent slave strictatime suid sync unbindable
    """.split()
OF_FILESYSTEMS = "async sync dirsync lazytime nolazytime iversion noiversion mand nomand silent loud defaults tmpcopyup acl noacl".split()
SECCOMP = {
    "actions": "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY",
    "operators": "NE LT LE EQ GE GT MASKED_EQ",
    "archs": "X86 X86_64 X32 ARM AARCH64",
}
PREFIX = {"actions": "SCMP_ACT_", "operators": "SCMP_CMP_", "archs": "SCMP_ARCH_"}


@pytest.fixture
def features(runtime):
    return runtime("features").json


def number(version):
    return tuple(int(part) for part in version.split("-")[0].split("."))


def test_the_versions_are_there_and_in_order(features):
    """Specification version: `ociVersionMin` and `ociVersionMax` "REQUIRED"; Max "MUST NOT be less than" Min."""
    assert (1, 0, 0) <= number(features["ociVersionMin"]) <= number(features["ociVersionMax"])


@pytest.mark.parametrize("name", ["ociVersionMin", "ociVersionMax"])
def test_the_versions_are_accepted(features, box, name):
    """Specification version: "The runtime MUST accept this value as the `ociVersion` property of `config.json`"."""
    box.config["ociVersion"] = features[name]
    assert box.run("echo", "ran").ok().out == "ran\n"


def test_nothing_is_there_that_the_specification_does_not_define(features):
    """Specification version: "The feature document MUST NOT contain properties that are not defined in this version"."""
    assert features.keys() <= DEFINED
    assert features["linux"].keys() <= {
        *("namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "mountExtensions"),
        *("netDevices", "memoryPolicy"),
    }


def test_every_hook_is_supported(features):
    """Hooks: "The runtime MUST support the elements in this array as the `hooks` property of `config.json`"."""
    assert set(features["hooks"]) == {
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    }


def test_every_mount_option_that_must_be_implemented_is_recognized(features):
    """Mount Options: "The recognized names of the mount options"."""
    assert set(MOUNT_MUST) <= set(features["mountOptions"])


def test_every_mount_option_that_is_listed_is_recognized(features, box):
    """Mount Options: "The runtime MUST recognize the elements in this array as the `options` of `mounts` objects"."""
    (box.directory / "source").mkdir()
    # Each in a mount of its own, options of filesystems in one of these; idmap has needs of its own, and remount is
    # for what is mounted already.
    apart = {"bind", "rbind", "idmap", "ridmap", "remount", "copy-symlink", "src-nofollow"}
    for option in sorted(set(features["mountOptions"]) - apart):
        if option in OF_FILESYSTEMS:
            box.mount(f"/data-{option}", options=(option,))
        else:
            box.bind(f"/data-{option}", box.directory / "source", option)
    assert box.run("echo", "ran").ok().out == "ran\n"


def test_every_namespace_is_recognized(features):
    """Namespaces: "The recognized names of the namespaces"."""
    assert {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"} <= set(features["linux"]["namespaces"])


def test_time_is_a_recognized_namespace(features):
    """Namespaces: `time` is one of the types that "SHOULD be supported"."""
    assert "time" in features["linux"]["namespaces"]


def test_every_capability_is_recognized(features, box):
    """Capabilities: "The runtime MUST recognize the elements in this array in the `process.capabilities` object"."""
    assert set(CAPABILITIES) <= set(features["linux"]["capabilities"])
    bounding = int(re.search(r"^CapBnd:\t(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 16)
    names = [name for number, name in enumerate(CAPABILITIES) if bounding >> number & 1]
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    assert int(box.shell("grep ^CapEff: /proc/self/status | cut -f2"), 16) == bounding


@pytest.mark.parametrize("kind", SECCOMP)
def test_what_seccomp_knows_is_recognized(features, kind):
    """Seccomp: "The recognized names of the seccomp" actions, operators, architectures."""
    assert features["linux"]["seccomp"]["enabled"] is True
    assert {PREFIX[kind] + name for name in SECCOMP[kind].split()} <= set(features["linux"]["seccomp"][kind])


def test_flags_that_are_supported_are_known(features):
    """Seccomp: `supportedFlags` "may be a subset of `knownFlags`"."""
    seccomp = features["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["knownFlags"]


def test_cgroup_v2_is_supported(features):
    """Cgroup: `v2` "represents whether the runtime supports cgroup v2"."""
    assert features["linux"]["cgroup"]["v2"] is True


def test_what_is_said_of_security_modules_is_boolean(features):
    """AppArmor, SELinux, Intel RDT: `enabled` "(bool, OPTIONAL)"."""
    for name in ("apparmor", "selinux", "intelRdt"):
        assert isinstance(features["linux"].get(name, {}).get("enabled", False), bool)


def test_idmapped_mounts_are_told(features):
    """MountExtensions: "runtimes MUST still set this value to `true`" if they recognize the mappings of mounts."""
    assert features["linux"]["mountExtensions"]["idmap"]["enabled"] is True


def test_annotations_are_strings(features):
    """Annotations: "MUST be a key-value map that follows the same convention"."""
    assert all(isinstance(value, str) and key for key, value in features.get("annotations", {}).items())
