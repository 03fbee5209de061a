"""The fixture that watches every root test fails one that leaves something behind, and only that one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runtime import leaks
from runtime.settings import Settings
from tests.host import without_others_mounts

REPOSITORY = Path(__file__).parents[2]

CONFTEST = "from tests.host import host, leak_oracle, settings\n"

TESTS = """
import subprocess

def test_that_leaves_a_link():
    subprocess.run(["ip", "link", "add", "left0", "type", "bridge"], check=True)

def test_that_tidies_up():
    subprocess.run(["ip", "link", "add", "gone0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "del", "gone0"], check=True)
"""


def test_a_test_that_leaves_something_fails_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "tests.conftest", "--rootdir", str(tmp_path)]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert answer.returncode == 1, answer.stdout
    assert "left behind: link left0" in answer.stdout
    assert "2 passed, 1 error" in answer.stdout
    assert not Path("/sys/class/net/left0").exists()


def test_a_mount_whose_directory_others_remove_is_no_trace_of_ours(settings: Settings, tmp_path: Path) -> None:
    point = tmp_path / "of-others"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    before = leaks.snapshot(settings)
    elsewhere = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'umount "$1" && rmdir "$1"', "sh", point]
    subprocess.run(elsewhere, check=True)
    after = leaks.snapshot(settings)
    assert leaks.difference(before, after) == [f"gone: mount {point} (tmpfs)"]
    assert leaks.difference(*without_others_mounts(before, after)) == []
