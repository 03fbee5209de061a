from runtime.pod.backoff import Backoff


def test_first_restart_is_at_once_then_doubles_up_to_the_limit() -> None:
    backoff = Backoff(first=1, limit=300)
    assert [backoff.next_delay(ran=0) for _ in range(11)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_long_run_starts_from_the_beginning() -> None:
    backoff = Backoff(reset_after=600)
    for _ in range(5):
        backoff.next_delay(ran=599)
    assert backoff.next_delay(ran=600) == 0
    assert backoff.next_delay(ran=0) == 1
