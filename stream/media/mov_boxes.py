"""The box structure of mov and mp4 files, where FFmpeg does not read or repair it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SAMPLE_COUNTS = (b"stsz", b"stz2")


def movie_timescale(path: Path) -> int:
    """Units a second of the file's edit lists, from its `mvhd` box; 0 where it has none."""
    with path.open("rb") as file:
        for kind, start, length in _outer_boxes(file):
            if kind != b"moov":
                continue
            file.seek(start + 8)
            head = file.read(min(length, 4096))
            body = next((whole for name, whole in _boxes(head) if name == b"mvhd"), b"")
            at = 28 if body[8:9] == b"\x01" else 20
            return int.from_bytes(body[at : at + 4], "big")
    return 0


def drop_empty_tracks(path: Path, indices: set[int]) -> None:
    """Remove tracks without samples from the `moov` box at the file's end, in place.

    FFmpeg's hybrid_fragmented mode (8.1, measured) writes a track for an attached picture, although the
    `covr` box holds the picture. `indices` counts tracks from 0. Files of another structure are left alone.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        kind, start, length = [*_outer_boxes(file), (b"", 0, 0)][-2:][0]
        if kind != b"moov" or start + length != size:
            return
        file.seek(start + 8)
        boxes = list(_boxes(file.read()))
        tracks = [box for box in boxes if box[0] == b"trak"]
        empty = [box for i, box in enumerate(tracks) if i in indices and not _samples(box[1])]
        if not empty:
            return
        kept = b"".join(whole for name, whole in boxes if (name, whole) not in empty)
        file.seek(start)
        file.write((len(kept) + 8).to_bytes(4, "big") + b"moov" + kept)
        file.truncate()


def drop_torn_end(path: Path) -> None:
    """Cut off what follows the last whole fragment of a fragmented file, in place.

    A killed process or a full disk leaves an incomplete fragment at the end. Players read up to it and
    then report an error. Whole files, and files without fragments, are left alone.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        boxes = list(_outer_boxes(file))
        ends = [start + length for kind, start, length in boxes if kind == b"mdat" and start + length <= size]
        is_fragmented = any(kind == b"moof" for kind, _, _ in boxes)
        last_kind, last_start, last_length = boxes[-1] if boxes else (b"", 0, 0)
        whole = last_start + last_length == size and last_kind != b"moof"
        if is_fragmented and ends and not whole:
            file.truncate(ends[-1])


def _outer_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and length of the file's outermost boxes."""
    size = file.seek(0, 2)
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            return
        yield header[4:8], position, length
        position += length


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            return
        yield data[position + 4 : position + 8], data[position : position + length]
        position += length


def _samples(track: bytes) -> int:
    """The track's number of samples by its size table; 1 where there is none."""
    inside = track[8:]
    for name in (b"mdia", b"minf", b"stbl"):
        inside = next((whole[8:] for kind, whole in _boxes(inside) if kind == name), b"")
    table = next((whole for kind, whole in _boxes(inside) if kind in _SAMPLE_COUNTS), None)
    return 1 if table is None else int.from_bytes(table[16:20], "big")
