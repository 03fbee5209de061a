"""What one run brings into the machine and takes out of it."""

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import accel, build, checkout, initramfs
from harness.build import CA_BUNDLE, Image, say
from harness.qemu import Machine
from harness.session import Outcome, Session

GUEST = Path(__file__).resolve().parent.parent / "guest"
RESULTS_SIZE = 4 << 30


@dataclass(frozen=True)
class Job:
    """One command for the machine. An empty command is an interactive shell."""

    command: Sequence[str]
    systemd: bool = False
    network: bool = False
    memory: int = 2560
    cpus: int = 2
    timeout: float = 1800
    share_back: Path | None = None
    with_repository: bool = False

    def script(self) -> str:
        """The shell script the guest runs: one argument is a script itself, several are one command."""
        command = self.command[0] if len(self.command) == 1 else shlex.join(self.command)
        return f"cd /root/rawpod\n{command}\n"


def run(image: Image, job: Job, accelerator: str) -> int:
    """Boots the image for one job and returns the job's exit status."""
    build.need("qemu-system-x86_64", "setpriv", "git")
    if accelerator == "auto":
        accelerator = accel.choose(image, lambda limit: _boots_with_kvm(image, limit))
    with tempfile.TemporaryDirectory(prefix="rawpod-vm-") as temporary:
        machine = prepare(image, job, accelerator, Path(temporary))
        session = Session(machine, output=sys.stdout.fileno())
        outcome = session.run(job.timeout)
        _report(outcome, accelerator)
        if job.share_back is not None:
            _bring_back(machine.results, job.share_back)
        return session.exit_status()


def prepare(image: Image, job: Job, accelerator: str, directory: Path) -> Machine:
    """Writes the disks and the initramfs of one boot into `directory`."""
    stage = directory / "initramfs"
    stage.write_bytes(image.initramfs.read_bytes() + _second_stage(job))
    checkout.write_disk(directory / "checkout.tar", with_repository=job.with_repository)
    with (directory / "results.tar").open("wb") as results:
        results.truncate(RESULTS_SIZE)
    return Machine(
        kernel=image.kernel,
        initramfs=stage,
        root=image.root,
        checkout=directory / "checkout.tar",
        results=directory / "results.tar",
        console=directory / "console.log",
        accel=accelerator,
        memory=job.memory,
        cpus=job.cpus,
        network=job.network,
        interactive=not job.command,
    )


def _second_stage(job: Job) -> bytes:
    regular, executable = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755
    files = {
        "init": (executable, (GUEST / "initramfs-init").read_bytes()),
        "guest": (stat.S_IFDIR | 0o755, b""),
        "guest/init-system": (regular, b"systemd\n" if job.systemd else b"init\n"),
    }
    for name in ("init", "command", "network", "rawpod-vm.service"):
        files[f"guest/{name}"] = (executable if name in ("init", "command") else regular, (GUEST / name).read_bytes())
    if job.command:
        files["guest/job"] = (regular, job.script().encode())
    else:
        files["guest/interactive"] = (regular, b"")
    if job.network and CA_BUNDLE.exists():
        files["guest/ca.crt"] = (regular, CA_BUNDLE.read_bytes())
    return initramfs.cpio(files)


def _boots_with_kvm(image: Image, limit: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="rawpod-vm-") as temporary:
        machine = prepare(image, Job(command=["true"], memory=1024), "kvm", Path(temporary))
        with open(os.devnull, "wb") as nothing:
            session = Session(machine, output=nothing.fileno(), errors=nothing.fileno())
            return session.run(2 * limit, boot_limit=limit).status == 0


def _report(outcome: Outcome, accelerator: str) -> None:
    if os.environ.get("RAWPOD_VM_TIMES"):
        say(f"{accelerator}: " + ", ".join(f"{name} after {at:.1f} s" for name, at in outcome.milestones.items()))


def _bring_back(disk: Path, directory: Path) -> None:
    """Unpacks what the job left in $RAWPOD_VM_RESULTS; the disk is empty if the machine never got there."""
    with disk.open("rb") as file:
        if not file.read(512).strip(b"\0"):
            say("the machine brought no results back")
            return
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xf", str(disk), "-C", str(directory), "--no-same-owner"], check=True)
