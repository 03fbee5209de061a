"""config-linux.md: default devices, devices, the list of allowed devices; runtime-linux.md: the symbolic links of /dev."""

from __future__ import annotations

import os
import stat

import pytest

DEFAULTS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
ALL_SETS = ("bounding", "effective", "permitted", "inheritable")


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_default_device_is_supplied(box, name):
    """Default Devices: "the runtime MUST also supply" null, zero, full, random, urandom, tty."""
    major, minor = DEFAULTS[name]
    assert (
        box.run("stat", "-c", "%F %t %T %a", f"/dev/{name}").ok().out
        == f"character special file {major:x} {minor:x} 666\n"
    )


def test_the_default_devices_work(box):
    """Default Devices: "the runtime MUST also supply" them, for use."""
    assert box.shell(
        "head -c 3 /dev/zero | od -An -tx1; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x > /dev/full || echo full"
    ) == (" 00 00 00\n4\nfull\n")


def test_ptmx_is_that_of_the_containers_devpts(box):
    """Default Devices: `/dev/ptmx`: "A bind-mount or symlink of the container's `/dev/pts/ptmx`"."""
    assert box.shell("stat -L -c '%t %T' /dev/ptmx; readlink /dev/ptmx || true").splitlines()[0] == "5 2"
    assert "pts/ptmx" in box.shell("readlink /dev/ptmx || grep ' /dev/ptmx ' /proc/self/mountinfo")


@pytest.mark.parametrize("name", LINKS)
def test_each_symbolic_link_is_made(box, name):
    """runtime-linux.md, Dev symbolic links: "runtimes MUST create the following symlinks"."""
    assert box.run("readlink", f"/dev/{name}").ok().out == f"{LINKS[name]}\n"


@pytest.mark.parametrize("kind", ["c", "u"])
def test_a_character_device_is_made(box, kind):
    """Devices: "lists devices that MUST be available in the container"; `type`: `c`, `b`, `u` or `p`."""
    box.linux["devices"] = [
        {"path": "/dev/fuse", "type": kind, "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4}
    ]
    assert box.run("stat", "-c", "%F %t %T %a %u %g", "/dev/fuse").ok().out == "character special file a e5 640 3 4\n"


def test_a_block_device_is_made(box):
    """Devices: `type`: `b`."""
    box.linux["devices"] = [{"path": "/dev/disk", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600}]
    assert box.run("stat", "-c", "%F %t %T %a", "/dev/disk").ok().out == "block special file 7 0 600\n"


def test_a_fifo_is_made(box):
    """Devices: `type`: `p`; major and minor are "REQUIRED unless `type` is `p`"."""
    box.linux["devices"] = [{"path": "/dev/pipe", "type": "p", "fileMode": 0o666}]
    assert box.run("stat", "-c", "%F %a", "/dev/pipe").ok().out == "fifo 666\n"


def test_a_device_may_be_outside_of_dev(box):
    """Devices: "The path MAY be anywhere in the container filesystem, notably outside of `/dev`"."""
    box.linux["devices"] = [{"path": "/srv/devices/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]
    assert box.shell("head -c 2 /srv/devices/zero | wc -c") == "2\n"


def test_a_device_with_no_mode_can_be_used_by_root(box):
    """Devices: `fileMode` "OPTIONAL"."""
    box.linux["devices"] = [{"path": "/dev/my-zero", "type": "c", "major": 1, "minor": 5}]
    assert box.shell("head -c 2 /dev/my-zero | wc -c") == "2\n"


def test_another_file_at_the_path_of_a_device_is_an_error(box):
    """Devices: "If a file already exists at `path` that does not match the requested device, the runtime MUST generate an error"."""
    (box.rootfs / "srv").mkdir()
    (box.rootfs / "srv/zero").write_text("a file")
    box.linux["devices"] = [{"path": "/srv/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]
    box.refused()
    assert (box.rootfs / "srv/zero").read_text() == "a file"


def test_the_same_device_at_the_path_is_taken(box):
    """Devices: only a file "that does not match the requested device" is an error."""
    (box.rootfs / "srv").mkdir()
    os.mknod(box.rootfs / "srv/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    box.linux["devices"] = [{"path": "/srv/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]
    assert box.shell("head -c 2 /srv/zero | wc -c") == "2\n"


@pytest.mark.parametrize("kind", ["x", ""])
def test_an_unknown_type_of_device_is_an_error(box, kind):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.linux["devices"] = [{"path": "/dev/x", "type": kind, "major": 1, "minor": 5}]
    box.refused()


# the list of allowed devices


def rule(allow, kind=None, major=None, minor=None, access="rwm"):
    fields = {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}
    return {name: value for name, value in fields.items() if value is not None}


def may(box, *rules, script):
    """Run a script under some rules. It may make devices, and open the kernel's log, which is there as /tmp/node."""
    box.linux["resources"] = {"devices": list(rules)}
    box.process["capabilities"] = {name: ["CAP_MKNOD", "CAP_SYSLOG"] for name in ALL_SETS}
    os.mknod(box.rootfs / "tmp/node", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    return box.run("sh", "-c", script)


LOG = {"kind": "c", "major": 1, "minor": 11}
OPEN = "(exec 3</tmp/node) 2>/dev/null && echo opened || echo denied"


@pytest.mark.needs_cgroups
def test_what_is_denied_cannot_be_opened(box):
    """Allowed Device list: `allow` "whether the entry is allowed or denied"."""
    assert may(box, rule(False), script=OPEN).ok().out == "denied\n"


@pytest.mark.needs_cgroups
def test_entries_are_applied_in_the_listed_order(box):
    """Allowed Device list: "The runtime MUST apply entries in the listed order"."""
    assert may(box, rule(False), rule(True, **LOG), script=OPEN).ok().out == "opened\n"


@pytest.mark.needs_cgroups
def test_a_later_entry_takes_an_earlier_one_back(box):
    """Allowed Device list: "The runtime MUST apply entries in the listed order"."""
    assert may(box, rule(False), rule(True, **LOG), rule(False, **LOG), script=OPEN).ok().out == "denied\n"


@pytest.mark.needs_cgroups
def test_one_access_is_taken_back_alone(box):
    """Allowed Device list: "The runtime MUST apply entries in the listed order"."""
    script = f"{OPEN}; (exec 3>/tmp/node) 2>/dev/null || echo not for writing"
    result = may(box, rule(False), rule(True, **LOG), rule(False, **LOG, access="w"), script=script)
    assert result.ok().out == "opened\nnot for writing\n"


@pytest.mark.needs_cgroups
@pytest.mark.parametrize(("access", "expected"), [("r", "r"), ("w", "w"), ("rw", "r w"), ("m", ""), ("rwm", "r w")])
def test_each_access_is_for_itself(box, access, expected):
    """Allowed Device list: `access`: "A composition of `r` (read), `w` (write), and `m` (mknod)"."""
    script = "exec 2>/dev/null; (exec 3</tmp/node) && echo r; (exec 3>/tmp/node) && echo w; true"
    assert may(box, rule(False), rule(True, **LOG, access=access), script=script).ok().out.split() == expected.split()


@pytest.mark.needs_cgroups
@pytest.mark.parametrize(("access", "expected"), [("m", "made"), ("rw", "refused")])
def test_making_a_device_is_an_access_of_its_own(box, access, expected):
    """Allowed Device list: `access`: "`m` (mknod)"."""
    script = "mknod /tmp/other c 1 11 2>/dev/null && echo made || echo refused"
    assert may(box, rule(False), rule(True, **LOG, access=access), script=script).ok().out == f"{expected}\n"


@pytest.mark.needs_cgroups
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (rule(True, "c", 1), "opened"),
        (rule(True, "c", None, 11), "opened"),
        (rule(True, "c"), "opened"),
        (rule(True, "a"), "opened"),
        (rule(True), "opened"),
        (rule(True, "b", 1, 11), "denied"),
        (rule(True, "c", 1, 12), "denied"),
        (rule(True, "c", 2, 11), "denied"),
    ],
    ids=["c 1:*", "c *:11", "c *:*", "a", "unset", "b 1:11", "c 1:12", "c 2:11"],
)
def test_what_is_left_out_of_an_entry_means_all(box, entry, expected):
    """Allowed Device list: `type`, `major`, `minor`: "Unset values mean "all"."""
    assert may(box, rule(False), entry, script=OPEN).ok().out == f"{expected}\n"


@pytest.mark.needs_cgroups
def test_default_devices_can_be_used_whatever_is_denied(box):
    """Default Devices: "the runtime MUST also supply" them, also where all else is denied."""
    result = may(box, rule(False), script="head -c 1 /dev/zero | wc -c; echo x > /dev/null && echo ok")
    assert result.ok().out == "1\nok\n"
