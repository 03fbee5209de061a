"""Options as runc and crun spell them: `--name value`, `--name=value`, `-n value`; a flag may be given `=false`.

A parser of our own because argparse and click cost more to import than the interpreter takes to start.
"""

from __future__ import annotations

from kernel.errors import BadInput
from kernel.record import Record, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Option(Record):
    """An option: its `names` separated by blanks ("--bundle -b"), and its value's name, empty for a flag.

    One that may be given several times is `many`.
    """

    names: str
    value: str = ""
    help: str = ""
    many: bool = False

    @property
    def key(self) -> str:
        """Its first name, under which its value is found."""
        return self.names.split()[0]


class Parsed(Struct):
    """What was given: options' values by first name ("--bundle"), and the words that are no option."""

    values: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    words: list[str] = []

    def flag(self, name: str) -> bool:
        """Whether a flag was given and not taken back."""
        return self.values.get(name) == "true"

    def text(self, name: str, default: str = "") -> str:
        """An option's value."""
        return self.values.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """An option's value as an integer. Raises BadInput."""
        if name not in self.values:
            return default
        return integer(name, self.values[name])

    def many(self, name: str) -> list[str]:
        """The values of an option that may be given several times."""
        return self.lists.get(name, [])


def integer(name: str, text: str) -> int:
    """A decimal number. Raises BadInput that names the option."""
    # int() takes more than callers mean: "1_0", " 1", digits of other scripts, "-0".
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20) or (digits != text and not digits.strip("0")):
        raise BadInput(f"option {name}: {text!r} is not a number")
    return int(text)


def parse(options: Sequence[Option], arguments: Sequence[str], *, in_order: bool) -> Parsed:
    """Sort arguments into options and words. Raises BadInput for what is no option.

    With `in_order` the first word ends the options (what follows is a command with options of its own); otherwise they
    may stand anywhere. `--` ends them always.
    """
    known = {name: option for option in options for name in option.names.split()}
    parsed = Parsed()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            parsed.words += rest
        elif argument.startswith("-") and argument != "-":
            _take(known, argument, rest, parsed)
        else:
            parsed.words.append(argument)
            if in_order:
                parsed.words += rest
    return parsed


def _take(known: dict[str, Option], argument: str, rest: Iterator[str], parsed: Parsed) -> None:
    name, equals, value = argument.partition("=")
    option = known.get(name)
    if option is None and name[:1] == "-" and name[1:2] != "-":
        # Go's flag package takes one dash for two; -nVALUE is argp's way.
        option = known.get("-" + name)
        if option is None and name[:2] in known and known[name[:2]].value:
            option, equals, value = known[name[:2]], "=", argument[2:]
    if option is None:
        raise BadInput(f"unknown option {name!r}")
    if not option.value:
        if equals and value not in ("true", "false"):
            raise BadInput(f"option {name}: {value!r} is neither true nor false")
        parsed.values[option.key] = value if equals else "true"
        return
    if not equals:
        following = next(rest, None)
        if following is None:
            raise BadInput(f"option {name} needs a value: {option.value}")
        value = following
    if option.many:
        parsed.lists.setdefault(option.key, []).append(value)
    else:
        parsed.values[option.key] = value


def usage(options: Sequence[Option]) -> str:
    """The options, a line each."""
    lines = []
    for option in options:
        shown = ", ".join(option.names.split()) + (f" {option.value}" if option.value else "")
        lines.append(f"  {shown:<34} {option.help}".rstrip())
    return "\n".join(lines)
