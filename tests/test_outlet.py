"""The live pipeline's last stage: encoding, sound, new takes, keyframes on demand."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from flashes import RATE, STEP, read, sound, wait_for, work

from stream.config import load_config, parse_config
from stream.outlet import Outlet
from stream.sinks import parse_sink
from stream.sinks.handle import SinkHandle, stop_all


def outlet_to(*handles, audio=None, rate=RATE, config=None, note="faces restored by a test"):
    config = config or load_config()
    return Outlet(
        handles, config.live, note=note, threads=1, audio_of=lambda: audio, rate_of=lambda: Fraction(rate)
    )


def running(text, config=None, **settings):
    handle = SinkHandle(parse_sink(str(text), config or load_config()), **settings)
    handle.start()
    return handle


def rises(times):
    return all(a < b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize(("codec", "rate"), [("aac", 48000), ("pcm_alaw", 8000), ("libopus", 48000)])
def test_sound_stays_within_40_ms_of_its_picture(tmp_path, codec, rate):
    packets = list(sound(codec, rate, 5))
    handle = running(tmp_path / "out.mp4")
    outlet = outlet_to(handle, audio=packets[0].format)
    for packet in packets:  # all of it long before its pictures, as when these are worked on slowly
        outlet.hear(packet)
    for index in range(125):
        outlet.process(work(index))
    list(outlet.flush())
    stop_all([handle], 30)
    result = read(tmp_path / "out.mp4")
    assert len(result.times_s) == 125
    assert len(result.flashes_s) == 5 and len(result.beeps_s) >= 4
    for beep in result.beeps_s:
        assert min(abs(beep - flash) for flash in result.flashes_s) < 0.04
    assert all(rises(times) for times in result.packet_times.values())
    assert result.metadata["comment"] == "faces restored by a test"
