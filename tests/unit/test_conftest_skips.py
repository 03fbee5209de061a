"""A skipped test fails inside the test machine, and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_that_skips():
    pytest.skip("no such thing here")

@pytest.mark.xfail(strict=True)
def test_that_fails_as_expected():
    assert False
"""


def _run(directory: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", directory)
    (directory / "test_it.py").write_text(test)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(directory),
        str(directory),
    ]
    clean = {name: value for name, value in os.environ.items() if name != "RAWPOD_VM"}
    return subprocess.run(command, cwd=directory, env=clean | environment, capture_output=True, text=True)


def test_a_skip_is_a_skip_on_any_host(tmp_path: Path) -> None:
    answer = _run(tmp_path, TESTS)
    assert answer.returncode == 0
    assert "1 skipped, 1 xfailed" in answer.stdout


@pytest.mark.parametrize("test", [TESTS, "import pytest\npytest.importorskip('no_such_module')\n"])
def test_a_skip_is_a_failure_in_the_test_machine(tmp_path: Path, test: str) -> None:
    answer = _run(tmp_path, test, RAWPOD_VM="1")
    assert answer.returncode != 0
    assert "skipped where nothing may be" in answer.stdout
