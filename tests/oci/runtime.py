"""The runtime under test, as a command line, and what a command of it answered."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 30
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """How a command ended, and all it printed."""

    command: str
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{self.command}: status {self.code}\nstdout: {self.out}\nstderr: {self.err}"

    def ok(self) -> Result:
        """This result, which must be a success."""
        assert self.code == 0, str(self)
        return self

    def failed(self) -> Result:
        """This result, which must be an error that says why."""
        assert self.code != 0, f"should have failed: {self}"
        assert self.code > 0, f"ended by a signal: {self}"
        assert "Traceback" not in self.err, str(self)
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.ok().out)


class Runtime:
    """RUNTIME of the environment: a program with its arguments."""

    def __init__(self, command: str, root: Path) -> None:
        self.argv = shlex.split(command)
        self.root = root

    @property
    def name(self) -> str:
        return os.path.basename(self.argv[0])

    @property
    def manages_cgroups(self) -> bool:
        return "--cgroup-manager=disabled" not in self.argv

    def version(self) -> tuple[int, ...]:
        """The program's own version, from the first line of --version."""
        printed = self("--version").ok().out.splitlines()[0]
        found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", printed)
        assert found, printed
        return tuple(int(part or 0) for part in found.groups())

    def __call__(
        self,
        *arguments: str | Path | int,
        options: tuple[str | Path, ...] = (),
        cwd: Path | None = None,
        stdin: str | None = None,
        output: Path | None = None,
        pass_fds: tuple[int, ...] = (),
        env: dict[str, str] | None = None,
        **process: Any,
    ) -> Result:
        """Run one command to its end. `options` are global ones; a container's stdout may go to a file, `output`.

        Output is never a pipe: a container that outlives the command keeps its end open.
        """
        argv = [*self.argv, "--root", str(self.root), *map(str, options), *map(str, arguments)]
        file = tempfile.TemporaryFile
        with file("w+") as into, file("w+") as out, file("w+") as err:
            into.write(stdin or "")
            into.seek(0)
            with open(output or os.devnull, "a") as named:
                started = subprocess.Popen(
                    argv,
                    stdin=into,
                    stdout=named if output else out,
                    stderr=err,
                    cwd=cwd,
                    pass_fds=pass_fds,
                    env={"PATH": os.environ["PATH"], **(env or {})},
                    **process,
                )
            code = _ended(started)
            out.seek(0)
            err.seek(0)
            printed = out.read() if output is None else ""
            return Result(shlex.join(argv), code, printed, err.read())


def _ended(process: subprocess.Popen[str]) -> int:
    """The exit status, once it has come; the wait of subprocess looks every 50 ms if it is given a limit."""
    pidfd = os.pidfd_open(process.pid)
    try:
        if not select.select([pidfd], [], [], _TIMEOUT_SECONDS)[0]:
            process.kill()
            raise AssertionError(f"{shlex.join(map(str, process.args))} did not end in {_TIMEOUT_SECONDS} s")
    finally:
        os.close(pidfd)
    return process.wait()
