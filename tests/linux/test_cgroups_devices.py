"""Device rules in the kernel: what a process in the cgroup may open and make."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgroups.cgroup import Cgroup
from cgroups.device_rules import DENY_ALL, OCI, STANDARD, Rule
from cgroups.devices import restrict
from kernel import bpf, mounts
from kernel.errors import HostError
from runtime import spec
from runtime.limits import update_cgroup


def may(cgroup: Cgroup, script: str) -> bool:
    """Whether a shell in the cgroup succeeds in `script`."""
    gate = ["sh", "-c", f"read go; {{ {script}; }} 2>&-"]
    with subprocess.Popen(gate, stdin=subprocess.PIPE) as child:
        cgroup.add(child.pid)
        child.communicate(b"\n", timeout=60)
    return child.returncode == 0


@pytest.fixture
def nodes(cgroup: Cgroup, tmp_path: Path) -> Iterator[Path]:
    """A directory in which device nodes can be used: /tmp may be mounted with nodev."""
    mounts.mount("tmpfs", tmp_path, "tmpfs", mounts.MS_NOSUID)
    yield tmp_path
    mounts.umount2(tmp_path)


def programs(cgroup: Cgroup) -> list[int]:
    directory = os.open(cgroup.path, os.O_RDONLY)
    try:
        return bpf.prog_query(directory, bpf.CGROUP_DEVICE)
    finally:
        os.close(directory)


def test_what_is_not_allowed_cannot_be_opened_or_made(cgroup: Cgroup, nodes: Path) -> None:
    """Fails (everything succeeds) when `restrict` is left out."""
    os.mknod(nodes / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    restrict(cgroup, [DENY_ALL, *STANDARD])
    assert may(cgroup, ": < /dev/null && echo > /dev/full || test $? = 1 && head -c 1 /dev/urandom > /dev/null")
    assert not may(cgroup, f": < {nodes}/mem")
    assert not may(cgroup, f"mknod {nodes}/sda b 8 0")
    assert may(cgroup, f"mknod {nodes}/null c 1 3 && : < {nodes}/null")


def test_the_oci_defaults_allow_nodes_of_any_device_but_no_use_of_them(cgroup: Cgroup, nodes: Path) -> None:
    restrict(cgroup, [DENY_ALL, *OCI])
    assert may(cgroup, f"mknod {nodes}/mem c 1 1")
    assert not may(cgroup, f": < {nodes}/mem")


def test_each_access_has_the_last_rule_for_it(cgroup: Cgroup) -> None:
    restrict(cgroup, [Rule(True), Rule(False, "c", 1, 3, "w")])
    assert may(cgroup, ": < /dev/null")
    assert not may(cgroup, ": > /dev/null")
    assert not may(cgroup, ": <> /dev/null")


def test_rules_are_replaced_and_do_not_pile_up(cgroup: Cgroup) -> None:
    restrict(cgroup, [DENY_ALL])
    (first,) = programs(cgroup)
    assert not may(cgroup, ": < /dev/null")
    restrict(cgroup, [DENY_ALL, *STANDARD])
    (second,) = programs(cgroup)
    assert second != first
    assert may(cgroup, ": < /dev/null")


def test_of_several_programs_one_is_left(cgroup: Cgroup) -> None:
    # As where systemd has put one of its own beside ours.
    directory = os.open(cgroup.path, os.O_RDONLY)
    try:
        for _ in range(20):
            code = bytes.fromhex("b4000000000000009500000000000000")  # answers 0
            program = bpf.prog_load(bpf.PROG_TYPE_CGROUP_DEVICE, code, name="test")
            bpf.prog_attach(program, directory, bpf.CGROUP_DEVICE)
            os.close(program)
    finally:
        os.close(directory)
    assert len(programs(cgroup)) == 20
    restrict(cgroup, [DENY_ALL, *STANDARD])
    assert len(programs(cgroup)) == 1
    assert may(cgroup, ": < /dev/null")


def test_a_cgroup_below_can_only_have_less(cgroup: Cgroup) -> None:
    restrict(cgroup, [DENY_ALL])
    below = cgroup.child("below").create()
    restrict(below, [Rule(True)])
    assert not may(below, ": < /dev/null")


def test_a_layered_root_can_hide_a_file_although_that_makes_a_device_node(cgroup: Cgroup, tmp_path: Path) -> None:
    # overlayfs marks what is deleted by a character device 0:0; the kernel exempts it (devcgroup_inode_mknod).
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").touch()
    options = ",".join(f"{name}dir={tmp_path}/{name}" for name in ("lower", "upper", "work"))
    mounts.mount("overlay", tmp_path / "merged", "overlay", 0, options)
    try:
        restrict(cgroup, [DENY_ALL])
        assert may(cgroup, f"rm {tmp_path}/merged/file")
        assert stat.S_ISCHR(os.stat(tmp_path / "upper/file").st_mode)
    finally:
        mounts.umount2(tmp_path / "merged")


def test_a_program_that_the_verifier_refuses_says_why() -> None:
    with pytest.raises(bpf.VerifierError) as caught:
        bpf.prog_load(bpf.PROG_TYPE_CGROUP_DEVICE, bytes.fromhex("9500000000000000"), name="test")
    assert "R0 !read_ok" in caught.value.log


def test_without_the_privilege_the_remedy_is_named(cgroup: Cgroup) -> None:
    pid = os.fork()
    if pid == 0:
        from kernel import process

        process.unshare(process.CLONE_NEWUSER)
        try:
            restrict(cgroup, [DENY_ALL])
        except HostError as error:
            os._exit(0 if "CAP_BPF" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert programs(cgroup) == []


def test_an_update_puts_new_rules_in_the_place_of_the_old_ones(cgroup: Cgroup, nodes: Path) -> None:
    os.mknod(nodes / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    restrict(cgroup, [Rule(True)])
    update_cgroup(cgroup, spec.Resources(devices=[spec.DeviceRule(False, access="rwm")]))
    assert len(programs(cgroup)) == 1
    assert may(cgroup, ": < /dev/null")
    assert not may(cgroup, f": < {nodes}/mem")
