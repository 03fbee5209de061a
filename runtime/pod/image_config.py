"""What an image's configuration means: its words checked, with the field that is wrong named. Pure.

The fields are those of OCI image-spec's config.md and Docker's Healthcheck. An image is written by strangers: nothing
of it names a place on the host, and its labels are never read here (CVE-2022-23648, CVE-2026-53488).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from kernel.errors import BadInput
from kernel.record import Record
from runtime.pod.faults import shown
from runtime.pod.signals import signal_number

DEFAULT_STOP_SIGNAL = 15
MAX_VOLUMES = 100
_KERNELS = ("/proc", "/sys", "/dev")
_SECOND = 10**9
_MILLISECOND = 10**6


class Health(Record):
    """How a container's health is found out: `args` are run in it, every `interval` seconds.

    Within `start_period` seconds of the start failures do not count and `start_interval` is the pause between two
    tests. A test that takes longer than `timeout` has failed, and `retries` failures in a row make it unhealthy.
    """

    args: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


def stop_signal(text: str, image: str) -> int:
    """The signal that asks a container of the image to end; SIGTERM where it names none. Raises BadInput."""
    if not text:
        return DEFAULT_STOP_SIGNAL
    try:
        return signal_number(text)
    except BadInput as error:
        raise _wrong(image, "StopSignal", error.message) from None


def volumes(paths: Sequence[str], image: str) -> tuple[str, ...]:
    """The image's volumes as absolute paths of the container, without ".." and without repetitions.

    Raises BadInput for the root, for what the kernel's filesystems are mounted on, and for what is no path.
    """
    if len(paths) > MAX_VOLUMES:
        raise _wrong(image, "Volumes", f"{len(paths)} volumes are more than {MAX_VOLUMES}")
    found: dict[str, None] = {}
    for text in paths:
        if not text or any(ord(letter) < 32 or letter == "\x7f" for letter in text) or len(text) > 4095:
            raise _wrong(image, "Volumes", f"{shown(text)} is not a path")
        path = "/" + posixpath.normpath("/" + text).lstrip("/")
        if path == "/" or any(path == place or path.startswith(f"{place}/") for place in _KERNELS):
            raise _wrong(image, "Volumes", f"a volume cannot be mounted over {shown(path)}")
        found[path] = None
    return tuple(found)


def health(
    test: Sequence[str],
    image: str,
    *,
    interval: int = 0,
    timeout: int = 0,
    start_period: int = 0,
    start_interval: int = 0,
    retries: int = 0,
) -> Health | None:
    """The image's Healthcheck, times in nanoseconds, 0 for the default; None where there is nothing to test.

    Raises BadInput for a test that is none of NONE, CMD and CMD-SHELL, and for a time below a millisecond.
    """
    kind, args = (test[0], tuple(test[1:])) if test else ("NONE", ())
    if kind == "NONE":
        return None
    if kind == "CMD-SHELL" and len(args) == 1:
        args = ("/bin/sh", "-c", *args)
    elif kind != "CMD" or not args or not args[0]:
        raise _wrong(image, "Healthcheck.Test", f"{shown(list(test))} is none of NONE, CMD ARG… and CMD-SHELL TEXT")
    if any("\0" in word for word in args):
        raise _wrong(image, "Healthcheck.Test", "contains a NUL byte")
    times = {"Interval": interval, "Timeout": timeout, "StartPeriod": start_period, "StartInterval": start_interval}
    for name, value in times.items():
        if value < 0 or 0 < value < _MILLISECOND:
            raise _wrong(image, f"Healthcheck.{name}", f"{value} ns is not 0 and less than a millisecond")
    if retries < 0:
        raise _wrong(image, "Healthcheck.Retries", f"{retries} is negative")
    return Health(
        args,
        interval=interval / _SECOND or 30.0,
        timeout=timeout / _SECOND or 30.0,
        start_period=start_period / _SECOND,
        start_interval=start_interval / _SECOND or 5.0,
        retries=retries or 3,
    )


def _wrong(image: str, field: str, what: str) -> BadInput:
    return BadInput(f"image {shown(image)}: config.{field}: {what}", remedy="another image, or one rebuilt without it")
