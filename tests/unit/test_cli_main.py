"""The program: its table of commands and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from runtime.cli.main import SECTIONS, cli

HOME = Path(__file__).parents[2]
ENTRIES = [entry for section in SECTIONS for entry in section.entries]


def rawpod(*arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {str(HOME)!r}); {prelude}\nfrom runtime.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-I", "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_every_command_of_the_table_is_there_under_its_name(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.name == name and command.help


def test_help_lists_all_commands_in_groups_and_imports_none() -> None:
    shown = rawpod("--help", prelude="import atexit; atexit.register(lambda: print(sorted(sys.modules)))")
    assert shown.returncode == 0
    for section in SECTIONS:
        assert f"{section.title}:" in shown.stdout
    for entry in ENTRIES:
        assert f"  {entry.name} " in shown.stdout and entry.target.partition(":")[0] not in shown.stdout


HEAVY = {"aiohttp", "asyncio", "msgspec", "pyroute2", "yaml", "sqlite3", "tarfile", "ssl", "email"}


def test_get_imports_nothing_heavy(tmp_path: Path) -> None:
    told = "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    shown = rawpod("--state", str(tmp_path), "get", "pods", prelude=told)
    assert shown.returncode == 125
    assert not HEAVY & set(shown.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nonsense"], 2, "No such command"),
        (["get", "--nonsense"], 2, "No such option"),
        (["--state", "/nonexistent/x", "get", "pods"], 125, "rawpod: no supervisor listens at"),
        (["get", "spoons"], 125, 'rawpod: no kind of object "spoons"'),
        (["get"], 2, "rawpod: which kind of object?"),
        (["delete", "pods"], 2, "rawpod: which pods?"),
        (["scale", "cm/x", "--replicas", "1"], 2, "cannot be scaled"),
        (["scale", "deploy/x", "--replicas", "-1"], 2, "-1"),
    ],
)
def test_errors_are_told_in_a_line_with_their_status(arguments: list[str], status: int, told: str) -> None:
    shown = rawpod(*arguments)
    assert shown.returncode == status and told in shown.stderr and "Traceback" not in shown.stderr


def test_faults_of_manifests_begin_with_file_and_line(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ../x\ncolour: red\n")
    shown = rawpod("apply", "-f", str(manifest))
    assert shown.returncode == 2
    assert [line.startswith(f"{manifest}:") for line in shown.stderr.splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("raised", "status"),
    [("KeyboardInterrupt", 130), ("BrokenPipeError", 141), ("RawpodError('x')", 125), ("CommandNotFound('x')", 127)],
)
def test_how_the_program_ends(raised: str, status: int) -> None:
    prelude = (
        "from kernel.errors import *; import runtime.cli.main as m, click\n"
        f"def fail(*a, **k): raise {raised}\n"
        "m.cli.get_command = lambda ctx, name: click.Command('x', callback=fail)"
    )
    shown = rawpod("x", prelude=prelude)
    assert shown.returncode == status and "Traceback" not in shown.stderr


def test_a_reader_that_has_gone_is_no_error_to_talk_about() -> None:
    script = f"import sys; sys.path.insert(0, {str(HOME)!r}); from runtime.cli.main import main; main()"
    writer = subprocess.Popen(
        [sys.executable, "-I", "-c", script, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    with writer.stderr:
        assert writer.stderr.read() == ""
    assert writer.wait() == 141
