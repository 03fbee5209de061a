"""The machine rawpod's tests run in: a Debian image built by mmdebstrap, booted by QEMU. Standard library only; see docs/vm.md."""
