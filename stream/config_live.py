"""Settings of live sources and of what is made of them; `config.py` joins them to the others."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceSettings(Section):
    """How a live source is opened, watched and opened again."""

    open_timeout_s: float = Field(5.0, ge=0.5, le=60, description="longest wait for a connection")
    stall_s: float = Field(5.0, ge=0.5, le=300, description="without a frame for so long it is reconnected")
    transport: Literal["auto", "tcp", "udp"] = Field("auto", description="of RTSP; auto: TCP, then UDP")
    max_fps: float = Field(
        0.0, ge=0, le=240, description="frames a second that are worked on; 0: as many as the source says"
    )
    audio: bool = Field(True, description="whether sound is carried along")
    size: str | None = Field(
        None, pattern=r"^\d{2,5}x\d{2,5}$", description="WIDTHxHEIGHT asked of a webcam or drawn by test:"
    )
    rate: float = Field(0.0, ge=0, le=240, description="frames a second asked of a webcam, drawn by test:")
    retry_s: float = Field(0.5, ge=0.05, le=60, description="first pause before a reconnection")
    retry_most_s: float = Field(5.0, ge=0.1, le=600, description="longest pause; it doubles up to here")
    loop: bool = Field(True, description="whether a file starts again at its end")


class LatencySettings(Section):
    """How old a frame may be."""

    budget_ms: float = Field(
        300.0, ge=20, le=60000, description="from arrival to delivery; older frames are dropped"
    )
    in_flight: int = Field(8, ge=1, le=16, description="frames worked on at a time")
    give_way: bool = Field(
        True,
        description="when the machine cannot keep up: restore on keyframes only, then fewer faces, then none",
    )


class MotionSettings(Section):
    """Whether a picture in which nothing moves is left alone."""

    gate: bool = Field(False, description="without motion, decode only")
    sensitivity: float = Field(0.5, ge=0, le=1, description="1: the least change opens the gate")
    hold_s: float = Field(10.0, ge=0, le=3600, description="open for so long after the last motion")
    idle_fps: float = Field(1.0, ge=0, le=30, description="frames a second that sinks get meanwhile")


class LiveEncodingSettings(Section):
    """How a live picture is encoded; one encoding serves all sinks."""

    codec: Literal["h264"] = Field("h264", description="what every player and camera system takes")
    bit_rate: int = Field(0, ge=0, le=200_000, description="kbit/s at most; 0: by size and rate")
    crf: float = Field(20.0, ge=0, le=51, description="constant quality below that rate")
    gop_s: float = Field(1.0, ge=0.2, le=10, description="seconds from keyframe to keyframe")
    preset: str = Field("veryfast", description="x264's speed preset")
    jpeg_quality: int = Field(85, ge=30, le=100, description="of MJPEG, previews and snapshots")


class RecordSettings(Section):
    """Segments on disk."""

    segment_s: float = Field(300.0, ge=1, le=86400, description="a new file after so many seconds")
    segment_mb: float = Field(0.0, ge=0, le=100_000, description="or so many MiB; 0: by time alone")
    container: Literal["mp4", "mkv"] = Field("mp4", description="fragmented mp4, or mkv")
    keep_days: float = Field(0.0, ge=0, le=3650, description="older segments are deleted; 0: kept")
    keep_gb: float = Field(0.0, ge=0, le=100_000, description="oldest deleted beyond so many GiB; 0: kept")
    free_gb: float = Field(0.5, ge=0, le=10_000, description="recording stops when less is free, GiB")
