"""Small pictures of a live session, made after the frame has gone to the sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stream.errors import ConfigError
from stream.live.packets import JpegPicture
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.picture.jpeg import encode_jpeg
from stream.picture.upright import matrix_of, upright_rgb

KINDS = frozenset({"restored", "pair"})
SIDE = 640
"""Longer side of a preview, px."""
_MAX_FPS = 15.0
_QUALITY = 80


class Previews:
    """Makes previews of the kinds that are wanted, at most 15 a second, and passes them to `on_preview`.

    "restored" is the picture that the sinks get, "pair" the original above it.
    """

    def __init__(self, on_preview: Callable[[str, JpegPicture], None]) -> None:
        self._wanted: frozenset[str] = frozenset()
        self._on_preview = on_preview
        self._scaler = PreviewScaler()
        self._last_s = float("-inf")

    @property
    def wants_pair(self) -> bool:
        """Whether the original picture is needed, in `FrameWork.before`."""
        return "pair" in self._wanted

    def watch(self, kinds: frozenset[str]) -> None:
        """Make these kinds from now on; from any thread. Raises ConfigError for an unknown one."""
        unknown = kinds - KINDS
        if unknown:
            raise ConfigError(f"{min(unknown)}: no preview; choose of {', '.join(sorted(KINDS))}")
        self._wanted = kinds

    def make(self, work: FrameWork) -> None:
        """Make the previews of a composed frame, if they are due; from one thread."""
        wanted, frame = self._wanted, work.frame
        if not wanted or frame.arrived_at_s - self._last_s < 1 / _MAX_FPS - 0.01:
            return
        self._last_s = frame.arrived_at_s
        after = self._scaler.scale(frame)
        if "restored" in wanted:
            self._pass_on("restored", after, frame)
        if "pair" in wanted:
            before = after if work.before is None else work.before
            self._pass_on("pair", stacked(before, after), frame)

    def _pass_on(self, kind: str, rgb: np.ndarray, frame: Frame) -> None:
        self._on_preview(kind, JpegPicture(encode_jpeg(rgb, _QUALITY), frame.arrived_at_s, frame.time.pts))


class PreviewScaler:
    """Makes small upright pictures; one instance may be used by one thread only."""

    def __init__(self, side: int = SIDE) -> None:
        self._side = side
        self._scaler, self._converter = VideoReformatter(), VideoReformatter()

    def scale(self, frame: Frame) -> np.ndarray:
        """The picture as RGB u8[h,w,3], its longer side at most `side` px.

        It takes 0.3 ms, where `Frame.thumbnail` takes 7 ms, because it computes in integers. An HDR picture
        has to be converted by `Frame.thumbnail`.
        """
        if frame.colour.is_hdr:
            small: np.ndarray = np.rint(frame.to_network(frame.thumbnail(self._side)[0]) * 255)
            return small.astype(np.uint8)
        view = frame.view
        scale = min(1.0, self._side / max(view.upright_size))
        if scale < 1:
            width, height = max(2, round(view.width * scale)), max(2, round(view.height * scale))
            picture = self._scaler.reformat(frame.picture, width, height, interpolation="AREA", threads=1)
            colour = frame.colour
            if colour.matrix == 2:  # unspecified: players choose one by the size, which changes here
                colour = replace(colour, matrix=matrix_of(frame))
            view = replace(view, width=width, height=height)
            frame = replace(frame, picture=picture, view=view, colour=colour)
        return upright_rgb(frame, self._converter)


def stacked(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`before` u8[h,w,3] above `after`, which is scaled to the same size: RGB u8[2h,w,3]."""
    if before.shape != after.shape:
        after = cv2.resize(after, before.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.concatenate([before, after])
