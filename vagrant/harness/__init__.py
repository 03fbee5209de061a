"""The machine rawpod's tests run in: a Debian image built by mmdebstrap, booted by QEMU. See docs/vm.md.

Standard library only: the harness runs with the system's Python, before anything of rawpod's is installed.
"""
