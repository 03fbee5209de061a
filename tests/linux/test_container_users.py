"""Containers with user and time namespaces of their own."""

import os
import time

import pytest

from kernel.errors import RawpodError
from kernel.pidfd import wait_pidfd
from runtime import spec, state
from runtime.create import create
from runtime.exec import exec_in
from tests.boxes import output

FIRST, SIZE = 165536, 65536


def ids(outside=FIRST, size=SIZE):
    return [spec.IDMapping(0, outside, size)]


@pytest.fixture
def users(box):
    """A box whose root belongs to the ids that `mapped` gives."""
    for directory, names, files in os.walk(box.root):
        for name in ("", *names, *files):
            os.chown(os.path.join(directory, name), FIRST, FIRST, follow_symlinks=False)
    box.bundle.chmod(0o755)
    return box


def mapped(config):
    config.linux.namespaces = [*config.linux.namespaces, spec.Namespace("user")]
    config.linux.uid_mappings, config.linux.gid_mappings = ids(), ids()
    return config


def ran(box, config):
    status, printed = box.run(config)
    assert status.shell == 0, printed
    return printed


def test_root_inside_is_nobody_outside(users):
    script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; touch /tmp/made; stat -c %u:%g /bin/busybox"
    printed = ran(users, mapped(users.config("sh", "-c", script))).split()
    assert printed == ["0", "0", str(FIRST), str(SIZE), "allow", "0:0"]
    made = (users.root / "tmp/made").stat()
    assert (made.st_uid, made.st_gid) == (FIRST, FIRST)


def test_all_namespaces_belong_to_the_users_and_nothing_of_the_host_is_in_reach(users):
    """A hostname, an address and a mount can be set; a file of the host's root cannot be read through /proc/1/root."""
    config = mapped(
        users.config("sh", "-c", "hostname other && ip link set lo up && mount -t tmpfs x /tmp && hostname")
    )
    capabilities = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    config.process.capabilities = spec.Capabilities(
        bounding=capabilities, effective=capabilities, permitted=capabilities
    )
    assert ran(users, config) == "other\n"


def test_message_queues_belong_to_the_root_inside(users):
    """Fails with the ipc namespace made by clone3, when the process is nobody yet."""
    config = mapped(users.config("sh", "-c", "stat -c %u:%g /dev/mqueue"))
    config.mounts = [*config.mounts, spec.Mount("/dev/mqueue", "mqueue")]
    assert ran(users, config) == "0:0\n"


def test_devices_are_the_hosts_own(users):
    config = mapped(
        users.config("sh", "-c", "echo lost > /dev/null && head -c 3 /dev/zero | wc -c; stat -c %t:%T /dev/full")
    )
    assert ran(users, config) == "3\n1:7\n"


def test_devices_that_the_host_has_no_node_of_are_made_for_the_users(users):
    """Fails where they are bound from the host: it has no /dev/nothing, and its /dev/null is of other owners."""
    script = (
        "echo lost > /dev/nothing && cat /dev/nothing && head -c 2 /dev/sub/zero | wc -c; cd /dev;"
        " stat -c '%n %a %u:%g %t:%T' nothing sub sub/zero null shm . stdin"
    )
    config = mapped(users.config("sh", "-c", script))
    config.linux.devices = [
        spec.Device("/dev/nothing", "c", 1, 3, file_mode=0o646, uid=7, gid=8),
        spec.Device("/dev/sub/zero", "c", 1, 5, file_mode=0o666),
    ]
    assert ran(users, config).splitlines() == [
        "2",
        "nothing 646 7:8 1:3",
        "sub 755 0:0 0:0",
        "sub/zero 666 0:0 1:5",
        "null 666 0:0 1:3",
        "shm 755 0:0 0:0",
        ". 755 0:0 0:0",
        "stdin 777 0:0 0:0",
    ]


def test_a_device_of_an_id_that_is_not_mapped_is_refused(users):
    config = mapped(users.config("true"))
    config.linux.devices = [spec.Device("/dev/nothing", "c", 1, 3, uid=SIZE)]
    with pytest.raises(RawpodError, match=f"id {SIZE} is not mapped"):
        users.run(config)


def test_capabilities_are_those_asked_for_also_where_the_host_lacks_some(users):
    """A new user namespace begins with a full bounding set. Fails when `create` takes the host's for it."""
    config = mapped(users.config("sh", "-c", "grep ^Cap /proc/self/status"))
    config.process.capabilities = spec.Capabilities(
        bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"]
    )
    values = dict(line.split(":\t") for line in ran(users, config).splitlines())
    assert {values[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd")} == {f"{1 << 5:016x}"}
    assert {values[f"Cap{kind}"] for kind in ("Inh", "Amb")} == {"0" * 16}


def test_files_that_only_the_hosts_root_may_read_can_be_bound(users, tmp_path):
    """The creating process opens them. Fails if the new one has to find its way through a directory of mode 0700."""
    tmp_path.chmod(0o700)
    (tmp_path / "shown").write_text("open to all\n")
    (tmp_path / "closed").write_text("not to be read")
    (tmp_path / "closed").chmod(0o600)
    config = mapped(users.config("sh", "-c", "cat /a; cat /b 2>/dev/null || stat -c %u /b"))
    config.mounts = [
        *config.mounts,
        spec.Mount("/a", "bind", str(tmp_path / "shown"), ["bind", "ro"]),
        spec.Mount("/b", "bind", str(tmp_path / "closed"), ["bind"]),
    ]
    assert ran(users, config) == "open to all\n65534\n"


def test_id_mapped_binds_of_the_containers_own_ids(users, on_disk):
    source = on_disk / "source"
    source.mkdir()
    config = mapped(
        users.config("sh", "-c", "stat -c %u:%g /m && touch /m/new && chown 5:6 /m/new && stat -c %u:%g /m/new")
    )
    config.process.capabilities = spec.Capabilities(
        bounding=["CAP_CHOWN"], effective=["CAP_CHOWN"], permitted=["CAP_CHOWN"]
    )
    config.mounts = [*config.mounts, spec.Mount("/m", "bind", str(source), ["bind", "idmap"])]
    assert ran(users, config) == "0:0\n5:6\n"
    made = (source / "new").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)


def test_the_hosts_network_comes_with_the_hosts_sys(users):
    config = mapped(users.config("sh", "-c", "ls /sys/class/net; touch /sys/x 2>&1; cat /proc/sys/kernel/ostype"))
    config.linux.namespaces = [row for row in config.linux.namespaces if row.type != "network"]
    status, printed = users.run(config)
    assert "lo\n" in printed
    assert "Read-only file system" in printed or "Permission denied" in printed
    assert status.shell == 0


def test_limits_above_those_of_the_host_are_set_from_outside(users):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = mapped(users.config("sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj"))
    config.process.rlimits = [spec.Rlimit("RLIMIT_NOFILE", min(soft, 500), hard)]
    config.process.oom_score_adj = 17
    assert ran(users, config) == f"{min(soft, 500)}\n17\n"


def test_pipes_belong_to_the_user_of_the_process(users):
    """As runc has it: a program reopens /dev/stdout, which is a pipe that root made."""
    for config in (
        users.config("sh", "-c", "echo again > /dev/stdout"),
        mapped(users.config("sh", "-c", "echo again > /dev/stdout")),
    ):
        config.process.user = spec.User(1000, 1000)
        assert ran(users, config) == "again\n"


def joined(users, config, process):
    """What a process that joins a container of that description printed."""
    container = users.create(config)
    container.start()
    try:
        record = state.load(users.bundle)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                stdio = (0, writer, writer)
                payload, _ = exec_in(record, users.cgroup.child("box"), process, stdio, linux=config.linux)
                wait_pidfd(payload.pidfd)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            printed = pipe.read().split()
        os.waitpid(child, 0)
        return printed, os.readlink(f"/proc/{container.pid}/ns/user")
    finally:
        container.kill()
        container.wait()
        container.delete()


def test_exec_joins_the_user_namespace(users):
    script = "id -u; cat /proc/self/uid_map; grep CapBnd /proc/self/status; readlink /proc/self/ns/user"
    process = spec.Process("/", args=["sh", "-c", script], env=["PATH=/bin"])
    printed, namespace = joined(users, mapped(users.config("busybox", "sleep", "1000")), process)
    assert printed == ["0", "0", str(FIRST), str(SIZE), "CapBnd:", "0" * 16, namespace]


def test_exec_gives_its_pipes_to_the_user_too(users):
    process = spec.Process("/", args=["sh", "-c", "echo again > /dev/stdout"], env=["PATH=/bin"])
    process.user = spec.User(1000, 1000)
    for config in (mapped(users.config("busybox", "sleep", "1000")), users.config("busybox", "sleep", "1000")):
        assert joined(users, config, process)[0] == ["again"]


def test_a_second_container_joins_the_first_ones_namespaces(users):
    """User, network, ipc and uts by path; its own pid and mount namespaces belong to the same users."""
    first = users.create(mapped(users.config("busybox", "sleep", "1000")))
    first.start()
    try:
        kinds = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}
        paths = {kind: f"/proc/{first.pid}/ns/{name}" for kind, name in kinds.items()}
        script = (
            "for n in user net ipc uts; do readlink /proc/self/ns/$n; done; echo $$; mount -t tmpfs x /tmp && id -u"
        )
        config = users.config("sh", "-c", script)
        config.hostname = ""
        config.process.capabilities = spec.Capabilities(
            bounding=["CAP_SYS_ADMIN"], effective=["CAP_SYS_ADMIN"], permitted=["CAP_SYS_ADMIN"]
        )
        config.linux.namespaces = [
            spec.Namespace(kind, paths.get(kind, "")) for kind in (*paths, "pid", "mount", "cgroup")
        ]
        other = users.bundle / "other"
        other.mkdir()
        with output() as (write, read), open(os.devnull) as null:
            second = create(
                "second",
                config,
                users.bundle,
                cgroup=users.cgroup.child("second"),
                hierarchy=users.hierarchy,
                stdio=(null.fileno(), write, write),
                state_dir=other,
            )
            second.start()
            second.wait()
            second.delete()
            assert read().split() == [*(os.readlink(path) for path in paths.values()), "1", "0"]
    finally:
        first.kill()
        first.wait()
        first.delete()


def test_a_network_of_the_hosts_is_joined_by_a_container_with_users_of_its_own(users):
    """Only the host may join it. Fails if the container's process does so itself."""
    first = users.create(users.config("busybox", "sleep", "1000"))
    first.start()
    try:
        path = f"/proc/{first.pid}/ns/net"
        expected = os.readlink(path)
        config = mapped(users.config("sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net; ps | wc -l"))
        config.linux.namespaces = [
            spec.Namespace("network", path) if row.type == "network" else row for row in config.linux.namespaces
        ]
        other = users.bundle / "other"
        other.mkdir()
        with output() as (write, read):
            second = create(
                "second",
                config,
                users.bundle,
                cgroup=users.cgroup.child("second"),
                hierarchy=users.hierarchy,
                stdio=(0, write, write),
                state_dir=other,
            )
            second.start()
            second.wait()
            second.delete()
            assert read().split()[0] == expected
    finally:
        first.kill()
        first.wait()
        first.delete()


def test_a_terminal_belongs_to_the_user(users):
    config = mapped(users.config("sh", "-c", "tty; stat -c %u /dev/console"))
    config.process.terminal = True
    config.process.user = spec.User(7, 7)
    container = users.create(config)
    try:
        container.start()
        printed = b""
        while printed.count(b"\n") < 2:
            printed += os.read(container.console_fd, 100)
    finally:
        container.wait()
        container.delete()
    assert printed.split() == [b"/dev/pts/0", b"7"]


def test_a_user_that_is_not_mapped_is_refused(users):
    config = mapped(users.config("sh"))
    config.process.user = spec.User(SIZE, 0, additional_gids=[SIZE + 1])
    with pytest.raises(RawpodError, match=r"process\.user\.uid: id 65536.*additionalGids\[0\]: id 65537"):
        users.run(config)


def test_the_clocks_of_a_time_namespace(box):
    config = box.config("sh", "-c", "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime")
    config.linux.namespaces = [*config.linux.namespaces, spec.Namespace("time")]
    config.linux.time_offsets = {"boottime": spec.TimeOffset(1000000, 5), "monotonic": spec.TimeOffset(7)}
    for given in (config, None):
        if given is None:
            config = mapped(config)
            config.linux.uid_mappings = config.linux.gid_mappings = ids(0)
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        printed = ran(box, config).split()
        assert 0 <= int(printed[0]) - 1000000 - int(before) <= 10
        assert printed[1:-1] == ["monotonic", "7", "0", "boottime", "1000000", "5"]


def test_a_time_namespace_is_joined_by_path_and_by_exec(box):
    config = box.config("busybox", "sleep", "1000")
    config.linux.namespaces = [*config.linux.namespaces, spec.Namespace("time")]
    config.linux.time_offsets = {"boottime": spec.TimeOffset(5000000)}
    first = box.create(config)
    first.start()
    try:
        expected = os.readlink(f"/proc/{first.pid}/ns/time")
        assert expected != os.readlink("/proc/self/ns/time")
        config = box.config("sh", "-c", "readlink /proc/self/ns/time; cut -d. -f1 /proc/uptime")
        config.linux.namespaces = [*config.linux.namespaces, spec.Namespace("time", f"/proc/{first.pid}/ns/time")]
        other = box.bundle / "other"
        other.mkdir()
        with output() as (write, read):
            second = create(
                "second",
                config,
                box.bundle,
                cgroup=box.cgroup.child("second"),
                hierarchy=box.hierarchy,
                stdio=(0, write, write),
                state_dir=other,
            )
            second.start()
            second.wait()
            second.delete()
            namespace, uptime = read().split()
        assert namespace == expected
        assert int(uptime) > 5000000
    finally:
        first.kill()
        first.wait()
        first.delete()


@pytest.mark.parametrize("option", ["rw", "ro"])
def test_a_cgroup_that_is_mounted_writable_is_the_users_own(users, option):
    """config-linux.md, "Cgroup ownership"."""
    config = mapped(
        users.config("sh", "-c", "mkdir /sys/fs/cgroup/x 2>/dev/null && rmdir /sys/fs/cgroup/x && echo mine")
    )
    config.mounts[4] = config.mounts[4].replace(options=[option])
    _, printed = users.run(config)
    assert printed == ("mine\n" if option == "rw" else "")


def test_the_limit_of_user_namespaces_is_named(users):
    limit = "/proc/sys/user/max_user_namespaces"
    with open(limit) as file:
        before = file.read()
    try:
        with open(limit, "w") as file:
            file.write("0")
    except PermissionError:
        pytest.skip("needs CAP_SYS_RESOURCE")
    try:
        with pytest.raises(RawpodError, match=r"clone3.*user\.max_\*_namespaces"):
            users.run(mapped(users.config("sh")))
    finally:
        with open(limit, "w") as file:
            file.write(before)


def test_a_source_that_is_missing_is_named_with_its_mount(users):
    config = mapped(users.config("sh"))
    config.mounts = [*config.mounts, spec.Mount("/data", "bind", "/not/there", ["bind"])]
    with pytest.raises(RawpodError, match="pin /not/there for /data: mount source '/not/there' does not exist"):
        users.run(config)


def test_hooks_of_a_container_with_users_of_its_own(users, tmp_path):
    """The runtime's are the host's root, those in the container its own."""
    for name in ("runtime", "inside"):
        (tmp_path / name).write_text(f"#!/bin/sh\nid -u > {tmp_path}/told-{name}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "told-inside").touch()
    (tmp_path / "told-inside").chmod(0o666)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    config = mapped(users.config("sh", "-c", "true"))
    config.hooks = spec.Hooks(
        create_runtime=[spec.Hook(str(tmp_path / "runtime"), env=["PATH=/bin:/usr/bin"])],
        create_container=[spec.Hook(str(tmp_path / "inside"), env=["PATH=/bin:/usr/bin"])],
    )
    ran(users, config)
    assert [(tmp_path / f"told-{name}").read_text() for name in ("runtime", "inside")] == ["0\n", "0\n"]


def test_the_hosts_processes_come_with_the_hosts_proc(users):
    """A user namespace may not mount the procfs of the host's pid namespace: it is bound."""
    config = mapped(
        users.config("sh", "-c", "cat /proc/self/comm; stat -c %u /proc/1; grep -c ' /proc proc' /proc/mounts")
    )
    config.linux.namespaces = [row for row in config.linux.namespaces if row.type != "pid"]
    assert ran(users, config) == "cat\n65534\n1\n"
