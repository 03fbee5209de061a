import json, os, shutil, subprocess, sys
from pathlib import Path

home = Path("/tmp/mm")
(home / "rootfs/bin").mkdir(parents=True)
for d in ("proc", "dev", "sys"):
    (home / "rootfs" / d).mkdir()
shutil.copy(shutil.which("busybox"), home / "rootfs/bin/busybox")


def conf(limit):
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["busybox", "true"], "env": ["PATH=/bin"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": "/mm",
            "resources": {"memory": {"limit": limit, "swap": limit}},
            "namespaces": [{"type": k} for k in ("pid", "mount", "ipc", "uts", "cgroup", "network")],
        },
    }


def r(rt, *a):
    with open("/tmp/o", "w+") as o:
        c = subprocess.run([*rt, *a], stdin=subprocess.DEVNULL, stdout=o, stderr=o).returncode
        o.seek(0)
        return c, o.read().strip()


for rtname in (".venv/bin/rawpod-oci",):
    rt = [rtname, "--root", "/tmp/st"]
    for kib in (8192, 6144, 4096, 3072, 2048, 1536, 1280, 1024, 768, 512):
        (home / "config.json").write_text(json.dumps(conf(kib << 10)))
        c, o = r(rt, "create", "-b", str(home), "m")
        line = f"{rtname} {kib} KiB create {c} {o[:150]}"
        if c == 0:
            cur = open("/sys/fs/cgroup/mm/memory.current").read().strip()
            pk = open("/sys/fs/cgroup/mm/memory.peak").read().strip()
            c, o = r(rt, "start", "m")
            import time

            time.sleep(1)
            ev = open("/sys/fs/cgroup/mm/memory.events").read().split()
            line += f" gate {cur} peak {pk} start {c} {o[:150]} oom_kill {ev[ev.index('oom_kill') + 1]}"
        r(rt, "delete", "-f", "m")
        print(line, flush=True)
        if not line.split("create ")[1].startswith("0"):
            break
