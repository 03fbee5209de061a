"""Plain data: classes whose annotated attributes are their fields, as dataclasses have them, at no cost to import.

A runtime starts its interpreter anew for every command. `dataclasses` alone takes twice as long to import as the
interpreter to start, and compiles source code for each class; here a class costs what any costs. What type checkers
need to know is said by `dataclass_transform` (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


class _Fields:
    """What Record and Struct have in common. Keyword or positional arguments in the order of the annotations."""

    _of: ClassVar[type | None] = None  # the class whose fields these are: subclasses find them when first made
    _fields: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _required: ClassVar[frozenset[str]] = frozenset()
    _copied: ClassVar[tuple[str, ...]] = ()  # fields whose default can be changed: each instance gets its own

    @classmethod
    def find_fields(cls) -> None:
        """Read the annotations, those of the parents first. Not when the class is made: many never have an instance."""
        fields: dict[str, None] = {}
        for owner in reversed(cls.__mro__):
            for name, kind in owner.__dict__.get("__annotations__", {}).items():
                if not str(kind).startswith("ClassVar"):
                    fields[name] = None
        cls._fields = tuple(fields)
        cls._known = frozenset(fields)
        cls._required = frozenset(name for name in fields if not hasattr(cls, name))
        cls._copied = tuple(name for name in fields if hasattr(getattr(cls, name, None), "copy"))
        cls._of = cls

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        if cls._of is not cls:
            cls.find_fields()
        values = dict(zip(cls._fields, args, strict=False))
        if len(args) > len(cls._fields) or not values.keys().isdisjoint(kwargs) or not kwargs.keys() <= cls._known:
            raise TypeError(f"{cls.__name__}() got arguments that it has no field for, or one twice")
        values.update(kwargs)
        if not cls._required <= values.keys():
            raise TypeError(f"{cls.__name__}() lacks {', '.join(sorted(cls._required - values.keys()))}")
        for name in cls._copied:
            if name not in values:
                values[name] = getattr(cls, name).copy()
        self.__dict__.update(values)

    def __iter__(self) -> Iterator[Any]:
        """The fields' values in order, so that a record can be unpacked."""
        return iter([getattr(self, name) for name in self._fields])

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def as_dict(self) -> dict[str, Any]:
        """The fields by name; what is in them stays as it is."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**self.as_dict() | changes)


@dataclass_transform(frozen_default=True)
class Record(_Fields):
    """Frozen data, compared by value and hashable as far as its values are."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __hash__(self) -> int:
        return hash((type(self), *self))


@dataclass_transform()
class Struct(_Fields):
    """Data that may be changed, compared by value."""

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Self:
        """Another one with the same values."""
        return self.replace()
