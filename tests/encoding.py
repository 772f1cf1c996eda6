"""Clips that are decoded and encoded without restoration, and read back."""

from __future__ import annotations

from pathlib import Path

import av

from stream.config import Encode
from stream.media import quality_trial
from stream.media.container import window_pts
from stream.media.decode import FileSource
from stream.media.encode import FileSink, OutputOptions
from stream.media.probe import probe
from stream.picture.face import FrameWork

NOTE = "faces restored by gpen-stream 0.1 (gpen-lite-256)"
FAST = Encode(threads=2, preset="ultrafast")


def run(
    source: Path, target: Path, config: Encode = FAST, frames: int | None = None, complete=True, **options
):
    """Write a source's frames with the sink; returns the path and the sink."""
    info = probe(source)
    feed = FileSource(info, window_pts(info, options.get("start_s"), options.get("duration_s")), threads=2)
    written = OutputOptions(restored_note=NOTE, cut_short=lambda: not complete, **options)
    sink = FileSink(info, target, config, written)
    try:
        sink.open()
        for frame in feed.frames():
            sink.process(FrameWork(frame))
            if sink.frames_out == frames:
                break
        sink.flush()
    except BaseException:
        sink.discard()
        raise
    sink.close()
    return sink.finish(complete), sink


def packets(path: Path) -> dict[int, list[tuple]]:
    """(pts, dts, duration, data) of every packet, by stream."""
    found: dict[int, list[tuple]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                item = packet.pts, packet.dts, packet.duration, bytes(packet)
                found.setdefault(packet.stream.index, []).append(item)
    return found


def pictures(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def luma_db(one: Path, two: Path) -> list[float]:
    return [quality_trial.luma_psnr_db(a, b) for a, b in zip(pictures(one), pictures(two), strict=True)]
