"""What a container must not see or do, and what it must have (../SECURITY.md)."""

import os
import select

import pytest

from kernel.credentials import bounding_set
from kernel.errors import ContainerError
from kernel.names import CAPABILITIES
from kernel.pidfd import wait_pidfd
from runtime import spec, state
from runtime.create import create
from runtime.exec import exec_in
from tests.boxes import output


def test_a_payload_has_exactly_three_descriptors(box):
    # CVE-2024-21626. An inheritable descriptor of the host, as a careless caller would leave it open. Fails without
    # the close_range in init.become.
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    container = box.create(box.config("busybox", "sleep", "1000"))
    container.start()
    try:
        assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
    finally:
        os.close(leaked)
        container.kill()
        container.wait()
        container.delete()


def test_a_working_directory_outside_the_root_is_refused(box):
    # CVE-2024-21626. Fails without the getcwd check in init.change_directory.
    outside = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(ContainerError, match="outside the container's root"):
            box.run(box.config("sh", cwd=f"/proc/self/fd/{outside}"))
    finally:
        os.close(outside)


def test_nothing_of_the_host_is_in_sight(box):
    printed = box.shell("echo $$; hostname; ls /; ls /proc | grep -c '^[0-9]'; cat /proc/self/mountinfo | wc -l")
    lines = printed.split("\n")
    assert lines[:2] == ["1", "box"]
    assert lines[2:8] == ["bin", "dev", "etc", "proc", "sys", "tmp"]
    assert int(lines[8]) <= 4
    assert int(lines[9]) <= 10


def test_without_capabilities_asked_for_there_are_none_and_no_foreign_groups(box):
    # CVE-2022-29162 (CapInh, CapAmb) and CVE-2022-2989 (groups). Fails without capset or setgroups in set_identity.
    os.setgroups([4242])
    try:
        printed = box.shell("grep -E '^(Cap|Groups)' /proc/self/status")
    finally:
        os.setgroups([])
    values = dict(line.split(":", 1) for line in printed.splitlines())
    assert values["Groups"].split() == []
    assert {values[f"Cap{kind}"].strip() for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}


def test_capabilities_ids_groups_and_umask_are_those_asked_for(box):
    only = ["CAP_NET_BIND_SERVICE"]
    printed = box.shell(
        "id; umask; grep -E '^Cap' /proc/self/status; grep NoNewPrivs /proc/self/status",
        user=spec.User(uid=1000, gid=1001, umask=0o27, additional_gids=[7, 9]),
        capabilities=spec.Capabilities(bounding=only, permitted=only, effective=only, inheritable=only, ambient=only),
        no_new_privileges=True,
    )
    assert "uid=1000 gid=1001 groups=7,9" in printed
    assert "\n0027\n" in printed
    assert printed.count("0000000000000400") == 5
    assert "NoNewPrivs:\t1" in printed


def test_a_capability_the_host_does_not_have_is_left_out(box):
    asked = list(CAPABILITIES)
    printed = box.shell(
        "grep CapEff /proc/self/status",
        capabilities=spec.Capabilities(bounding=asked, permitted=asked, effective=asked),
    )
    assert int(printed.split()[1], 16) == bounding_set()


def test_masked_paths_show_nothing_and_read_only_paths_cannot_be_written(box):
    config = box.config(
        "sh", "-c", "wc -c < /proc/keys; ls /sys/firmware; echo x > /proc/sys/kernel/domainname; echo $?"
    )
    config.linux.masked_paths = ["/proc/keys", "/sys/firmware", "/proc/no-such-file"]
    config.linux.readonly_paths = ["/proc/sys"]
    printed = box.run(config)[1].split("\n")
    assert printed[0] == "0"
    assert "Read-only file system" in printed[1]
    assert printed[2] == "1"


def test_a_read_only_root_cannot_be_written(box):
    config = box.config("sh", "-c", "echo x > /etc/x || echo refused")
    config.root.readonly = True
    assert "refused" in box.run(config)[1]
    assert not (box.root / "etc/x").exists()


def test_a_root_that_ships_proc_as_a_link_is_refused(box):
    # CVE-2019-16884 and its kin. Fails when Proc resolves its target as other mounts do.
    (box.root / "proc").rmdir()
    os.symlink("/etc", box.root / "proc")
    with pytest.raises(ContainerError, match="mount proc -> /proc"):
        box.run(box.config("sh"))


def test_the_cgroup_tree_inside_begins_at_the_container_and_cannot_be_written(box):
    # CVE-2023-25809, CVE-2022-0492.
    printed = box.shell("grep ^0:: /proc/self/cgroup; mkdir /sys/fs/cgroup/x 2>&1 || echo refused; ls /sys/fs/cgroup")
    assert "0::/\n" in printed
    assert "refused" in printed
    assert "rawpod" not in printed


def test_loopback_is_up_in_a_network_namespace_of_its_own(box):
    assert box.shell("cat /sys/class/net/lo/flags; ls /sys/class/net").split() == ["0x9", "lo"]


def test_namespaces_can_be_joined_by_path(box):
    own = box.config("sh", "-c", "for kind in net uts ipc pid; do readlink /proc/self/ns/$kind; done")
    first = box.create(box.config("busybox", "sleep", "1000"))
    first.start()
    try:
        paths = {
            kind: f"/proc/{first.pid}/ns/{short}"
            for kind, short in (("network", "net"), ("uts", "uts"), ("ipc", "ipc"), ("pid", "pid"))
        }
        expected = [os.readlink(path) for path in paths.values()]
        own.hostname = ""
        own.linux.namespaces = [spec.Namespace(kind, paths.get(kind, "")) for kind in ("mount", "cgroup", *paths)]
        other = box.bundle / "other"
        other.mkdir()
        with output() as (write, read):
            second = create(
                "second",
                own,
                box.bundle,
                cgroup=box.cgroup.child("second"),
                hierarchy=box.hierarchy,
                stdio=(0, write, write),
                state_dir=other,
            )
            second.start()
            second.wait()
            second.delete()
            assert read().split() == expected
    finally:
        first.kill()
        first.wait()
        first.delete()
    assert os.stat("/proc/self/ns/pid_for_children").st_ino == os.stat("/proc/self/ns/pid").st_ino


def test_a_sysctl_reaches_the_containers_namespace_alone(box):
    config = box.config("busybox", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    config.linux.sysctl = {"net.ipv4.ip_unprivileged_port_start": "81"}
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        before = file.read()
    assert box.run(config)[1] == "81\n"
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        assert file.read() == before


def test_resource_limits_are_set(box):
    printed = box.shell(
        "ulimit -n; ulimit -c", rlimits=[spec.Rlimit("RLIMIT_NOFILE", 64, 128), spec.Rlimit("RLIMIT_CORE", 0, 0)]
    )
    assert printed.split() == ["64", "0"]


def test_devices_are_the_default_ones(box):
    printed = box.shell(
        "ls /dev; echo x > /dev/null; busybox head -c 4 /dev/zero | busybox od -An -tx1; ls -l /dev/ptmx"
    )
    assert {
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    } <= set(printed.split())
    assert "00 00 00 00" in printed
    assert "pts/ptmx" in printed


def _read_console(fd: int, end: str) -> str:
    text = ""
    while end not in text and select.select([fd], [], [], 10)[0]:
        try:
            text += os.read(fd, 4096).decode()
        except OSError:
            break
    return text


def test_a_terminal_is_the_containers_own_and_its_controlling_one(box):
    # CVE-2016-10124 (TIOCSTI): no descriptor of the host's terminal is inherited, and the session is a new one.
    config = box.config(
        "sh", "-c", "tty; stty size; echo hello > /dev/tty; [ -c /dev/console ] && echo console; echo end"
    )
    config.process.terminal = True
    config.process.console_size = spec.ConsoleSize(height=33, width=99)
    container = box.create(config)
    container.start()
    text = _read_console(container.console_fd, "end\r\n")
    container.wait()
    container.delete()
    assert "/dev/pts/0" in text
    assert "33 99" in text
    assert "hello" in text
    assert "console" in text


def test_a_joining_process_is_in_every_namespace_and_in_the_cgroup(box):
    container = box.create(box.config("busybox", "sleep", "1000"))
    container.start()
    with output() as (write, read):
        joiner = os.fork()
        if joiner == 0:
            process = spec.Process(
                cwd="/",
                args=["sh", "-c", "hostname; readlink /proc/1/exe; cat /proc/self/cgroup | grep ^0; exit 9"],
                env=["PATH=/bin"],
            )
            child, _ = exec_in(state.load(box.bundle), container.cgroup, process, (0, write, write), linux=None)
            os._exit(wait_pidfd(child.pidfd).shell)
        assert os.waitstatus_to_exitcode(os.waitpid(joiner, 0)[1]) == 9
        assert read().split() == ["box", "/bin/busybox", "0::/"]
    container.kill()
    container.wait()
    container.delete()


def _use_of_a_made_node(box, *rules):
    config = box.config("sh", "-c", "mknod /dev/own c 1 5; (: < /dev/own) && echo zero; (: < /dev/null) && echo null")
    names = ["CAP_MKNOD"]
    config.process.capabilities = spec.Capabilities(bounding=names, effective=names, permitted=names)
    config.linux.resources = spec.Resources(devices=list(rules))
    return box.run(config)[1].splitlines()


def test_a_device_outside_of_the_rules_cannot_be_used_whatever_the_capabilities(box):
    # Fails (zero is read) without RestrictDevices in the plan.
    deny, nodes, null = (
        spec.DeviceRule(False, access="rwm"),
        spec.DeviceRule(True, "c", access="m"),
        spec.DeviceRule(True, "c", 1, 3, "rwm"),
    )
    refused, printed = _use_of_a_made_node(box, deny, nodes, null)
    assert "Operation not permitted" in refused
    assert printed == "null"


def test_a_description_can_allow_every_device(box):
    assert _use_of_a_made_node(box, spec.DeviceRule(True, access="rwm")) == ["zero", "null"]
