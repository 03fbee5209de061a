"""What the harness tells its user when it cannot go on."""

TIMED_OUT = 124
"""Exit status when the time limit ran out, as timeout(1) has it."""

HARNESS_FAILED = 125
"""Exit status when the harness, not the command, failed."""


class HarnessError(Exception):
    """The machine could not be built or run; the message says what failed and what to do about it."""

    def __init__(self, message: str, *, exit_code: int = HARNESS_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
