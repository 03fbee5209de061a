"""Builds an image: mmdebstrap makes the root, mke2fs puts it on a disk without mounting anything."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from harness import cache, initramfs
from harness.errors import HarnessError
from harness.recipes import PAYLOAD, PROVISION, Recipe

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


class Image:
    """A built image: a root disk, its kernel, and the first stage of its initramfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root.ext4"
        self.kernel = path / "vmlinuz"
        self.initramfs = path / "initramfs.cpio"

    @property
    def kernel_release(self) -> str:
        return (self.path / "kernel-release").read_text().strip()


def image(recipe: Recipe, *, force: bool = False) -> Image:
    """The image of a recipe, from the cache or built now."""
    return Image(cache.entry(recipe.key, lambda directory: _build(recipe, directory), force=force))


def _build(recipe: Recipe, directory: Path) -> None:
    need("mmdebstrap", "mke2fs")
    if os.geteuid() != 0:
        raise HarnessError("building an image needs root: run it once with sudo, later runs only read the cache")
    started = time.monotonic()
    say(f"building the {recipe.name} image of {recipe.release} (a few minutes; kept for later runs)")
    root = directory / "root"
    debootstrap(recipe, root, log=directory / "build.log")
    if recipe.payload:
        make_payload(recipe, root / PAYLOAD, log=directory / "payload.log")
    release = initramfs.newest_kernel(root)
    shutil.copyfile(root / "boot" / f"vmlinuz-{release}", directory / "vmlinuz")
    (directory / "kernel-release").write_text(release + "\n")
    (directory / "initramfs.cpio").write_bytes(initramfs.first_stage(root, release))
    make_ext4(root, directory / "root.ext4", recipe.size)
    shutil.rmtree(root)
    say(f"built {recipe.key} in {time.monotonic() - started:.0f} s")


def debootstrap(recipe: Recipe, root: Path, *, log: Path, initramfs: bool = False) -> None:
    """Unpacks and configures the recipe's packages in `root`, then runs its provision script on it.

    Debian's own initramfs is made only if asked for; the harness boots with one of its own.
    """
    requirements = log.with_name("requirements.txt")
    requirements.write_text(recipe.requirements)
    hook = f'--customize-hook={PROVISION / recipe.name} "$1" {requirements} {CA_BUNDLE}'
    options = ["--format=directory", "--variant=minbase", f"--include={','.join(recipe.packages)}", hook]
    _mmdebstrap(recipe, options, root, log, INITRD="Yes" if initramfs else "No")


def make_payload(recipe: Recipe, tar: Path, *, log: Path) -> None:
    """A root tar of the recipe's payload packages, as a user makes one for `rawpod image import`."""
    tar.parent.mkdir(parents=True)
    _mmdebstrap(recipe, ["--variant=minbase", f"--include={','.join(recipe.payload)}"], tar, log)


def _mmdebstrap(recipe: Recipe, options: list[str], target: Path, log: Path, **environment: str) -> None:
    command = ["mmdebstrap", "--mode=root", "--architectures=amd64", *options]
    command += ["--aptopt=Acquire::Retries 3", "--dpkgopt=path-exclude=/usr/share/man/*"]
    if KEYRING.exists():
        command += [f"--keyring={KEYRING}"]
    command += [recipe.release, str(target), *recipe.sources()]
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
        )
    if done.returncode != 0:
        tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-30:])
        raise HarnessError(f"mmdebstrap failed with status {done.returncode}; the end of its output:\n{tail}")


def make_ext4(root: Path, disk: Path, size: str, *, options: tuple[str, ...] = ("-O", "^has_journal")) -> None:
    """Makes a sparse ext4 file system from a directory; without a journal by default, as no disk outlives a boot."""
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", *options, "-m", "0", "-L", "rawpod", "-d", root, disk, size],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
    )


def need(*programs: str) -> None:
    """Refuses to start without the programs the harness calls."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        raise HarnessError(f"missing programs: {', '.join(missing)} (`make setup-test` installs them)")


def say(message: str) -> None:
    """Tells the user what the harness does; stdout belongs to the command."""
    print(f"vm: {message}", file=sys.stderr, flush=True)
