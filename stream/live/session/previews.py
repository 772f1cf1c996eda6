"""Small pictures for whoever looks on, made after the frame has gone to the sinks."""

from __future__ import annotations

from collections.abc import Callable

from stream.live.packets import Jpeg
from stream.live.session.snapshot_stage import SmallPicture, pair_jpeg
from stream.picture.face import FrameWork
from stream.picture.jpeg import encode_jpeg

KINDS = frozenset({"restored", "pair"})
_MOST_FPS = 15.0
_QUALITY = 80


class Previews:
    """Makes the kinds of previews that are wanted, at most 15 a second; one thread calls `make`."""

    def __init__(self, on_preview: Callable[[str, Jpeg], None]) -> None:
        self.wanted: frozenset[str] = frozenset()
        self._on_preview = on_preview
        self._small = SmallPicture()
        self._last_s = float("-inf")

    def make(self, work: FrameWork) -> None:
        """Previews of a composed frame, if they are due."""
        wanted, frame = self.wanted, work.frame
        if not wanted or frame.arrived_at_s - self._last_s < 1 / _MOST_FPS - 0.01:
            return
        self._last_s = frame.arrived_at_s
        after = self._small(frame)
        if "restored" in wanted:
            self._tell("restored", encode_jpeg(after, _QUALITY), work)
        if "pair" in wanted:
            before = after if work.before is None else work.before
            self._tell("pair", pair_jpeg(before, after), work)

    def _tell(self, kind: str, data: bytes, work: FrameWork) -> None:
        self._on_preview(kind, Jpeg(data, work.frame.arrived_at_s, work.frame.time.pts))
