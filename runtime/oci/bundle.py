"""A bundle: the directory with config.json that a caller hands over (bundle.md)."""

from __future__ import annotations

import os

from kernel.errors import BadInput
from runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.options import Parsed

CONFIG = "config.json"


def load(parsed: Parsed) -> tuple[str, bytes, spec.Config]:
    """The bundle's absolute path and its configuration, as bytes and decoded. Raises BadInput.

    `--config` is crun's: another file than config.json, seen from the bundle.
    """
    bundle = os.path.abspath(parsed.text("--bundle", "."))
    if not os.path.isdir(bundle):
        raise BadInput(f"bundle {bundle!r} is not a directory", remedy="give it with --bundle")
    path = os.path.join(bundle, parsed.text("--config", CONFIG))
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise BadInput(f"no configuration {path!r}", remedy="rawpod-oci spec writes one to begin with") from None
    return bundle, data, spec.load(data)


def kept_config(directory: str) -> spec.Config:
    """The configuration as it was when the container was created: later changes of the bundle have no effect."""
    with open(os.path.join(directory, CONFIG), "rb") as file:
        return spec.load(file.read())
