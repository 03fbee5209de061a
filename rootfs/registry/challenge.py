"""WWW-Authenticate headers (RFC 9110 section 11): which schemes a registry asks for, with what parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)', re.DOTALL)
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$|,)")
_TOKEN68 = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")
_HEADER_MAX = 16 << 10


class Challenge(NamedTuple):
    """One scheme, in lower case, and its parameters, whose names are in lower case too."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of all the headers, in order. What follows something malformed in a header is left out."""
    found = []
    for header in headers:
        at, text = 0, header[:_HEADER_MAX]
        while True:
            scheme = _SCHEME.match(text, at)
            if scheme is None:
                break
            at = scheme.end()
            challenge = Challenge(scheme[1].lower(), {})
            found.append(challenge)
            if scheme[0].endswith(","):
                continue
            at = _parameters(text, at, challenge.parameters)
    return found


def _parameters(text: str, at: int, parameters: dict[str, str]) -> int:
    """Reads parameters into `parameters` and returns where they end."""
    any_parameter = False
    while True:
        match = _PARAMETER.match(text, at)
        if match is None:
            # Negotiate and the like may bring one bare value in place of parameters.
            bare = None if any_parameter else _TOKEN68.match(text, at)
            return bare.end() if bare and bare.end() > at else at
        any_parameter = True
        value = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL) if match[2] is not None else match[3]
        parameters.setdefault(match[1].lower(), value)
        at = match.end()
