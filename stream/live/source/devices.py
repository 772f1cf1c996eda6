"""Lists the cameras that are plugged in, and addresses them for FFmpeg."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import av
import av.device

_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's input format for cameras, by `sys.platform`."""


@dataclass(frozen=True, slots=True)
class Device:
    """A camera of this machine."""

    address: str
    """The address that `gpen-stream live` accepts, such as "webcam:0"."""
    name: str
    """Name that the camera's driver states."""


def cameras() -> list[Device]:
    """The cameras that are plugged in now."""
    if sys.platform == "linux":
        return _video4linux()
    return [Device(f"webcam:{number}", name) for number, name in enumerate(_enumerated())]


def device_url(name: str) -> tuple[str, str]:
    """FFmpeg's input format and URL of `webcam:NAME`. NAME is a number, a device's path or its name."""
    form = _FORMATS.get(sys.platform, "v4l2")
    if form == "v4l2":
        return form, f"/dev/video{name}" if name.isdigit() else name
    if form == "avfoundation":
        return form, f"{name}:none"
    names = _enumerated() if name.isdigit() else []
    known = name.isdigit() and int(name) < len(names)
    return form, f"video={names[int(name)] if known else name}"


def _video4linux(folder: Path = Path("/sys/class/video4linux")) -> list[Device]:
    """The cameras of Linux. Of each camera only the first node counts: the others send metadata only."""
    found = []
    for node in sorted(folder.glob("video*"), key=lambda node: int(node.name[5:])):
        try:
            name, index = ((node / fact).read_text().strip() for fact in ("name", "index"))
        except OSError:
            continue  # unplugged meanwhile
        if index == "0":
            found.append(Device(f"webcam:{node.name[5:]}", name))
    return found


def _enumerated() -> list[str]:
    form = _FORMATS.get(sys.platform)
    if form is None:
        return []
    try:
        devices = av.device.enumerate_input_devices(form)
    except (av.FFmpegError, ValueError):
        return []
    return [device.description for device in devices if "video" in device.media_types]
