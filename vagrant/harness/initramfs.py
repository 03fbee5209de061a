"""The initramfs: busybox and a few modules from the image (first stage, cached), then the guest scripts of this run.

The kernel unpacks concatenated cpio archives one after the other
(Documentation/driver-api/early-userspace/buffer-format.rst), so a change to a guest script never rebuilds the image.
"""

import lzma
import stat
import subprocess
from pathlib import Path

from harness.errors import HarnessError

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "ext4", "overlay")


def newest_kernel(root: Path) -> str:
    """Release of the kernel installed in a root, as `uname -r` will say it."""
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise HarnessError(f"the image has no kernel in {str(root / 'boot')!r}")
    return kernels[-1]


def first_stage(root: Path, release: str) -> bytes:
    """A cpio archive with busybox, the modules needed to reach the root disk, and their order in /modules/order."""
    files: dict[str, tuple[int, bytes]] = {}
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        files[name] = (stat.S_IFDIR | 0o755, b"")
    files["bin/busybox"] = (stat.S_IFREG | 0o755, _busybox(root))
    order = []
    for path in _load_order(root / "lib/modules" / release):
        name = path.name.split(".ko")[0] + ".ko"
        files[f"modules/{name}"] = (stat.S_IFREG | 0o644, _decompressed(path))
        order.append(name)
    files["modules/order"] = (stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode())
    return cpio(files)


def _busybox(root: Path) -> bytes:
    for place in ("usr/bin/busybox", "bin/busybox"):
        if (root / place).exists():
            return (root / place).read_bytes()
    raise HarnessError("the image has no busybox")


def _load_order(modules: Path) -> list[Path]:
    """The wanted modules with what they depend on, dependencies first; what is built into the kernel is left out."""
    depends: dict[str, tuple[Path, list[str]]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        # modules.dep lists the dependencies of a module in reverse order of loading (depmod(8)).
        depends[_module_name(path)] = (modules / path, [_module_name(need) for need in reversed(needs.split())])
    order: list[Path] = []
    for wanted in MODULES:
        if wanted in depends:
            module, needed = depends[wanted]
            order += [*(depends[name][0] for name in needed), module]
    return list(dict.fromkeys(order))


def _module_name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive in the "newc" format of cpio(5): name -> (mode, content), directories before what they hold."""
    out = bytearray()
    for inode, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], start=1):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)
