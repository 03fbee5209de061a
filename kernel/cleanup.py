"""Clean-up that is armed by default: what was begun is taken back unless everything went well."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self


class OnFailure:
    """Calls registered functions, newest first, when its block is left by an exception."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Register one more."""
        self._calls.append((function, args))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while error is not None and self._calls:
            function, args = self._calls.pop()
            try:
                function(*args)
            except Exception as failure:
                # The first failure is what the caller has to know; this one goes with it.
                error.add_note(f"while cleaning up: {failure}")
