"""The OCI runtime command line: what podman, containerd and CRI-O call in place of runc."""
