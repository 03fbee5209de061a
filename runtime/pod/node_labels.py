"""The labels of the one node there is: what a nodeSelector is judged by."""

from __future__ import annotations

import os

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def node_labels() -> dict[str, str]:
    """Kubernetes' well-known labels of this machine, as kubelet sets them."""
    host = os.uname()
    return {
        "kubernetes.io/arch": _ARCHITECTURES.get(host.machine, host.machine),
        "kubernetes.io/hostname": host.nodename.lower(),
        "kubernetes.io/os": "linux",
    }
