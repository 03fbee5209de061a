"""How long a container that ended waits before it runs again."""

from kernel.record import Struct

FIRST_RESTART_DELAY = 10.0
"""Seconds before the second restart of a container, as kubelet has it; the first happens at once."""


class Backoff(Struct):
    """The first restart happens at once, then the wait doubles from `first` to `limit` seconds.

    A container that ran for `reset_after` seconds starts again from the beginning. Durations come from the caller's
    monotonic clock, so a stepped wall clock changes nothing.
    """

    first: float = 1.0
    limit: float = 300.0
    reset_after: float = 600.0
    following: float = 0.0

    def next_delay(self, ran: float) -> float:
        """Seconds to wait after an attempt that ran for `ran` seconds."""
        if ran >= self.reset_after:
            self.following = 0.0
        delay = self.following
        self.following = min(self.limit, max(self.first, 2 * delay))
        return delay
