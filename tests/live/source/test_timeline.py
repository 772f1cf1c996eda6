"""Times of live frames rise strictly and follow the real time, whatever the source's own times do."""

import itertools

import pytest

from stream.live.source.timeline import Timeline


def follow(times, arrivals=None):
    clock = Timeline()
    arrivals = arrivals or [100 + i / 25 for i in range(len(times))]
    result = [clock.picture_pts(time, at) for time, at in zip(times, arrivals, strict=True)]
    assert all(a < b for a, b in itertools.pairwise(result))
    return result


def test_an_even_source_keeps_its_own_spacing_though_it_arrives_in_bursts():
    times = [i / 25 for i in range(50)]
    arrivals = [100 + (i // 5) / 5 for i in range(50)]
    result = follow(times, arrivals)
    assert result == [i * 3600 for i in range(50)]


@pytest.mark.parametrize("jump", [-5000.0, -95443.7, 7.0, 90000.0, -0.5], ids=str)
def test_a_jump_or_a_wrap_of_the_source_s_times_goes_on_where_it_was(jump):
    times = [1000 + i / 25 + (jump if i >= 20 else 0) for i in range(40)]
    result = follow(times)
    assert result[-1] == pytest.approx(39 * 3600, abs=90)


def test_a_source_without_times_is_put_by_its_arrival():
    result = follow([None] * 25)
    assert result[-1] == pytest.approx(24 * 3600, abs=2)


def test_a_first_time_that_is_missing_does_not_disturb_those_that_follow():
    result = follow([None, *(500 + i / 25 for i in range(1, 25))])
    assert result[-1] == pytest.approx(24 * 3600, abs=2)


def test_equal_times_are_told_apart():
    result = follow([1.0, 1.0, 1.0, 1.12])
    assert len(set(result)) == 4


def test_a_reconnection_leaves_a_gap_as_long_as_it_was():
    clock = Timeline()
    clock.picture_pts(5.0, 100.0)
    clock.begin()
    assert clock.picture_pts(77777.0, 112.5) == pytest.approx(12.5 * 90000, abs=1)


def test_sound_rides_on_the_pictures_clock_and_what_has_no_place_there_is_left_out():
    clock = Timeline()
    assert clock.sound_pts(10.0, 100.0) is None
    clock.picture_pts(10.0, 100.0)
    assert clock.sound_pts(10.02, 100.0) == 1800
    assert clock.sound_pts(10.02, 100.0) is None
    assert clock.sound_pts(9000.0, 100.1) is None
    assert clock.sound_pts(10.04, 100.1) == 3600
    clock.begin()
    assert clock.sound_pts(10.06, 100.1) is None
