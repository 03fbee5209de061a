"""`features`: what this runtime can do (features.md), and `--version`."""

from __future__ import annotations

from runtime import VERSION, jsontext
from runtime.spec_codec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.oci.main import Invocation
    from runtime.oci.options import Option

OPTIONS: tuple[Option, ...] = ()
WORDS = ""
IN_ORDER = False

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def run(invocation: Invocation) -> int:
    """Print the features as JSON."""
    invocation.no_more_words(0)
    print(jsontext.dumps(features()).decode())
    return 0


def version() -> str:
    """The lines of --version; the last one in crun's form, which its callers search for words."""
    return f"rawpod-oci version {VERSION}\nspec: {OCI_VERSION}\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF"


def features() -> dict[str, Any]:
    """The object that features.md and features-linux.md describe."""
    from kernel.names import CAPABILITIES, MEMORY_POLICIES, MEMORY_POLICY_FLAGS
    from rootfs.options import known_options
    from runtime.operations import NAMESPACE_FLAGS

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": known_options(),
        "linux": {
            "namespaces": sorted(NAMESPACE_FLAGS),
            "capabilities": list(CAPABILITIES),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "memoryPolicy": {"modes": list(MEMORY_POLICIES), "flags": list(MEMORY_POLICY_FLAGS)},
            "netDevices": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "cgroup": {"v1": False, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": _seccomp(),
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _seccomp() -> dict[str, Any]:
    from kernel.seccomp import flag_available
    from runtime.seccomp.architectures import ARCHITECTURES
    from runtime.seccomp.compiler import FLAGS
    from runtime.seccomp.conditions import OPERATORS
    from runtime.seccomp.rules import ACTIONS

    return {
        "enabled": True,
        "actions": sorted(ACTIONS),
        "operators": sorted(OPERATORS),
        "archs": sorted(ARCHITECTURES),
        "knownFlags": sorted(FLAGS),
        "supportedFlags": sorted(name for name, flag in FLAGS.items() if flag_available(flag)),
    }
