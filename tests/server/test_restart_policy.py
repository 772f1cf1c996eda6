"""How long a supervisor waits after a crash, and how it describes the end of a process."""

import signal

import pytest

from stream.server.supervisor.restart_policy import RestartPolicy, SupervisionLimits, describe_exit


def test_many_crashes_within_the_window_open_the_breaker_until_a_reset():
    policy = RestartPolicy(SupervisionLimits(retry_s=1, retry_most_s=30, breaker_crashes=3, breaker_s=300))
    assert [policy.record_crash() for _ in range(4)] == [(1, False), (2, False), (300, True), (300, True)]
    assert policy.recent_crashes == 3
    policy.reset()
    assert policy.recent_crashes == 0
    assert policy.record_crash() == (1, False)
    assert policy.restarts == 5


def test_crashes_that_are_further_apart_than_the_window_only_lengthen_the_pause():
    policy = RestartPolicy(
        SupervisionLimits(retry_s=1, retry_most_s=30, breaker_crashes=2, breaker_window_s=0)
    )
    assert [policy.record_crash() for _ in range(6)] == [(s, False) for s in (1, 2, 4, 8, 16, 30)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, "its process was ended by SIGKILL"),
        (3, "its process ended with code 3; see the log"),
    ],
)
def test_the_end_of_a_process_is_described_by_its_signal_or_code(code, words):
    assert describe_exit(code) == words
