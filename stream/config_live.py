"""Settings of live sources and of their output; `config.py` joins them to the other settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of all sections of the settings: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceSettings(Section):
    """How a live source is opened, read and reconnected."""

    open_timeout_s: float = Field(5.0, ge=0.5, le=60, description="longest wait for a connection, s")
    stall_s: float = Field(5.0, ge=0.5, le=300, description="seconds without a frame until it is reconnected")
    transport: Literal["auto", "tcp", "udp"] = Field(
        "auto", description="transport of RTSP; auto: TCP, then UDP"
    )
    max_fps: float = Field(
        0.0,
        ge=0,
        le=240,
        description="most frames a second that are processed; 0: the rate that the source announces",
    )
    audio: bool = Field(True, description="whether the output has the source's sound")
    size: str | None = Field(
        None, pattern=r"^\d{2,5}x\d{2,5}$", description="WIDTHxHEIGHT of a webcam or of test:"
    )
    rate: float = Field(
        0.0, ge=0, le=240, description="frames a second of a webcam or of test:; 0: its default"
    )
    retry_s: float = Field(0.5, ge=0.05, le=60, description="shortest pause before a reconnection, s")
    retry_most_s: float = Field(5.0, ge=0.1, le=600, description="longest pause before a reconnection, s")
    loop: bool = Field(True, description="whether a file is played again and again")


class LatencySettings(Section):
    """How long a frame may take from arrival to delivery."""

    budget_ms: float = Field(
        300.0, ge=20, le=60000, description="longest delay of a frame; older frames are dropped"
    )
    in_flight: int = Field(8, ge=1, le=16, description="most frames that are processed at a time")
    give_way: bool = Field(
        True,
        description="on a machine that is too slow, restore on keyframes only, then fewer faces, then none",
    )


class MotionSettings(Section):
    """Whether restoration pauses while nothing moves in the picture."""

    gate: bool = Field(False, description="whether frames without motion are decoded only")
    sensitivity: float = Field(0.5, ge=0, le=1, description="1: the least change counts as motion")
    hold_s: float = Field(
        10.0, ge=0, le=3600, description="seconds after the last motion until restoration pauses"
    )
    idle_fps: float = Field(1.0, ge=0, le=30, description="frames a second that sinks get during a pause")


class LiveEncodingSettings(Section):
    """How live video is encoded; all sinks share one encoding."""

    codec: Literal["h264"] = Field(
        "h264", description="the codec that every player and camera system can decode"
    )
    bit_rate: int = Field(0, ge=0, le=200_000, description="most kbit/s; 0: by size and frame rate")
    crf: float = Field(20.0, ge=0, le=51, description="constant quality of x264 below that bit rate")
    gop_s: float = Field(1.0, ge=0.2, le=10, description="seconds from keyframe to keyframe")
    preset: str = Field("veryfast", description="x264's speed preset")
    jpeg_quality: int = Field(85, ge=30, le=100, description="JPEG quality of MJPEG streams")


class RecordSettings(Section):
    """Recordings: segments of video on disk."""

    segment_s: float = Field(300.0, ge=1, le=86400, description="length of a segment, s")
    segment_mb: float = Field(0.0, ge=0, le=100_000, description="most MiB of a segment; 0: no limit")
    container: Literal["mp4", "mkv"] = Field(
        "mp4", description="container of the segments; mp4 is fragmented"
    )
    keep_days: float = Field(0.0, ge=0, le=3650, description="older segments are deleted; 0: none")
    keep_gb: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="largest size of all segments, GiB; the oldest are deleted; 0: none",
    )
    free_gb: float = Field(0.5, ge=0, le=10_000, description="recording stops when fewer GiB are free")
