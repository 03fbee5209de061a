"""How long to wait for a registry, and how often to try again."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple


class Timing(NamedTuple):
    """Times in seconds. A wait doubles with each failure from `base` to `longest`; half of it is chance.

    `stall` is how long a connection may bring nothing. A registry that asks for more than `patience` by Retry-After is
    not waited for. `attempts` counts failures in a row: what makes headway goes on.
    """

    connect: float = 15.0
    stall: float = 30.0
    base: float = 0.25
    longest: float = 15.0
    patience: float = 120.0
    attempts: int = 6
    refused: int = 3  # attempts where nobody listens: mistyped ports are more frequent than restarts

    def delay(self, failures: int) -> float:
        """What to wait after so many failures. Chance keeps many clients from coming back at the same moment."""
        longest = min(self.longest, self.base * 2.0 ** (failures - 1))
        return longest * (0.5 + random.random() / 2)  # chance of this kind needs no secrecy


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds from now (RFC 9110 section 10.2.3), None if absent or neither number nor date."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
