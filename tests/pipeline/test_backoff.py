"""Pauses between attempts that keep failing."""

from stream.pipeline.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_reset():
    backoff = Backoff(1.0, 6.0)
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 6, 6]
    backoff.reset()
    assert [backoff.next_s() for _ in range(2)] == [1, 2]


def test_a_minute_without_a_failure_resets_the_pauses():
    backoff = Backoff(1.0, 30.0)
    assert backoff.next_attempt_s(100.0, healthy_since_s=99.0) == 101
    assert backoff.next_attempt_s(102.0, healthy_since_s=101.0) == 104
    assert backoff.next_attempt_s(200.0, healthy_since_s=104.0) == 201
