"""The monitor's event loop: epoll, signals and timers in one thread.

asyncio would do, but its import alone costs 60 ms and a monitor needs a twentieth of it.
"""

import heapq
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType

from kernel.record import Struct

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

Callback = Callable[[], None]


class Timer(Struct):
    """A callback due at `when` (CLOCK_MONOTONIC, seconds)."""

    when: float
    sequence: int
    callback: Callback
    cancelled: bool = False

    def __lt__(self, other: "Timer") -> bool:
        return (self.when, self.sequence) < (other.when, other.sequence)

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Waits for descriptors, signals and timers, and calls back. Idle means asleep in epoll_wait(2)."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._sequence = 0
        self._running = False
        self._wakeup: tuple[int, int] | None = None
        self._old_handlers: dict[int, signal.Handlers | int | Callable[[int, FrameType | None], object] | None] = {}
        self._on_signal: Callable[[int], None] = lambda _number: None

    def add(self, fd: int, callback: Callback, events: int = READ) -> None:
        """Call `callback` whenever `fd` is ready. Hang-ups and errors count as ready: a read tells."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on a descriptor already added."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget `fd`; nothing happens when it is not known. Call it before close(2)."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call back once, `delay` seconds from now."""
        self._sequence += 1
        timer = Timer(time.monotonic() + delay, self._sequence, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signals(self, numbers: Iterable[int], callback: Callable[[int], None]) -> None:
        """Deliver the given signals as calls from the loop, not from wherever the program happens to be."""
        if self._wakeup is None:
            self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
            self.add(self._wakeup[0], self._signals)
        self._on_signal = callback
        for number in numbers:
            self._old_handlers[number] = signal.signal(number, _ignore)

    def _signals(self) -> None:
        assert self._wakeup is not None
        for number in os.read(self._wakeup[0], 4096):
            if number in self._old_handlers:
                self._on_signal(number)

    def stop(self) -> None:
        """Make `run` return once the callbacks of this round are done."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            ready = self._epoll.poll(self._until_next_timer())
            for fd, _events in ready:
                # An earlier callback of this round may have removed this descriptor.
                if callback := self._callbacks.get(fd):
                    callback()
            self._fire_timers()

    def _until_next_timer(self) -> float:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, self._timers[0].when - time.monotonic())

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback()

    def close(self) -> None:
        """Give signals and descriptors back; what is removed afterwards is forgotten already."""
        self._callbacks.clear()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            for fd in self._wakeup:
                os.close(fd)
            self._wakeup = None
        self._epoll.close()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The wake-up descriptor carries the signal; the handler only has to exist."""
