"""The picture before faces are composed into it, and snapshots of faces beside their restoration."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import replace
from datetime import datetime

import av
import cv2
import numpy as np
import pytest
from flashes import first_picture, frame_of

from stream.faces.compose.compose_stage import ComposeStage
from stream.live.packets import Snapshot
from stream.live.session.previews import PreviewScaler
from stream.live.session.snapshot_stage import SnapshotStage
from stream.picture.face import Crop, Face, FrameWork, Patch
from stream.picture.frame import View

SIDE_PX = 64


@pytest.fixture(scope="module")
def picture(portrait) -> av.VideoFrame:
    return first_picture(portrait)


def patch(track: int = 1, *, coasted: bool = False, change: float = 0.25, sharpness: float = 0.5) -> Patch:
    """A face at (200, 100) of 128 px, brightened."""
    box = np.float32([200, 100, 328, 228])
    face = Face(track, box, np.zeros((5, 2), np.float32), 0.9, coasted, 1.0)
    image = np.random.default_rng(track).random((SIDE_PX, SIDE_PX, 3), np.float32) * np.float32(0.5)
    to_stored = np.float64([[2, 0, 200], [0, 2, 100]])
    crop = Crop(face, image, to_stored, View(640, 360), sharpness)
    return Patch(crop, np.full_like(image, change))


class Recorder:
    """A SnapshotStage whose snapshots are wanted; it is fed with frames that arrive at given times."""

    def __init__(self, picture: av.VideoFrame) -> None:
        self.snapshots: list[Snapshot] = []
        self.stage = SnapshotStage(wants_snapshots=lambda: True, on_snapshot=self.snapshots.append)
        self._picture = picture

    def feed(self, at_s: float, *patches: Patch) -> None:
        list(self.stage.process(FrameWork(frame_of(self._picture, at_s), patches=patches)))

    def tracks(self) -> list[int]:
        return [snapshot.facts["track"] for snapshot in self.snapshots]


def test_a_frame_passes_as_it_is_while_nobody_looks(picture):
    work = FrameWork(frame_of(picture), patches=(patch(),))
    assert list(SnapshotStage().process(work)) == [work]
    assert work.before is None


def test_the_picture_before_is_that_of_before_though_the_frame_is_written_to(picture):
    work = FrameWork(frame_of(picture), patches=(patch(),))
    (seen,) = SnapshotStage(wants_pair=lambda: True).process(work)
    (composed,) = ComposeStage(0.1).process(seen)
    after = PreviewScaler().scale(composed.frame)
    difference = np.abs(composed.before.astype(int) - after).max(axis=2)
    assert composed.before.shape == (480, 640, 3)
    assert difference[150:180, 250:280].mean() > 40  # in the face
    assert difference[300:].max() == 0


def test_a_face_is_snapped_once_it_is_sure_and_again_after_a_while(picture):
    recorder = Recorder(picture)
    for index in range(25 * 45):
        recorder.feed(100 + index / 25, patch(7))
        if index == 5:
            assert recorder.tracks() == []  # seen for 0.2 s only
        if index == 25:
            assert recorder.tracks() == [7]
    assert recorder.tracks() == [7, 7]


def test_faces_that_pass_by_are_coasted_or_unchanged_are_not_snapped(picture):
    recorder = Recorder(picture)
    for index in range(100):
        recorder.feed(100 + index / 25, patch(index // 5), patch(1000, coasted=True), patch(1001, change=0.0))
    assert recorder.tracks() == []


def test_a_crowd_is_snapped_one_by_one_the_sharpest_first(picture):
    recorder, times = Recorder(picture), []
    crowd = [patch(track, sharpness=track / 10) for track in range(1, 6)]
    for index in range(100):
        recorder.feed(100 + index / 25, *crowd)
        if len(recorder.snapshots) > len(times):
            times.append(index / 25)
    assert recorder.tracks() == [5, 4, 3, 2, 1]
    assert all(b - a >= 0.5 for a, b in itertools.pairwise(times))


def test_tracks_that_are_gone_are_forgotten(picture):
    recorder = Recorder(picture)
    for index in range(2000):
        recorder.feed(100 + index, patch(index))
    assert len(recorder.stage._tracks) < 100


def test_a_snapshot_shows_the_crop_and_what_is_put_back_of_it(picture):
    recorder, now = Recorder(picture), time.monotonic()
    mask = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    mask[:32] = 1
    snapped = replace(patch(3), mask=mask)
    recorder.feed(now - 1, snapped)
    recorder.feed(now, snapped)
    (snapshot,) = recorder.snapshots
    original, restored = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        for data in (snapshot.original, snapshot.restored)
    )
    assert np.abs(original - snapped.crop.image * 255).max() <= 0.51
    change = restored - original
    assert np.abs(change[:32] - 64).max() <= 1 and not change[32:].any()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z-3", snapshot.name)
    at = datetime.fromisoformat(snapshot.facts["at"])
    assert at.utcoffset().total_seconds() == 0 and abs(at.timestamp() - time.time()) < 60
    facts = snapshot.facts
    assert (facts["x"], facts["y"], facts["width"], facts["height"]) == (200, 100, 128, 128)
