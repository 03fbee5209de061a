"""`rawpod-oci` beside runc and crun: create, start and delete of /bin/true, three processes a container.

As root: .venv/bin/python -m bench.oci [CONTAINERS]

The runtimes take turns, container by container, on the same bundle, with cgroup2 alone in sight and no limits. Wall is
what the caller waits; CPU is what the three processes used, which other work on the machine disturbs less.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import commands, lab
from cgroups.hierarchy import find
from kernel import mounts

OCI = str(Path(lab.RAWPOD).with_name("rawpod-oci"))
STEPS = ("create", "start", "delete")


def main() -> None:
    containers = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print(lab.machine())
    lab.own_host()
    if find().mount != "/sys/fs/cgroup":
        mounts.mount(find().mount, "/sys/fs/cgroup", None, mounts.MS_BIND)
    home = Path(tempfile.mkdtemp(prefix="rp-bench-"))
    try:
        bundle = commands.bundle(home)
        runtimes = {
            "rawpod-oci": [OCI, "--root", str(home / "rawpod")],
            "runc": ["runc", "--root", str(home / "runc")],
            "crun": ["crun", "--cgroup-manager=disabled", "--root", str(home / "crun")],
        }
        present = {name: words for name, words in runtimes.items() if shutil.which(words[0])}
        taken: dict[str, list[list[float]]] = {name: [] for name in present}
        for number in range(containers + 1):
            for name, words in present.items():
                times = _life(words, bundle, f"bench-{number}")
                if number:
                    taken[name].append(times)
        _report(taken)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _life(runtime: list[str], bundle: Path, name: str) -> list[float]:
    """Milliseconds: wall of each step, then wall and CPU of all."""
    walls, cpu = [], 0.0
    for step in STEPS:
        words = [*runtime, step, *(["--bundle", str(bundle)] if step == "create" else []), name]
        began = time.perf_counter()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(1000 * (time.perf_counter() - began))
        cpu += 1000 * (usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}: status {process.returncode}")
        if step == "start":
            time.sleep(0.02)  # it has to have ended before it can be deleted
    return [*walls, sum(walls), cpu]


def _report(taken: dict[str, list[list[float]]]) -> None:
    print(
        f"{'median ms of ' + str(len(next(iter(taken.values())))):<16}", *(f"{s:>8}" for s in (*STEPS, "wall", "CPU"))
    )
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in taken.items()}
    for name, values in medians.items():
        print(f"{name:<16}", *(f"{value:8.1f}" for value in values))
    for name, values in medians.items():
        if name != "rawpod-oci":
            print(
                f"{'rawpod-oci / ' + name:<20}",
                *(f"{a / b:8.2f}" for a, b in zip(medians["rawpod-oci"], values, strict=True)),
            )


if __name__ == "__main__":
    main()
