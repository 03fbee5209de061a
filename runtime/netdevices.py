"""`linux.netDevices`: network devices of the host that move into the container (config-linux.md, version 1.3)."""

from __future__ import annotations

import os

from kernel.operation import Operation
from netns.devices import move_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kernel.operation import Assembly


class MoveDevice(Operation):
    """Move a device with its addresses and set it up. When the namespace ends, the kernel decides where it goes."""

    host_name: str
    name: str

    def describe(self) -> str:
        renamed = f" as {self.name}" if self.name != self.host_name else ""
        return f"move network device {self.host_name}{renamed}"

    def execute(self, assembly: Assembly) -> None:
        namespace = os.open(f"/proc/{assembly.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            move_device(self.host_name, self.name, namespace)
        finally:
            os.close(namespace)
