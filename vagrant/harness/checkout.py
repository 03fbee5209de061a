"""The checkout as a disk: a tar archive that the guest reads straight from a virtio block device."""

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from harness.errors import HarnessError
from harness.recipes import CHECKOUT


def write_disk(disk: Path, *, with_repository: bool) -> None:
    """Writes rawpod/, every file git tracks or would, to `disk`; with_repository adds rawpod.git, a bare clone."""
    with tarfile.open(disk, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in _files():
            path = CHECKOUT / name
            if path.is_symlink() or path.exists():
                archive.add(path, arcname=f"rawpod/{name}", recursive=False, filter=_as_root)
        if with_repository:
            with tempfile.TemporaryDirectory(prefix="rawpod-vm-git-") as temporary:
                clone = Path(temporary) / "rawpod.git"
                _git("clone", "--quiet", "--bare", "--no-hardlinks", str(CHECKOUT), str(clone))
                archive.add(clone, arcname="rawpod.git", filter=_as_root)
    # A disk has whole sectors, and the guest needs at least one.
    os.truncate(disk, -(-disk.stat().st_size // 4096) * 4096)


def _files() -> list[str]:
    listed = _git("-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return sorted(name.decode() for name in set(listed.split(b"\0")) if name)


def _git(*arguments: str) -> bytes:
    # Under sudo the checkout belongs to somebody else than root, which git refuses unless told.
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "-c", f"safe.directory={CHECKOUT}/.git", *arguments]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        raise HarnessError(f"git could not read the checkout: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
