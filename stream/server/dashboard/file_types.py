"""Tells videos and pictures from other files, by their names and first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from stream.errors import ConfigError
from stream.media.container import VIDEO_SUFFIXES
from stream.media.images import SUFFIXES

MEDIA = "videos or pictures"
"""The words for these files in messages."""
_SUFFIXES = (*VIDEO_SUFFIXES, *SUFFIXES)
_MAX_NAME_BYTES = 200
_SIGNATURES = re.compile(
    rb"....(?:ftyp|moov|mdat|free|wide|skip|pnot)"  # mp4, mov, 3gp
    rb"|\x1a\x45\xdf\xa3"  # mkv, webm
    rb"|RIFF....(?:AVI |WEBP)"
    rb"|\x00\x00\x01[\xb3\xba]"  # mpg, vob
    rb"|\x47.{187}\x47|.{4}\x47.{191}\x47"  # ts, m2ts
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11"  # wmv, asf
    rb"|FLV\x01|OggS|\x06\x0e\x2b\x34|\x1f\x07\x00|YUV4MPEG2 |nut/multimedia container\x00"
    rb"|\xff\xd8\xff|\x89PNG\r\n\x1a\n|BM|II\*\x00|MM\x00\*",
    re.DOTALL,
)
"""Beginnings of video and picture files.

FFmpeg identifies a file by its content. Some text files make it open other files and addresses: playlists,
concat scripts, session descriptions. Such a file never begins with these bytes.
"""
_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
    ".mkv": "video/x-matroska", ".ogv": "video/ogg", ".ts": "video/mp2t", ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip


def is_media(path: Path, name: str = "") -> bool:
    """Whether a file is a video or a picture. `name` is its future name, if that is a different one."""
    if not (name or path.name).lower().endswith(_SUFFIXES) or not path.is_file():
        return False
    try:
        with open(path, "rb") as stream:
            return _SIGNATURES.match(stream.read(512)) is not None
    except OSError:
        return False


def media_type(path: Path) -> str:
    """The media type for a browser; never one that the browser would execute."""
    return _TYPES.get(path.suffix.lower(), "application/octet-stream")


def safe_name(name: str) -> str:
    """A file's name without its folders. Raises ConfigError if it is not the name of a video or picture."""
    name = re.split(r"[/\\]", name)[-1].strip()
    shown = name[:40]
    if not name or name.startswith(".") or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise ConfigError(f"file {shown!r}: give it another name, of up to {_MAX_NAME_BYTES} bytes")
    if not name.isprintable() or re.search(r'[<>:"|?*]', name):
        raise ConfigError(f"file {shown!r}: take the characters that file systems refuse out of its name")
    if not name.lower().endswith(_SUFFIXES):
        raise ConfigError(f"file {shown!r}: is none of the known {MEDIA}")
    return name
