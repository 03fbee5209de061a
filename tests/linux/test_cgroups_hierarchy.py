"""Finding our part of the tree as a process sees it that was put somewhere else in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cgroups.cgroup import Cgroup

REPOSITORY = Path(__file__).parents[2]
FIND = """
from cgroups.hierarchy import find
from kernel.errors import HostError
try:
    found = find()
    print(found.mount, found.root, found.own, found.name(found.own))
except HostError as error:
    print(error)
"""


def _find_in(cgroup: Cgroup, *prefix: str) -> str:
    """What find() says to a process in that cgroup, started by the command in front."""
    command = [*prefix, sys.executable, "-c", FIND]
    gate = ["sh", "-c", 'read go; exec "$@"', "sh", *command]
    with subprocess.Popen(gate, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        cgroup.add(child.pid)
        answer, _ = child.communicate("\n", timeout=60)
    return answer.strip()


def test_below_a_delegated_unit_the_unit_is_ours(cgroup: Cgroup) -> None:
    unit = cgroup.child("rawpod.service").create()
    main = unit.child("main").create()
    os.setxattr(unit.path, "trusted.delegate", b"1")
    mount, root, own, _ = _find_in(main).split()
    assert (root, own) == (unit.path, main.path)
    assert Path(mount) in Path(unit.path).parents


def test_in_a_cgroup_namespace_a_mount_from_outside_is_refused_with_the_remedy(cgroup: Cgroup) -> None:
    answer = _find_in(cgroup, "unshare", "--cgroup", "--mount")
    assert "does not show our cgroup" in answer
    assert "mount -t cgroup2" in answer


def test_in_a_cgroup_namespace_its_own_mount_is_found(cgroup: Cgroup, tmp_path: Path) -> None:
    script = f'mount -t cgroup2 none "{tmp_path}" && exec "$@"'
    answer = _find_in(cgroup, "unshare", "--cgroup", "--mount", "sh", "-c", script, "sh")
    assert answer.split() == [str(tmp_path), str(tmp_path), str(tmp_path), "/"]
