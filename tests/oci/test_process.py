"""config.md, Process: what the program is, and everything it finds about itself."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

SETS = {
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "effective": "CapEff",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
NUMBERS = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10, "CAP_AUDIT_WRITE": 29}


def mask(names):
    """The bits of some capabilities."""
    return sum(1 << NUMBERS[name] for name in names)


def status(box):
    """/proc/self/status of the container's program."""
    text = box.run("cat", "/proc/self/status").ok().out
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


# cwd, env, args


def test_the_working_directory_is_the_configured_one(box):
    """Process: `cwd` "is the working directory that will be set for the executable"."""
    (box.rootfs / "a/b").mkdir(parents=True)
    box.process["cwd"] = "/a/b"
    assert box.run("pwd").ok().out == "/a/b\n"


@pytest.mark.parametrize("cwd", ["tmp", "", "./"])
def test_a_relative_working_directory_is_refused(box, cwd):
    """Process: `cwd`: "This value MUST be an absolute path"."""
    box.process["cwd"] = cwd
    box.refused_at_last()


def test_a_working_directory_that_is_no_directory_is_an_error(box):
    """Create: "If the runtime cannot apply a property ..., it MUST generate an error"."""
    (box.rootfs / "file").write_text("")
    box.process["cwd"] = "/file"
    box.refused_at_last()


def test_the_environment_is_the_configured_one(box):
    """Process: `env` "with the same semantics as environ"."""
    box.process["env"] = ["PATH=/bin", "A=1", "EMPTY=", "SPACED=a b  c", "EQUALS=a=b"]
    result = box.run("env", env={"HOST_SECRET": "1"}).ok()
    found = set(result.out.splitlines())
    assert set(box.process["env"]) <= found
    assert {line.split("=")[0] for line in found} <= {"PATH", "A", "EMPTY", "SPACED", "EQUALS", "HOME"}


def test_arguments_reach_the_program_unchanged(box):
    """Process: `args` "with similar semantics to execvp's argv"."""
    args = ["", "a b", "*", "$HOME", "'\"", "\n", "ü", "-c"]
    assert box.run("printf", r"%s\0", *args).ok().out.split("\0")[:-1] == args


def test_at_least_one_argument_is_required(box):
    """Process: "at least one entry is REQUIRED"."""
    box.process["args"] = []
    box.refused_at_last()


def test_the_program_is_looked_up_in_the_path_of_the_container(box):
    """Process: the first entry "is used with the same semantics as execvp's file"."""
    (box.rootfs / "opt").mkdir()
    (box.rootfs / "opt/tool").write_text("#!/bin/sh\necho found $0\n")
    (box.rootfs / "opt/tool").chmod(0o755)
    box.process["env"] = ["PATH=/none:/opt:/bin"]
    assert box.run("tool").ok().out == "found /opt/tool\n"


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/tmp", "/etc/text"])
def test_a_program_that_cannot_be_executed_is_an_error(box, program):
    """Start: "MUST run the user-specified program"; what cannot be applied "MUST generate an error"."""
    (box.rootfs / "etc/text").write_text("text")
    result = box.args(program).refused_at_last()
    assert program in result.err


# user


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (1, 2), (4294967294, 4294967294)], ids=["root", "user", "greatest"])
def test_user_and_group_are_the_configured_ones(box, uid, gid):
    """User: `uid` and `gid` "specifies the user ID in the container namespace"."""
    box.process["user"] = {"uid": uid, "gid": gid}
    found = status(box)
    assert found["Uid"].split() == [str(uid)] * 4
    assert found["Gid"].split() == [str(gid)] * 4


@pytest.mark.parametrize("groups", [[], [5, 6], [2000000]])
def test_additional_groups_are_exactly_the_configured_ones(box, groups):
    """User: `additionalGids` "specifies additional group IDs ... to be added to the process"."""
    box.process["user"] = {"uid": 1, "gid": 1, "additionalGids": groups}
    assert [int(group) for group in status(box)["Groups"].split()] in (groups, [1, *groups])


@pytest.mark.parametrize("umask", [0o0, 0o22, 0o77, 0o777])
def test_the_umask_is_the_configured_one(box, umask):
    """User: `umask` "specifies the umask of the user"."""
    box.process["user"]["umask"] = umask
    assert int(box.shell("umask"), 8) == umask


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("value", [-1, 2**32, "0"])
def test_a_user_id_that_is_none_is_refused(box, field, value):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.process["user"][field] = value
    box.refused_at_last()


# capabilities, noNewPrivileges


def test_each_set_of_capabilities_is_the_configured_one(box):
    """Linux Process: `capabilities` "is an object containing arrays that specifies the sets of capabilities"."""
    wanted = {
        "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"],
        "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "inheritable": ["CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE"],
        "effective": ["CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }
    box.process["capabilities"] = wanted
    box.process["user"] = {"uid": 1000, "gid": 1000}
    found = status(box)
    # execve(2) of a program without file capabilities, not as root: permitted and effective are the ambient set.
    after = wanted | {"permitted": wanted["ambient"], "effective": wanted["ambient"]}
    assert {name: int(found[field], 16) for name, field in SETS.items()} == {name: mask(after[name]) for name in SETS}


@pytest.mark.parametrize("name", ["bounding", "permitted", "effective", "inheritable"])
def test_a_created_process_will_have_no_more_than_each_set(box, name):
    """Linux Process: an array of capabilities "that are kept for the process"; root gets the bounding set by execve."""
    box.process["capabilities"] = {each: ["CAP_KILL", "CAP_CHOWN"] for each in ("bounding", "permitted", "effective")}
    if name == "inheritable":
        box.process["capabilities"]["inheritable"] = ["CAP_KILL"]
    found = status(box)
    assert int(found[SETS[name]], 16) == mask(["CAP_KILL"] if name == "inheritable" else ["CAP_KILL", "CAP_CHOWN"])


def test_without_any_capability_there_is_none(box):
    """Linux Process: empty arrays keep nothing."""
    box.process["capabilities"] = {name: [] for name in SETS}
    found = status(box)
    assert {int(found[field], 16) for field in SETS.values()} == {0}


def test_an_unknown_capability_is_no_failure(box):
    """Linux Process: "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted"."""
    box.process["capabilities"] = {name: ["CAP_KILL", "CAP_NO_SUCH"] for name in ("bounding", "permitted", "effective")}
    assert int(status(box)["CapEff"], 16) == mask(["CAP_KILL"])


@pytest.mark.parametrize(("value", "expected"), [(True, "1"), (False, "0"), (None, "0")])
def test_no_new_privileges_are_as_configured(box, value, expected):
    """Linux Process: `noNewPrivileges` "to true prevents the process from gaining additional privileges"."""
    del box.process["noNewPrivileges"]
    if value is not None:
        box.process["noNewPrivileges"] = value
    assert status(box)["NoNewPrivs"] == expected


# rlimits, oomScoreAdj, scheduler, ioPriority

LIMITS = {
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_STACK": "Max stack size",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_AS": "Max address space",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
    "RLIMIT_RSS": "Max resident set",
}
NUMBERED = {"RLIMIT_LOCKS": 10, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15, "RLIMIT_SIGPENDING": 11}


@pytest.mark.parametrize("kind", LIMITS)
def test_each_resource_limit_is_the_configured_one(box, kind):
    """POSIX process: "`rlim.rlim_cur` MUST match the configured value", "`rlim.rlim_max` MUST match"."""
    number = NUMBERED.get(kind) or getattr(resource, kind)
    ceiling = resource.getrlimit(number)[1]
    hard = 1 << 40 if ceiling == resource.RLIM_INFINITY else ceiling
    soft = hard // 2
    box.process["rlimits"] = [{"type": kind, "soft": soft, "hard": hard}]
    line = next(
        line for line in box.run("cat", "/proc/self/limits").ok().out.splitlines() if line.startswith(LIMITS[kind])
    )
    assert line.removeprefix(LIMITS[kind]).split()[:2] == [str(soft), str(hard)]


@pytest.mark.parametrize("kind", ["RLIMIT_NO_SUCH", "NOFILE", "", "rlimit_nofile"])
def test_an_unknown_resource_limit_is_an_error(box, kind):
    """POSIX process: "The runtime MUST generate an error for any values which cannot be mapped to a relevant kernel interface"."""
    box.process["rlimits"] = [{"type": kind, "soft": 10, "hard": 10}]
    box.refused_at_last()


def test_a_resource_limited_twice_is_an_error(box):
    """POSIX process: "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error"."""
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": 100} for soft in (50, 60)]
    box.refused_at_last()


def test_the_oom_score_is_adjusted(box):
    """Linux Process: "If `oomScoreAdj` is set, the runtime MUST set `oom_score_adj` to the given value"."""
    box.process["oomScoreAdj"] = 123
    assert box.run("cat", "/proc/self/oom_score_adj").ok().out == "123\n"


def test_the_oom_score_is_left_alone_unless_configured(box):
    """Linux Process: "If `oomScoreAdj` is not set, the runtime MUST NOT change the value of `oom_score_adj`"."""
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert box.run("cat", "/proc/self/oom_score_adj").ok().out == ours


POLICIES = {"SCHED_OTHER": 0, "SCHED_BATCH": 3, "SCHED_IDLE": 5}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_scheduling_policy_is_the_configured_one(box, policy):
    """Linux Process: `scheduler` "is an object describing the scheduler properties for the process"."""
    box.process["scheduler"] = {"policy": policy, "nice": 7}
    fields = box.run("cat", "/proc/self/stat").ok().out.rpartition(")")[2].split()
    assert int(fields[38]) == POLICIES[policy]
    # sched_setattr(2) takes no nice value with SCHED_IDLE; setpriority(2) would.
    assert int(fields[16]) in ((0, 7) if policy == "SCHED_IDLE" else (7,))


def test_an_unknown_scheduling_policy_is_an_error(box):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.process["scheduler"] = {"policy": "SCHED_NO_SUCH"}
    box.refused_at_last()


@pytest.mark.parametrize("name", ["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"])
def test_the_io_priority_is_the_configured_one(box, name):
    """Linux Process: `ioPriority` "configures the I/O priority settings for the container's processes"."""
    box.process["ioPriority"] = {"class": name, "priority": 6}
    assert box.shell("ionice -p $$").startswith(
        {"IOPRIO_CLASS_BE": "best-effort: prio 6", "IOPRIO_CLASS_IDLE": "idle"}[name]
    )


def test_an_unknown_io_priority_class_is_an_error(box):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_NO_SUCH", "priority": 4}
    box.refused_at_last()


# security modules


def test_an_apparmor_profile_that_cannot_be_applied_is_an_error(box):
    """Create: "If the runtime cannot apply a property ..., it MUST generate an error"."""
    box.process["apparmorProfile"] = "no-such-profile-of-this-host"
    box.refused_at_last()


def test_a_selinux_label_that_cannot_be_applied_is_an_error(box):
    """Create: "If the runtime cannot apply a property ..., it MUST generate an error"."""
    box.process["selinuxLabel"] = "system_u:system_r:no_such_type_t:s0"
    box.refused_at_last()


def test_console_size_is_ignored_without_a_terminal(box):
    """Process: "Runtimes MUST ignore `consoleSize` if `terminal` is `false` or unset"."""
    box.process["consoleSize"] = {"height": 10, "width": 20}
    assert box.shell("tty 2>&1 || true; echo ran").endswith("ran\n")
