"""A video -> its segments, which begin on keyframes and at scene cuts where there are any."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from stream.config import Config
from stream.faces.track.scene_cuts import SceneCuts
from stream.job.plan.plan import PlannedSegment
from stream.media.container import open_video, video_stream
from stream.media.decode import FileSource
from stream.picture.frame import Frame, StreamInfo

MIN_SHARE = 1 / 3
"""Shortest segment, as a part of the longest."""
WARM_UP = 40
"""Frames before a forced border that a segment restores without encoding them. The stabiliser keeps 5/6
of its average from frame to frame, so that 40 frames leave 0.07 % of what came before."""
_CUTS_TRIED = 3
"""Possible scene cuts that are decoded for one border; a decoded one costs a group of pictures."""


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """The times of a video's packets."""

    pts: Sequence[int]
    """Times of all pictures, ascending, in units of the stream's time base."""
    keyframes: Sequence[int]
    """Times of the pictures at which decoding can begin, ascending."""


def read_times(info: StreamInfo) -> PacketTimes | None:
    """Read the times of all packets without decoding; None where the container stores none.

    Raises SourceError where the file cannot be opened.
    """
    pts: list[int] = []
    keyframes: list[int] = []
    with open_video(Path(info.path)) as container:
        stream = video_stream(container)
        only_dts = container.format.name == "avi"  # its pictures leave the decoder in this order
        try:
            for packet in container.demux(stream):
                time = packet.dts if only_dts else packet.pts
                if not packet.size:
                    continue
                if time is None:
                    return None
                pts.append(time)
                if packet.is_keyframe:
                    keyframes.append(time)
        except av.FFmpegError:
            pass  # damaged from here on; decoding will report it
    return PacketTimes(sorted(set(pts)), sorted(set(keyframes)))


def find_segments(
    info: StreamInfo,
    times: PacketTimes,
    config: Config,
    part: tuple[int | None, int | None],
    longest_s: float,
) -> list[PlannedSegment]:
    """The segments of a part of the video, in order.

    part: first pts and the pts at which the part ends; None: the video's own. longest_s: the longest
    segment, seconds; longer ones are made only where the video has no keyframe. Raises SourceError.
    """
    first = times.pts[0] if part[0] is None else part[0]
    last = times.pts[-1] + 1 if part[1] is None else part[1]
    pts = [time for time in times.pts if first <= time < last]
    if not pts:
        return []
    longest = round(Fraction(longest_s).limit_denominator(1000) / info.time_base)
    keyframes = [time for time in times.keyframes if pts[0] < time <= last - longest * MIN_SHARE]
    borders: list[tuple[int, bool]] = []
    begin = pts[0]
    while last - begin > longest:
        border = _next_border(info, keyframes, config, begin, longest)
        if border is None:
            break
        borders.append(border)
        begin = border[0]
    return _segments(pts, borders, part, config)


def _next_border(
    info: StreamInfo, keyframes: Sequence[int], config: Config, begin: int, longest: int
) -> tuple[int, bool] | None:
    """The pts of the border after the one at `begin`, and whether it is a scene cut; None: there is none."""
    low = bisect_left(keyframes, begin + round(longest * MIN_SHARE))
    high = bisect_left(keyframes, begin + longest + 1)
    candidates = keyframes[low:high]
    if not candidates:
        later = keyframes[high : high + 1]
        return (later[0], False) if later else None
    if config.detect.scene_cut:
        before = keyframes[low - 1] if low else begin
        for cut in _possible_cuts(info, [before, *candidates], config.detect.scene_cut)[:_CUTS_TRIED]:
            at = bisect_left(keyframes, cut)
            if _is_cut(info, keyframes[at - 1] if at else begin, cut, config.detect.scene_cut):
                return cut, True
    return candidates[-1], False


def _possible_cuts(info: StreamInfo, keyframes: Sequence[int], threshold: float) -> list[int]:
    """The keyframes that differ from the one before as a scene cut does, the latest first."""
    cuts, found = SceneCuts(threshold), []
    for time in keyframes:
        frame = _frame_at(info, time)
        if frame is not None and cuts.is_cut(frame):
            found.append(time)
    return found[::-1]


def _is_cut(info: StreamInfo, before: int, cut: int, threshold: float) -> bool:
    """Whether the tracker sees a scene cut at `cut` when it reads from `before` on."""
    cuts = SceneCuts(threshold)
    source = FileSource(info, window=(before, cut + 1))
    seen, at = False, None
    with closing(source.frames()) as frames:
        for frame in frames:
            seen, at = cuts.is_cut(frame), frame.time.pts
    return seen and at == cut


def _frame_at(info: StreamInfo, pts: int) -> Frame | None:
    source = FileSource(info, window=(pts, pts + 1))
    with closing(source.frames()) as frames:
        return next(frames, None)


def _segments(
    pts: Sequence[int],
    borders: Sequence[tuple[int, bool]],
    part: tuple[int | None, int | None],
    config: Config,
) -> list[PlannedSegment]:
    starts = [(part[0], True), *borders]
    tail = config.detect.interval + 1 if config.track.lookahead else 1
    tail = max(tail, config.restore.interval + 1)
    segments = []
    for index, (start, at_cut) in enumerate(starts):
        first = 0 if start is None else bisect_left(pts, start)
        end, ends_at_cut = starts[index + 1] if index + 1 < len(starts) else (part[1], True)
        stop = len(pts) if index + 1 == len(starts) or end is None else bisect_left(pts, end)
        warm_up = start if at_cut or start is None else pts[max(0, first - WARM_UP)]
        until = end if ends_at_cut or end is None else _at_or_none(pts, stop + tail, part[1])
        segments.append(
            PlannedSegment(
                index=index,
                start_pts=start,
                end_pts=end,
                warm_up_pts=warm_up,
                tail_pts=until,
                frames=stop - first,
                extra_frames=(0 if at_cut else min(WARM_UP, first))
                + (0 if ends_at_cut else min(tail, len(pts) - stop)),
                begins_at_cut=at_cut,
            )
        )
    return segments


def _at_or_none(pts: Sequence[int], index: int, end: int | None) -> int | None:
    return pts[index] if index < len(pts) else end
