"""What a run shows of its progress where there is no terminal."""

from __future__ import annotations

import pytest

from stream.cli import progress
from stream.cli.progress import Display
from stream.job.interface import Progress


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (Progress(60, 50, 200, 40, 5.0), "50 of 200 frames, 10.0 fps, 40 faces, 15 s left"),
        (
            Progress(160, 150, 200, 40, 5.0, frames_before=100, segments_done=5, segments_total=7),
            "150 of 200 frames, 5 of 7 segments, 10.0 fps, 40 faces, 5 s left",
        ),
        (
            Progress(60, 50, 200, 40, 5.0, segments_done=1, segments_total=4, workers=3),
            "50 of 200 frames, 1 of 4 segments, 3 workers, 10.0 fps, 40 faces, 15 s left",
        ),
        (
            Progress(0, 0, 200, 0, 5.0, segments_total=4, workers=0),
            "0 of 200 frames, 0 of 4 segments, waiting for a worker, 0.0 fps, 0 faces",
        ),
    ],
)
def test_a_plain_line_tells_frames_segments_workers_and_the_time_left(capsys, monkeypatch, done, line):
    monkeypatch.setattr(progress, "_PLAIN_EVERY_S", 0.0)
    with Display(quiet=False) as display:
        display(done)
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_a_continued_run_says_once_how_much_is_done(capsys):
    done = Progress(100, 100, 200, 40, 0.1, frames_before=100, segments_done=14, segments_total=61)
    with Display(quiet=False) as display:
        display(done)
        display(done)
    assert capsys.readouterr().err.splitlines() == ["continuing: 14 of 61 segments done"]
