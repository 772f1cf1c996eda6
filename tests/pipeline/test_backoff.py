"""Pauses between attempts that keep failing."""

from stream.pipeline.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_reset():
    backoff = Backoff(1.0, 6.0)
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 6, 6]
    backoff.reset()
    assert [backoff.next_s() for _ in range(2)] == [1, 2]
