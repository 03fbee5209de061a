"""The life of a cgroup on the real cgroup2 mount."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgroups import stats
from cgroups.cgroup import Cgroup, prepare
from cgroups.controllers import Limits
from cgroups.hierarchy import Hierarchy, delegated, find
from kernel import events
from kernel.errors import BadInput, Conflict, ControllerMissing, NotFound, NotSupported
from runtime.settings import Settings

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a program in a cgroup; it is killed and reaped at the end."""
    with ExitStack() as stack:

        def start(cgroup: Cgroup, *command: str) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(command or ("sleep", "1000"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(child)
            stack.callback(child.kill)
            cgroup.add(child.pid)
            return child

        yield start


def test_a_cgroup_is_created_with_its_parents_and_deleted_with_its_children(cgroup: Cgroup) -> None:
    deep = cgroup.child("a").child("b").child("c").create()
    assert deep.exists()
    assert [child.name for child in cgroup.children()] == ["a"]
    cgroup.child("a").delete()
    assert not cgroup.child("a").exists()


def test_creating_and_deleting_twice_is_no_error(cgroup: Cgroup) -> None:
    child = cgroup.child("a").create().create()
    child.delete()
    child.delete()


def test_a_nested_chain_deeper_than_python_recurses_is_deleted(cgroup: Cgroup) -> None:
    deep = cgroup
    for _ in range(300):
        deep = deep.child("d").create()
    cgroup.delete()
    assert not cgroup.exists()


def test_processes_are_added_listed_and_killed(cgroup: Cgroup, spawn: Spawn) -> None:
    children = [spawn(cgroup), spawn(cgroup)]
    assert sorted(cgroup.processes()) == sorted(child.pid for child in children)
    assert cgroup.populated()
    cgroup.kill()
    assert cgroup.wait_empty(10)
    assert [child.wait() for child in children] == [-signal.SIGKILL, -signal.SIGKILL]
    assert not cgroup.populated()


def test_kill_reaches_every_cgroup_below(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup.child("a").child("b").create())
    cgroup.kill()
    assert cgroup.wait_empty(10)
    assert child.wait() == -signal.SIGKILL


def test_wait_empty_gives_up_after_its_timeout(cgroup: Cgroup, spawn: Spawn) -> None:
    spawn(cgroup)
    assert not cgroup.wait_empty(0.05)


def test_wait_empty_wakes_when_the_last_process_ends(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup, "cat")
    assert child.stdin is not None
    child.stdin.close()  # cat ends at the end of its input
    assert cgroup.wait_empty(10)


def test_wait_empty_of_a_cgroup_that_is_gone_is_over_at_once(cgroup: Cgroup) -> None:
    assert cgroup.child("nowhere").wait_empty(0)
    assert not cgroup.child("nowhere").populated()


def test_a_frozen_process_does_nothing_until_it_is_thawed(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup, "cat")
    assert child.stdin is not None
    assert child.stdout is not None
    cgroup.freeze()
    assert cgroup.frozen()
    child.stdin.write(b"x\n")
    child.stdin.flush()
    assert select.select([child.stdout], [], [], 0.05) == ([], [], [])
    cgroup.thaw()
    assert not cgroup.frozen()
    assert child.stdout.readline() == b"x\n"


def test_a_frozen_cgroup_can_be_killed(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup)
    cgroup.freeze()
    cgroup.kill()
    assert cgroup.wait_empty(10)
    assert child.wait() == -signal.SIGKILL


def test_delete_names_the_processes_in_the_way(cgroup: Cgroup, spawn: Spawn) -> None:
    child = spawn(cgroup)
    with pytest.raises(Conflict, match=rf"{child.pid}.*kill them first"):
        cgroup.delete(timeout=0.01)


def test_delete_waits_for_processes_that_are_ending(cgroup: Cgroup, spawn: Spawn) -> None:
    spawn(cgroup)
    cgroup.kill()
    cgroup.delete()
    assert not cgroup.exists()


def test_adding_a_process_that_is_gone_says_so(cgroup: Cgroup) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(NotFound, match="the process is gone"):
        cgroup.add(child.pid)


def test_a_cgroup_with_processes_cannot_enable_controllers_until_they_are_evacuated(
    cgroup: Cgroup, hierarchy: Hierarchy, spawn: Spawn
) -> None:
    child = spawn(cgroup)
    with pytest.raises(Conflict, match="evacuate them into a child first"):
        cgroup.enable(hierarchy.controllers)
    spare = cgroup.child("spare").create()
    assert cgroup.evacuate(spare) == [child.pid]
    cgroup.enable(hierarchy.controllers)
    assert spare.processes() == [child.pid]
    assert cgroup.enabled() == hierarchy.controllers
    with pytest.raises(Conflict, match="processes must go into a child"):
        cgroup.add(child.pid)


def test_a_controller_of_threads_is_refused_beside_processes_too(
    cgroup: Cgroup, hierarchy: Hierarchy, spawn: Spawn
) -> None:
    # The kernel takes cpu and pids there, and the children could then hold no process.
    spawn(cgroup)
    for controller in hierarchy.controllers:
        with pytest.raises(Conflict, match="evacuate"):
            cgroup.enable([controller])
    assert Path(cgroup.file("cgroup.type")).read_text() == "domain\n"


def test_prepare_moves_the_processes_of_a_delegated_cgroup_out_of_the_way(
    cgroup: Cgroup, hierarchy: Hierarchy, spawn: Spawn
) -> None:
    child = spawn(cgroup)
    ours = cgroup.child("rawpod")
    prepare(cgroup.path, ours, hierarchy.controllers)
    assert ours.child("system").processes() == [child.pid]
    assert ours.child("pod").create().controllers() == hierarchy.controllers


def test_prepare_refuses_a_cgroup_outside_of_the_delegation(cgroup: Cgroup) -> None:
    with pytest.raises(BadInput, match="outside of the delegated"):
        prepare(cgroup.path, cgroup.parent.child("other"), [])
    assert not cgroup.parent.child("other").exists()


def test_an_unknown_controller_is_named(cgroup: Cgroup) -> None:
    with pytest.raises(ControllerMissing) as caught:
        cgroup.enable(["frobnicate"])
    assert caught.value.controller == "frobnicate"


def test_a_limit_without_its_controller_is_refused_by_name(cgroup: Cgroup) -> None:
    bare = cgroup.child("a").child("bare").create()  # its parent hands no controller on
    with pytest.raises(ControllerMissing, match=r"memory\.max") as caught:
        Limits(memory_max=1 << 20).apply(bare)
    assert caught.value.controller == "memory"


def test_a_limit_on_a_cgroup_that_is_gone_says_so(cgroup: Cgroup) -> None:
    with pytest.raises(NotFound, match="no such cgroup"):
        Limits(memory_max=1 << 20).apply(cgroup.child("nowhere"))


def test_a_threaded_cgroup_is_refused_with_the_reason(cgroup: Cgroup, spawn: Spawn) -> None:
    threaded = cgroup.child("t").create()
    Path(threaded.file("cgroup.type")).write_text("threaded")
    invalid = cgroup.child("t").child("below").create()
    child = spawn(cgroup)
    with pytest.raises(NotSupported, match="threaded"):
        invalid.add(child.pid)


def test_a_descriptor_of_the_cgroup_is_its_directory(cgroup: Cgroup) -> None:
    descriptor = cgroup.open()
    try:
        assert os.fstat(descriptor).st_ino == os.stat(cgroup.path).st_ino
    finally:
        os.close(descriptor)


def test_every_write_is_reported_to_the_event_stream(cgroup: Cgroup) -> None:
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    try:
        child = cgroup.child("a").create()
        child.kill()
        child.delete()
        with pytest.raises(NotFound):
            child.kill()
    finally:
        unsubscribe()
    assert [event.name for event in seen] == ["cgroup_mkdir", "cgroup_write", "cgroup_rmdir", "cgroup_write"]
    assert seen[1].arguments == {"path": child.file("cgroup.kill"), "value": "1"}
    assert [event.errno for event in seen] == [0, 0, 0, 2]


def test_stats_of_an_idle_cgroup(cgroup: Cgroup) -> None:
    read = stats.read(cgroup)
    assert read.cpu is not None
    assert read.cpu.usage_us == 0
    assert set(read.pressure) >= {"cpu", "memory", "io"} or read.pressure == {}
    with pytest.raises(NotFound):
        stats.read(cgroup.child("nowhere"))


def test_the_hierarchy_is_found_in_the_layout_of_a_host_without_v1(v2_layout: Hierarchy, settings: Settings) -> None:
    assert v2_layout.mount == "/sys/fs/cgroup"
    subtree = Cgroup(v2_layout.subtree(settings.cgroup))
    prepare(v2_layout.root, subtree, v2_layout.controllers)
    assert find().name(subtree.path) == settings.cgroup
    subtree.delete()


def test_a_mark_of_delegation_bounds_the_subtree(cgroup: Cgroup) -> None:
    unit = cgroup.child("unit").create()
    inner = unit.child("inner").create()
    assert delegated(inner.path, cgroup.path) == cgroup.path
    os.setxattr(unit.path, "trusted.delegate", b"1")
    assert delegated(inner.path, cgroup.path) == unit.path
    os.removexattr(unit.path, "trusted.delegate")
    os.setxattr(unit.path, "user.delegate", b"1")
    assert delegated(inner.path, cgroup.path) == unit.path
