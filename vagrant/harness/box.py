"""A box for vagrant's libvirt provider: a bootable disk of its own recipe, with what `vagrant up` needs to take it."""

import io
import json
import shutil
import struct
import subprocess
import tarfile
import time
from pathlib import Path

from harness import cache
from harness.build import debootstrap, make_ext4, need, say
from harness.recipes import CHECKOUT, Recipe, recipe

SECTOR = 512
PARTITION_START = 2048
"""First sector of the only partition: 1 MiB, so that GRUB's core image fits before it."""

VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = File.exist?("/dev/kvm") ? "kvm" : "qemu"
    libvirt.disk_bus = "virtio"
  end
end
"""


def make(release: str, output: Path | None) -> Path:
    """Builds (or finds in the cache) the box of a release and puts a copy at `output`."""
    need("mmdebstrap", "mke2fs", "qemu-img")
    wanted = recipe("box", release)
    built = cache.entry(wanted.key, lambda directory: _build(wanted, directory)) / "rawpod.box"
    output = output or CHECKOUT / "build" / f"rawpod-{release}.box"
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    shutil.copyfile(built, partial)
    partial.rename(output)
    return output


def _build(wanted: Recipe, directory: Path) -> None:
    say(f"building the box of {wanted.release} (a few minutes; kept for later runs)")
    started = time.monotonic()
    root, raw, disk = directory / "root", directory / "disk.raw", directory / "box.img"
    debootstrap(wanted, root, log=directory / "build.log", initramfs=True)
    partition_mib = int(wanted.size.removesuffix("G")) * 1024 - 1
    # GRUB 2.06 reads neither of these two newer features of ext4.
    make_ext4(
        root,
        raw,
        f"{partition_mib}M",
        options=("-O", "^metadata_csum_seed,^orphan_file", "-E", f"offset={PARTITION_START * SECTOR}"),
    )
    _install_grub(raw, root / "boot/grub", sectors=partition_mib * 2048)
    shutil.rmtree(root)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-c", raw, disk], check=True)
    raw.unlink()
    _pack(directory / "rawpod.box", disk, int(wanted.size.removesuffix("G")))
    disk.unlink()
    say(f"built {wanted.key} in {time.monotonic() - started:.0f} s")


def _install_grub(raw: Path, grub: Path, *, sectors: int) -> None:
    """Writes a DOS partition table and GRUB's two images in front of the partition.

    boot.img loads the sector after itself, and core.img the sectors after that: the defaults built into both,
    so nothing is patched.
    """
    boot, core = (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes()
    if len(core) > (PARTITION_START - 1) * SECTOR:
        raise ValueError(f"core.img does not fit before the partition: {len(core)} bytes")
    # One bootable Linux partition (type 0x83), by sector: FE FF FF says cylinders and heads do not apply.
    partition = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", PARTITION_START, sectors)
    with raw.open("r+b") as file:
        file.write(boot[:440].ljust(446, b"\0") + partition + bytes(48) + b"\x55\xaa" + core)
        file.truncate((PARTITION_START + sectors) * SECTOR)


def _pack(box: Path, disk: Path, gigabytes: int) -> None:
    metadata = json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": gigabytes}) + "\n"
    # The disk is compressed already.
    with tarfile.open(box, "w:gz", compresslevel=1) as archive:
        for name, content in (("metadata.json", metadata.encode()), ("Vagrantfile", VAGRANTFILE.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = int(time.time())
            archive.addfile(member, io.BytesIO(content))
        archive.add(disk, arcname="box.img")
