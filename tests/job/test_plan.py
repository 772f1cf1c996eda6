"""The plan of a long video: borders at keyframes and cuts, and what a run that continues must share."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import pytest
from films import CUTS, film

from stream import Options, load_config
from stream.errors import ConfigError, PlanError
from stream.faces.assembly import Setup
from stream.job.plan.borders import WARM_UP, find_segments, read_times
from stream.job.plan.facts import input_facts, job_facts
from stream.job.plan.plan import first_difference, read_plan
from stream.job.planned_run import needs_plan
from stream.media.probe import probe

CONFIG = load_config("fast")


@pytest.fixture(scope="module")
def portrait_film(tmp_path_factory):
    return film(tmp_path_factory.mktemp("films") / "film.mp4")


def segments_of(path, longest_s, window=(None, None), config=CONFIG):
    info = probe(path)
    return find_segments(info, read_times(info), config, window, longest_s)


def frame(pts):
    return None if pts is None else round(pts * Fraction(25, 12800))


def test_borders_lie_at_cuts_where_there_are_any_and_else_on_the_last_keyframe(portrait_film):
    segments = segments_of(portrait_film, 3.0)
    assert [frame(segment.start_pts) for segment in segments] == [None, 75, *CUTS]
    assert [segment.begins_at_cut for segment in segments] == [True, False, True, True]
    assert [segment.frames for segment in segments] == [75, 49, 60, 31]


def test_only_a_forced_border_costs_warm_up_and_tail(portrait_film):
    first, second, third, last = segments_of(portrait_film, 3.0)
    tail = CONFIG.detect.interval + 1
    assert (first.warm_up_pts, frame(first.tail_pts)) == (None, 75 + tail)
    assert (frame(second.warm_up_pts), frame(second.tail_pts)) == (75 - WARM_UP, CUTS[0])
    assert (frame(third.warm_up_pts), frame(third.tail_pts)) == (CUTS[0], CUTS[1])
    assert last.tail_pts is None
    assert [s.extra_frames for s in (first, second, third, last)] == [tail, WARM_UP, 0, 0]


def test_without_the_search_for_cuts_every_border_is_forced(portrait_film):
    config = load_config("fast", None, ["detect.scene_cut=0"])
    segments = segments_of(portrait_film, 3.0, config=config)
    assert len(segments) > 2 and not any(segment.begins_at_cut for segment in segments[1:])


def test_segments_follow_each_other_without_a_gap(portrait_film):
    for longest_s in (1.0, 2.0, 5.0, 60.0):
        segments = segments_of(portrait_film, longest_s)
        assert sum(segment.frames for segment in segments) == 215
        assert [s.end_pts for s in segments[:-1]] == [s.start_pts for s in segments[1:]]
        assert all(segment.frames <= 25 * longest_s for segment in segments[1:-1])


def test_a_part_of_the_video_is_divided_inside_its_own_bounds(portrait_film):
    segments = segments_of(portrait_film, 1.0, (50 * 512, 120 * 512))
    assert frame(segments[0].start_pts) == 50 and frame(segments[-1].end_pts) == 120
    assert sum(segment.frames for segment in segments) == 70


def test_a_video_with_one_keyframe_is_one_segment(tmp_path):
    lonely = film(tmp_path / "film.mkv", gop=500, frames=120, options={"sc_threshold": "0"})
    assert len(segments_of(lonely, 1.0)) == 1


def test_a_file_is_known_by_its_size_and_by_samples_or_by_all_of_it(portrait_film, tmp_path):
    copy = tmp_path / "copy.mp4"
    shutil.copy(portrait_film, copy)
    assert input_facts(copy, whole=False) == input_facts(portrait_film, whole=False)
    with copy.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    for whole in (False, True):
        assert input_facts(copy, whole=whole) != input_facts(portrait_film, whole=whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preset": "default"}, "settings.restore.interval is 1, was 3"),
        ({"segment_s": 4.0}, "options.segment is 4.0, was 3.0"),
        ({"start_s": 1.0}, "options.start is 1.0, was not set"),
    ],
)
def test_the_first_difference_is_told_with_both_values(portrait_film, change, words):
    def facts(preset="fast", segment_s=3.0, **options):
        setup = Setup.of(load_config(preset))
        return job_facts(portrait_film, setup, Options(**options), segment_s, whole=False)

    then = facts()
    assert first_difference(then, json.loads(json.dumps(then))) is None
    told = [key for key in facts(**change) if facts(**change)[key] != then[key]]
    assert any(first_difference({k: facts(**change)[k]}, {k: then[k]}) == words for k in told), told


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, False),
        ({"segment_s": 3.0}, True),
        ({"segment_s": 0.0}, False),
        ({"segment_s": 3.0, "start_s": 6.0}, False),
        ({"segment_s": 3.0, "duration_s": 2.0}, False),
    ],
)
def test_a_plan_is_made_for_what_is_longer_than_a_segment(portrait_film, options, wanted):
    assert needs_plan(probe(portrait_film), Options(**options)) is wanted


def test_a_segment_shorter_than_a_second_is_refused():
    with pytest.raises(ConfigError, match=r"--segment 0\.5: write 0, or at least 1 seconds"):
        Options(segment_s=0.5)


def test_a_damaged_plan_is_told(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(path)
    path.write_text('{"format": 99}')
    with pytest.raises(PlanError, match="is damaged or of another version; add --restart"):
        read_plan(path)
