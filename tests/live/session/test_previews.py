"""Previews: small upright pictures of what the sinks get, alone or below the original."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from flashes import first_picture, frame_of

from stream.errors import ConfigError
from stream.live.packets import JpegPicture
from stream.live.session.previews import SIDE, Previews, PreviewScaler, stacked
from stream.picture.face import FrameWork


@pytest.fixture(scope="module")
def picture(portrait) -> av.VideoFrame:
    return first_picture(portrait)


@pytest.mark.parametrize(
    "size, view, shown",
    [
        ((1920, 1080), {}, (360, 640)),
        ((320, 240), {}, (240, 320)),
        ((1440, 1080), {"sar": Fraction(4, 3)}, (360, 640)),
        ((1280, 720), {"turn": ((0, -1), (1, 0))}, (640, 360)),
    ],
)
@pytest.mark.parametrize("format", ["yuv420p", "yuv422p10le", "rgb24"])
def test_small_pictures_are_upright_square_and_never_enlarged(picture, size, view, shown, format):
    resized = picture.reformat(*size, format=format)
    small = PreviewScaler().scale(frame_of(resized, **view))
    assert small.shape == (*shown, 3) and max(small.shape) <= SIDE and small.dtype == np.uint8
    frame = frame_of(resized, **view)
    slow = np.rint(frame.to_network(frame.thumbnail(SIDE)[0]) * 255)
    slow = cv2.resize(slow, small.shape[1::-1])
    assert np.abs(small - slow).mean() < 4  # the same picture and the same colours


def test_a_pair_is_one_picture_with_the_original_above():
    before, after = np.full((90, 160, 3), (200, 30, 30), np.uint8), np.full((90, 160, 3), 90, np.uint8)
    both = stacked(before, after)
    assert (both[:90] == before).all() and (both[90:] == after).all()
    assert stacked(before, np.full((180, 320, 3), 90, np.uint8)).shape == (180, 160, 3)


class Watched:
    """Previews that are watched, and what they made."""

    def __init__(self, *kinds: str) -> None:
        self.made: list[tuple[str, JpegPicture]] = []
        self.previews = Previews(lambda kind, jpeg: self.made.append((kind, jpeg)))
        self.previews.watch(frozenset(kinds))


def test_only_the_previews_that_are_wanted_are_made_and_at_most_15_a_second(picture):
    watched = Watched("pair", "restored")
    assert watched.previews.wants_pair
    for index in range(25):
        watched.previews.make(FrameWork(frame_of(picture, 100 + index / 25)))
    assert [kind for kind, _ in watched.made[:2]] == ["restored", "pair"]
    assert len(watched.made) == 2 * 13
    sizes = {kind: cv2.imdecode(np.frombuffer(one.data, np.uint8), 1).shape for kind, one in watched.made}
    assert sizes == {"restored": (480, 640, 3), "pair": (960, 640, 3)}
    watched.previews.watch(frozenset())
    watched.previews.make(FrameWork(frame_of(picture, 200)))
    assert len(watched.made) == 2 * 13 and not watched.previews.wants_pair


def test_an_unknown_preview_is_refused_and_the_wanted_ones_stay():
    watched = Watched("pair")
    with pytest.raises(ConfigError, match="original: no preview; choose of pair, restored"):
        watched.previews.watch(frozenset({"original"}))
    assert watched.previews.wants_pair
