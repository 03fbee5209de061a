"""What one layer may ask for, and where an administrator says otherwise."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

from kernel.errors import BadInput

FILE = "limits.toml"
"""Its name in the image store. There need not be one; a key that is not there keeps its default."""

_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class Limits(NamedTuple):
    """What one layer may ask for. Sizes in bytes, uncompressed; `deadline` in seconds for the whole of it.

    `depth` is the most names in a path. `ratio` is the most bytes for each one compressed, in a layer of a gibibyte and
    more: a smaller one may well hold nothing but zeros, of which gzip makes a thousandth.
    """

    total_bytes: int = 64 << 30
    member_bytes: int = 16 << 30
    entries: int = 2_000_000
    extended_bytes: int = 1 << 20
    segments: int = 65_536
    deadline: float = 1800.0
    depth: int = 512
    ratio: int = 200


_KEYS = {
    "total-size": "total_bytes",
    "file-size": "member_bytes",
    "entries": "entries",
    "header-size": "extended_bytes",
    "segments": "segments",
    "deadline": "deadline",
    "depth": "depth",
    "ratio": "ratio",
}
_SIZES = {"total-size", "file-size", "header-size"}


def read_limits(path: Path) -> Limits:
    """The limits that file `path` sets, the defaults where there is none. Raises BadInput."""
    import tomllib

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return Limits()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{str(path)!r}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    values: dict[str, int] = {}
    for key, value in found.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
            raise BadInput(f"{str(path)!r}: key {key!r} is not known", remedy=remedy)
        values[_KEYS[key]] = _number(path, key, value)
    return Limits()._replace(**values)


def _number(path: Path, key: str, value: object) -> int:
    number = value
    if key in _SIZES and isinstance(value, str):
        digits = value.rstrip("KMGTi")
        unit = _UNITS.get(value[len(digits) :])
        number = int(digits) * unit if unit and digits.isascii() and digits.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 1 << 62:
        remedy = "a whole number from 1 on, or text as '128Gi'" if key in _SIZES else "a whole number from 1 on"
        raise BadInput(f"{str(path)!r}: {key} is {value!r}", remedy=remedy)
    return number
