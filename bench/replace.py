"""How long a killed payload is missing: 50 pods, each payload killed once by SIGKILL.

As root: .venv/bin/python -m bench.replace [PODS]

From just before kill(2) to the moment its monitor knows that execve(2) of the replacement has succeeded, both on
CLOCK_MONOTONIC. Each payload is killed once, because the second time a back-off is due.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from bench import lab


def main() -> None:
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(lab.machine())
    lab.own_host()
    with lab.instance() as home, lab.supervisor(home):
        began = time.monotonic()
        lab.rawpod("apply", "-f", "-", text=lab.deployment("bench", pods, ["sleep", "infinity"]))
        running = lab.wait_running(home, pods)
        print(f"{pods} pods from apply to running: {time.monotonic() - began:.2f} s")
        times, noticed = [], []
        for status in running:
            path = home / "state/pods" / status["rawpod"]["metadata"]["uid"] / "status.json"
            before = status["rawpod"]["containers"]["main"]
            killed = time.monotonic()
            os.kill(before["pid"], signal.SIGKILL)
            after = _replaced(path, before["pid"])
            times.append(after["started"] - killed)
            noticed.append(after["died"] - killed)
        lab.show("kill -9 to the end being noticed", noticed)
        lab.show("kill -9 to the replacement's execve", times)


def _replaced(path: Path, pid: int) -> dict[str, float]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        record: dict[str, float] = json.loads(path.read_text())["rawpod"]["containers"]["main"]
        if record["pid"] not in (0, pid):
            return record
        time.sleep(0.005)
    raise SystemExit("a killed payload was not replaced within 60 s")


if __name__ == "__main__":
    main()
