from runtime.pod.backoff import FIRST_RESTART_DELAY, Backoff


def test_first_restart_is_at_once_then_doubles_up_to_the_limit() -> None:
    backoff = Backoff(first=FIRST_RESTART_DELAY)
    assert [backoff.next_delay(ran=0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_starts_from_the_beginning() -> None:
    backoff = Backoff(reset_after=600)
    for _ in range(5):
        backoff.next_delay(ran=599)
    assert backoff.next_delay(ran=600) == 0
    assert backoff.next_delay(ran=0) == 1
