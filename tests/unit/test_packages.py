"""What is installed is all there is."""

import tomllib
from pathlib import Path

HERE = Path(__file__).parents[2]


def test_every_room_is_installed() -> None:
    """A package that is missing from the list is found by the checkout and missing after `make install`."""
    packages = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = ("kernel", "cgroups", "netns", "rootfs", "runtime")
    found = [path.parent.relative_to(HERE) for room in rooms for path in (HERE / room).rglob("__init__.py")]
    assert sorted(packages) == sorted(".".join(path.parts) for path in found)
