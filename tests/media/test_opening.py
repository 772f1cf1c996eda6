"""Unfinished videos: what a killed run leaves, and files that are in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import Sound, make
from encoding import FAST, pictures, run

from stream.config import Encode
from stream.errors import EncodeError
from stream.media import opening
from stream.media.encode import FileSink
from stream.media.opening import Opening
from stream.media.partial_file import PartialFile, write_whole
from stream.media.probe import probe

KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from encoding import FAST, run
from stream.config import Encode
from stream.media.opening import Opening
kept, count, add = sys.argv[3], 0, Opening.add
def killed(self, packet):
    global count
    add(self, packet)
    count += packet.stream.type == "video"
    if count == int(kept):
        os.kill(os.getpid(), 9)
Opening.add = killed
run(Path(sys.argv[1]), Path(sys.argv[2]), FAST if sys.argv[4] == "h264" else Encode(threads=2))
"""
CLIPS = {
    "mp4": {"sounds": (Sound(),), "rotation": 90},
    "mov": {"sounds": (Sound("pcm_s16le"),)},
    "mkv": {"sounds": (Sound("flac"),), "start_s": 1.5},
    "webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}, "sounds": (Sound("libopus"),)},
    "ts": {"sounds": (Sound(),)},
}


def killed_after(packets: int, source: Path, target: Path) -> None:
    """Encode in a process that kills itself as soon as the muxer has got so many pictures."""
    paths = [str(folder) for folder in Path(__file__).parents[1:3]]
    code = textwrap.dedent(KILLED).format(paths=paths)
    command = [sys.executable, "-c", code, source, target, packets, probe(source).codec]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def playable(path: Path) -> int:
    """Pictures of a file up to its last whole one."""
    count = 0
    with av.open(str(path)) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:
            pass
    return count


@pytest.mark.parametrize("ending", CLIPS)
@pytest.mark.parametrize("packets", [12, 40])
def test_a_killed_run_keeps_the_first_pictures(tmp_path, ending, packets):
    source = make(tmp_path / f"in.{ending}", frames=70, size=(96, 64), **CLIPS[ending])
    killed_after(packets, source, tmp_path / f"out.{ending}")
    partial = tmp_path / f".out.partial.{ending}"
    assert playable(partial) >= 12 - (ending == "ts")  # the end of its last picture shows only by the next
    with av.open(str(partial)) as left:
        assert len(left.streams.audio) == 1
        assert sum(frame.samples for frame in left.decode(audio=0)) > 0
    assert probe(partial).view.turn == probe(source).view.turn
    target, _ = run(source, tmp_path / f"out.{ending}", FAST if ending != "webm" else Encode(threads=2))
    assert len(pictures(target)) == 70
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in.{ending}", f"out.{ending}"]


def test_at_few_pictures_a_second_two_seconds_are_enough(tmp_path):
    source = make(tmp_path / "in.mp4", frames=10, rate=Fraction(1))
    killed_after(3, source, tmp_path / "out.mp4")
    assert playable(tmp_path / ".out.partial.mp4") == 3


def test_an_encoder_that_gives_no_durations_loses_no_picture(tmp_path):
    source = make(tmp_path / "in.mp4", codec="libsvtav1", options={"preset": "12"}, frames=40, size=(96, 64))
    killed_after(12, source, tmp_path / "out.mp4")
    assert playable(tmp_path / ".out.partial.mp4") == 12


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_the_finished_file_is_the_same_with_and_without_an_opening(tmp_path, monkeypatch, ending):
    source = make(tmp_path / f"in.{ending}", frames=50, **CLIPS[ending] | {"rotation": 0})
    config = FAST if ending != "webm" else Encode(threads=2)
    written: list[str] = []
    muxed = Opening._muxed
    monkeypatch.setattr(Opening, "_muxed", lambda self: written.append("") or muxed(self))
    with_opening = run(source, tmp_path / f"with.{ending}", config)[0].read_bytes()
    assert written == [""]
    monkeypatch.setattr(opening, "_PICTURES", 1000)
    without = run(source, tmp_path / f"without.{ending}", config)[0].read_bytes()
    assert written == [""]
    if ending in ("mkv", "webm"):  # each has its own random identifier
        assert len(without) == len(with_opening)
    else:
        assert without == with_opening


@pytest.mark.parametrize("state", ["partial", "begun"])
def test_a_link_at_the_name_of_the_unfinished_file_leads_nowhere(tmp_path, state):
    source = make(tmp_path / "in.mp4", frames=30)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".out.{state}.mp4").symlink_to(victim)
    target, _ = run(source, tmp_path / "out.mp4")
    assert victim.read_text() == "precious" and not target.is_symlink()
    assert len(pictures(target)) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "victim"]


def test_a_link_at_the_output_itself_is_replaced_and_not_followed(tmp_path):
    source = make(tmp_path / "in.mp4", frames=3)
    victim = tmp_path / "victim.mp4"
    victim.write_text("precious")
    (tmp_path / "out.mp4").symlink_to(victim)
    target, _ = run(source, tmp_path / "out.mp4", overwrite=True)
    assert victim.read_text() == "precious" and not target.is_symlink()


def test_a_file_that_another_program_has_replaced_does_not_become_the_output(tmp_path):
    sink = FileSink(probe(make(tmp_path / "in.mp4", frames=3)), tmp_path / "out.mp4", FAST)
    sink.open()
    begun = tmp_path / ".out.begun.mp4"
    begun.rename(tmp_path / "away")
    begun.write_text("of another program")
    with pytest.raises(EncodeError, match=r"out\.mp4: \.out\.begun\.mp4 beside it was replaced by another"):
        sink.finish(complete=True)
    sink.discard()
    assert begun.read_text() == "of another program" and not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mask_of_the_process_decides_who_may_read_the_output(tmp_path, mask):
    source = make(tmp_path / "in.mp4", frames=3)
    before = os.umask(mask)
    try:
        target, _ = run(source, tmp_path / "out.mp4")
        write_whole(tmp_path / "out.png", b"picture")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (target, tmp_path / "out.png")} == {0o666 & ~mask}


def test_where_the_system_opens_no_file_by_its_number_the_path_is_opened_and_verified(tmp_path, monkeypatch):
    monkeypatch.setattr("stream.media.partial_file._OPEN_FILES", tmp_path / "none")
    source = make(tmp_path / "in.mp4", frames=3)
    assert len(pictures(run(source, tmp_path / "out.mp4")[0])) == 3
    file = PartialFile(tmp_path / ".x", tmp_path / "x")
    assert file.name_to_open == str(tmp_path / ".x")
    (tmp_path / ".x").unlink()
    (tmp_path / ".x").symlink_to(tmp_path / "in.mp4")
    with pytest.raises(EncodeError, match="was replaced"):
        file.check()
    file.discard()
    assert (tmp_path / ".x").is_symlink()
