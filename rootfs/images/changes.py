"""Changes of an image's configuration, written as the instructions of a Dockerfile. Pure.

The instructions are those that `docker commit --change` takes: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL STOPSIGNAL
USER VOLUME WORKDIR.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable

from kernel.errors import BadInput, NotSupported
from rootfs.images.image import Healthcheck, ImageConfig

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.ASCII)


def apply(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """`config` after the instructions, in their order. Raises BadInput with the instruction."""
    for text in changes:
        word, _, rest = text.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if word.upper() == "ONBUILD":
            raise NotSupported("change 'ONBUILD': images are not built here")
        if instruction is None:
            raise BadInput(f"change {text[:200]!r}: {word[:50]!r} is not known", remedy=" ".join(_INSTRUCTIONS))
        if "\0" in rest or not rest.strip():
            raise BadInput(f"change {text[:200]!r}: says nothing" if "\0" not in rest else "a change holds a NUL")
        try:
            config = instruction(config, rest.strip())
        except ValueError as error:
            raise BadInput(f"change {text[:200]!r}: {error}") from None
    return config


def command(text: str) -> tuple[str, ...]:
    """A JSON array of strings as it is, anything else for a shell; raises ValueError for an array of other things."""
    if text.startswith("["):
        return _array(text)
    return ("/bin/sh", "-c", text)


def words(text: str) -> tuple[str, ...]:
    """A JSON array of strings, or words with a shell's quotes. Raises ValueError."""
    return _array(text) if text.startswith("[") else tuple(shlex.split(text))


def _array(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) and "\0" not in item for item in found):
        raise ValueError("not a JSON array of strings")
    return tuple(found)


def _pairs(text: str) -> dict[str, str]:
    """NAME=VALUE …, or of old NAME VALUE."""
    found = shlex.split(text)
    if found and "=" not in found[0]:
        name, _, value = text.partition(" ")
        found = [f"{name}={value.strip()}"] if value else []
    pairs = [item.partition("=") for item in found]
    if not pairs or any(not name or not equals for name, equals, _ in pairs):
        raise ValueError("not NAME=VALUE")
    return {name: value for name, _, value in pairs}


def set_env(config: ImageConfig, variables: dict[str, str]) -> ImageConfig:
    """With these variables, in the place of those of the same name."""
    merged = dict(variable.partition("=")[::2] for variable in config.env) | variables
    return config._replace(env=tuple(f"{name}={value}" for name, value in merged.items()))


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = []
    for port in text.split():
        if not _PORT.fullmatch(port) or any(int(number) > 65535 for number in re.findall(r"\d+", port)):
            raise ValueError(f"{port[:50]!r} is not a port, as 80 or 80/udp or 8000-8010")
        ports.append(port if "/" in port else f"{port}/tcp")
    return config._replace(exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *ports))))


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = words(text)
    if not all(path.startswith("/") for path in paths):
        raise ValueError("a volume is an absolute path")
    return config._replace(volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _healthcheck(config: ImageConfig, text: str) -> ImageConfig:
    if text.upper() == "NONE":
        return config._replace(healthcheck=Healthcheck(("NONE",)))
    fields: dict[str, int] = {}
    while option := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        name = option[1].replace("-", "_")
        if name not in ("interval", "timeout", "start_period", "start_interval", "retries"):
            raise ValueError(f"option --{option[1]} is not known")
        fields[name] = int(option[2]) if name == "retries" else _nanoseconds(option[2])
        text = text[option.end() :]
    keyword, _, test = text.partition(" ")
    if keyword.upper() != "CMD" or not test.strip():
        raise ValueError("NONE, or options and CMD with a command")
    test = test.strip()
    found = ("CMD", *_array(test)) if test.startswith("[") else ("CMD-SHELL", test)
    return config._replace(healthcheck=Healthcheck(found, **fields))


def _nanoseconds(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:50]!r} is not a duration, as 1m30s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, text: config._replace(cmd=command(text)),
    # As a Dockerfile's: what an image runs by default goes with the program that it was meant for.
    "ENTRYPOINT": lambda config, text: config._replace(entrypoint=command(text), cmd=()),
    "ENV": lambda config, text: set_env(config, _pairs(text)),
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda config, text: config._replace(labels={**config.labels, **_pairs(text)}),
    "STOPSIGNAL": lambda config, text: config._replace(stop_signal=text),
    "USER": lambda config, text: config._replace(user=text),
    "VOLUME": _volume,
    "WORKDIR": lambda config, text: config._replace(working_dir=posixpath.join(config.working_dir or "/", text)),
}
