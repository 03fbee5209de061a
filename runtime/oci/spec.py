"""`spec`: a config.json to begin with, for a shell in ./rootfs, with the defaults of rawpod's own containers."""

from __future__ import annotations

import os

from kernel.errors import Conflict
from runtime import spec, spec_codec
from runtime.oci import bundle
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (
    Option("--bundle -b", "DIR", "where it is written (the current directory)"),
    Option("--rootless", help="for a user namespace that maps the caller to root"),
)
WORDS = "[OPTIONS]"
IN_ORDER = False

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_QUIET = ["nosuid", "noexec", "nodev"]


def run(invocation: Invocation) -> int:
    """Write config.json; an existing one is never overwritten."""
    invocation.no_more_words(0)
    path = os.path.join(invocation.parsed.text("--bundle", "."), bundle.CONFIG)
    described = spec_codec.plain(config(rootless=invocation.parsed.flag("--rootless")))
    # What is default is left out otherwise; scripts look for these to change them.
    described["process"] = {"user": {"uid": 0, "gid": 0}} | described["process"]
    text = _pretty(described)
    try:
        with open(path, "x") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise Conflict(f"{path!r} exists", remedy="remove it first") from None
    return 0


def config(*, rootless: bool) -> spec.Config:
    """A shell in its own namespaces. `rootless` with a user namespace in which the caller is root."""
    from runtime.pod.compile import MASKED_PATHS, READONLY_PATHS

    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    if rootless:
        kinds = [kind for kind in kinds if kind != "network"] + ["user"]
    linux = spec.Linux(
        namespaces=[spec.Namespace(kind) for kind in kinds],
        resources=spec.Resources(devices=[spec.DeviceRule(allow=False, access="rwm")]),
        masked_paths=list(MASKED_PATHS),
        readonly_paths=list(READONLY_PATHS),
    )
    if rootless:
        linux.resources = None
        linux.uid_mappings = [spec.IDMapping(0, os.geteuid(), 1)]
        linux.gid_mappings = [spec.IDMapping(0, os.getegid(), 1)]
    names = list(_CAPABILITIES)
    return spec.Config(
        oci_version=spec.OCI_VERSION,
        process=spec.Process(
            terminal=True,
            args=["sh"],
            env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            cwd="/",
            capabilities=spec.Capabilities(bounding=names, effective=names, permitted=names),
            rlimits=[spec.Rlimit("RLIMIT_NOFILE", 1024, 1024)],
            no_new_privileges=True,
        ),
        root=spec.Root("rootfs", readonly=True),
        hostname="rawpod",
        mounts=_mounts(rootless),
        linux=linux,
    )


def _mounts(rootless: bool) -> list[spec.Mount]:
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    mounts = [
        spec.Mount("/proc", "proc", "proc"),
        spec.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        spec.Mount("/dev/pts", "devpts", "devpts", terminals if rootless else [*terminals, "gid=5"]),
        spec.Mount("/dev/shm", "tmpfs", "shm", [*_QUIET, "mode=1777", "size=65536k"]),
        spec.Mount("/dev/mqueue", "mqueue", "mqueue", _QUIET),
        spec.Mount("/sys", "sysfs", "sysfs", [*_QUIET, "ro"]),
        spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_QUIET, "relatime", "ro"]),
    ]
    if rootless:
        mounts[5] = spec.Mount("/sys", "none", "/sys", ["rbind", *_QUIET, "ro"])
    return mounts


def _pretty(value: object) -> str:
    import json

    return json.dumps(value, indent=2)
