"""The command line of one QEMU: a throw-away machine on a snapshot of the image's root disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNITS_LEFT_OUT = (
    *("serial-getty@ttyS0.service", "getty@tty1.service", "e2scrub_all.timer", "e2scrub_reap.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)
"""Units a machine of a few minutes' life has no use for; masked on the kernel's command line only."""

KERNEL_ARGUMENTS = (
    "console=ttyS0 loglevel=4 panic=-1 net.ifnames=0 "
    # Nothing secret is in this machine, and an emulated processor pays for every one of these.
    "mitigations=off init_on_alloc=0 nokaslr random.trust_cpu=on audit=0 "
    "systemd.unit=multi-user.target " + " ".join(f"systemd.mask={unit}" for unit in UNITS_LEFT_OUT)
)


@dataclass(frozen=True)
class Machine:
    """What is asked of QEMU. Paths are on the host; `memory` in MiB; `accel` is "kvm" or "tcg"."""

    kernel: Path
    initramfs: Path
    root: Path
    checkout: Path
    results: Path
    console: Path
    accel: str
    memory: int = 2560
    cpus: int = 2
    network: bool = False
    interactive: bool = False

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The argument vector; `ports` maps the names of virtio-serial ports to connected sockets QEMU inherits.

        setpriv(1) ends QEMU with the harness, whatever ends the harness.
        """
        accel = ["kvm", "-cpu", "host"] if self.accel == "kvm" else ["tcg,thread=multi", "-cpu", "max"]
        return [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
            *("-machine", "q35,hpet=off", "-accel", *accel, "-smp", str(self.cpus), "-m", str(self.memory)),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-kernel", str(self.kernel), "-initrd", str(self.initramfs), "-append", KERNEL_ARGUMENTS),
            *("-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"),
            *self._disk("root", self.root, "snapshot=on,cache=unsafe"),
            *self._disk("checkout", self.checkout, "readonly=on"),
            *self._disk("results", self.results, "cache=unsafe"),
            *("-device", "virtio-serial-pci"),
            *(argument for name, fd in ports.items() for argument in self._port(name, fd)),
            *self._terminal(),
            *self._nic(),
        ]

    def _disk(self, name: str, path: Path, options: str) -> list[str]:
        return [
            *("-drive", f"if=none,id={name},format=raw,file={path},{options}"),
            *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
        ]

    def _port(self, name: str, fd: int) -> list[str]:
        return [
            *("-chardev", f"socket,id={name},fd={fd}"),
            *("-device", f"virtserialport,chardev={name},name={name}"),
        ]

    def _terminal(self) -> list[str]:
        if not self.interactive:
            return []
        return ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal"]

    def _nic(self) -> list[str]:
        if not self.network:
            return ["-nic", "none"]
        return ["-netdev", "user,id=uplink", "-device", "virtio-net-pci,netdev=uplink,romfile="]
