"""The OCI commands start a fresh interpreter each time, so what they import is their cost."""

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
HEAVY = {"asyncio", "click", "collections", "contextlib", "dataclasses", "enum", "functools", "inspect", "json"}
HEAVY |= {"msgspec", "pathlib", "re", "shutil", "signal", "socket", "subprocess", "tempfile", "typing"}


@pytest.mark.parametrize("command", ["create", "start", "state", "kill", "delete", "run", "exec"])
def test_a_command_imports_nothing_that_takes_long(command):
    script = (
        f"import sys; before = set(sys.modules); sys.path.append({str(HOME)!r}); "
        f"import runtime.oci.main, runtime.oci.{command}; print(*set(sys.modules) - before)"
    )
    printed = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(printed.split())


@pytest.mark.parametrize("command", ["start", "state", "kill", "delete"])
def test_commands_after_creation_load_neither_ctypes_nor_the_description(command):
    script = f"import sys; sys.path.append({str(HOME)!r}); import runtime.oci.{command}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"ctypes", "runtime.spec", "runtime.plan"} & set(printed.split())
