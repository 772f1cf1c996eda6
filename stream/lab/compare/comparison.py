"""Two looks at every pair: the first measures and finds what is worth showing, the second shows it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from stream.errors import EncodeError, SourceError
from stream.lab.compare import contact_sheet, side_by_side
from stream.lab.compare.contact_sheet import Moment
from stream.lab.compare.face_numbers import Faces
from stream.lab.compare.figures import SAMPLES, Figure, Slow, Survey, survey
from stream.lab.compare.medium import Medium, common_size, open_medium
from stream.lab.compare.motion_figures import MotionFigures, stretches
from stream.lab.compare.page import LETTERS, QUALITY, Page, Plan, plan
from stream.lab.compare.pairs import PairedPictures
from stream.lab.compare.selection import choose, spread

Tick = Callable[[str, int], None]
"""Hears what is done and how many pairs of it."""
_SMALLEST = 64
"""The perceptual indices need so many px each way."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be written, None: not; and how."""

    page: Path | None = None
    sheet: Path | None = None
    video: Path | None = None
    json: Path | None = None
    layout: str = "split"
    budget_bytes: int = 20_000_000
    """Size that the page may have."""
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What was found and written."""

    figures: list[Figure]
    has_reference: bool
    summary: str
    """What was compared, in one line."""
    notes: list[str]
    """What is to be known about the figures and the files, one line each."""
    written: list[Path]


def compare(
    a: Path,
    b: Path,
    reference: Path | None = None,
    wishes: Wishes | None = None,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    offset_s: float = 0.0,
    tick: Tick = lambda what, count: None,
) -> Result:
    """Compare two videos or two pictures, and write what is wished for.

    `start_s` and `duration_s` cut a part out of A's time; `offset_s` is where in A's time B begins.
    Raises a StreamError, in one line, where that cannot be done; files that exist stay unless
    `overwrite` is set.
    """
    wishes = wishes or Wishes()
    media = [open_medium(Path(a), start_s, duration_s), open_medium(Path(b), start_s, duration_s, offset_s)]
    if reference is not None:
        media.append(open_medium(Path(reference), start_s, duration_s))
    size = common_size(media)
    _check(media, size, wishes)
    work = _Work(media, size, wishes, tick)
    return work.result()


@dataclass(frozen=True, slots=True)
class _SecondLook:
    """What is taken from the pairs when they are looked at again."""

    slow: Slow
    motion: MotionFigures | None
    """None for still pictures."""
    page: Page | None
    """None where none is wanted."""
    shown: str
    """Which pairs the page shows, in words."""
    moments: list[Moment]
    """Those on the sheet."""

    def figures(self, found: Survey) -> list[Figure]:
        """All figures, those of pictures first."""
        return self.slow.figures(found) + (self.motion.figures() if self.motion else [])


class _Work:
    def __init__(self, media: list[Medium], size: tuple[int, int], wishes: Wishes, tick: Tick) -> None:
        self._media, self._size, self._wishes, self._tick = media, size, wishes, tick
        self._is_video = media[0].is_video
        self._names = dict(zip("abr", _names([medium.path for medium in media]), strict=False))
        self._pairs = PairedPictures(media[0], media[1], media[2] if len(media) > 2 else None, size)

    def result(self) -> Result:
        """Do all of it."""
        wishes = self._wishes
        found = survey(self._pairs, lambda count: self._tick("measured", count))
        unpaired = self._unpaired()
        second = self._look_again(found)
        figures = second.figures(found)
        measured = self._measured(found, second.motion)
        summary = self._summary(found)
        notes = [*unpaired, *(note for medium in self._media for note in medium.notes)]
        written: list[Path] = []
        if wishes.page is not None and second.page is not None:
            page_notes = [*notes, *self._page_notes(second.page.settings, second.shown)]
            text = second.page.html(
                self._names, found, figures, summary, page_notes, measured, self._is_video
            )
            written.append(_write(wishes.page, text.encode()))
        if wishes.sheet is not None:
            names = [f"{LETTERS[which]}: {name}" for which, name in self._names.items()]
            title = ["    ".join(names), summary, *unpaired]
            image = contact_sheet.draw(second.moments, title, figures, found.gain)
            written.append(_write(wishes.sheet, contact_sheet.png(image)))
        if wishes.video is not None:
            notes += side_by_side.write(
                self._media[0], self._media[1], self._size, wishes.video, wishes.layout, wishes.overwrite,
                lambda count: self._tick("encoded", count),
            )  # fmt: skip
            written.append(wishes.video)
        notes.append(measured)
        if wishes.json is not None:
            text = self._json(found, figures, summary, notes)
            written.append(_write(wishes.json, (text + "\n").encode()))
        return Result(figures, "r" in self._names, summary, notes, written)

    def _look_again(self, found: Survey) -> _SecondLook:
        """Slow figures of a few pairs, and pictures of those that are shown."""
        count, peak = len(found.times), found.peak.index
        sampled = {*spread(count, SAMPLES)}
        on_sheet = {*spread(count, contact_sheet.MOMENTS), peak} if self._wishes.sheet else set()
        on_page: set[int] = set()
        page, shown = None, ""
        if self._wishes.page is not None:
            settings = plan(found.peak, count, self._wishes.budget_bytes)
            chosen = choose(found.difference, settings.frames)
            page, on_page, shown = Page(settings), set(chosen.pairs), chosen.words(count)
        find = Faces() if on_page or on_sheet else None
        slow, moments = Slow(), []
        motion = MotionFigures(count) if self._is_video else None
        moving = {index for stretch in stretches(count) for index in stretch} if self._is_video else set()
        for pair in self._pairs.only(sampled | on_page | on_sheet | moving):
            if pair.index in sampled:
                slow.add(pair)
            if motion is not None:
                motion.add(pair)
            if find is not None and pair.index in on_page | on_sheet:
                faces = find(*(each for each in (pair.reference, pair.b, pair.a) if each is not None))
                if page is not None and pair.index in on_page:
                    page.add(pair, faces)
                if pair.index in on_sheet:
                    moments.append(Moment(pair, faces, self._caption(found, pair.index)))
            self._tick("looked at again", pair.index + 1)
        return _SecondLook(slow, motion, page, shown, moments)

    def _caption(self, found: Survey, index: int) -> list[str]:
        lines = [f"frame {found.frames[index] + 1}, {found.times[index]:.2f} s"] if self._is_video else []
        psnr = [
            f"{which.upper() + ' ' if len(found.psnr) > 1 else ''}{_decibel(values[index])}"
            for which, values in found.psnr.items()
        ]
        lines.append(f"PSNR {', '.join(psnr)}")
        if index == found.peak.index and self._is_video:
            lines[0] += ", largest difference"
        return lines

    def _summary(self, found: Survey) -> str:
        size = f"{self._size[0]}x{self._size[1]}"
        if not self._is_video:
            return f"Two pictures, {size}"
        span = f"{found.times[0]:.2f} to {found.times[-1]:.2f}\u00a0s"
        return f"{len(found.times)} frames at the same times, {size}, {span}"

    def _unpaired(self) -> list[str]:
        found = self._pairs.unpaired
        counts = {
            "of A without one of B": found.only_a,
            "of B without one of A": found.only_b,
            "without one of the reference": found.without_reference,
        }
        lost = [f"{count} {words}" for words, count in counts.items() if count]
        return [f"Left out: frames {', '.join(lost)} at their time"] if lost else []

    def _page_notes(self, settings: Plan, shown: str) -> list[str]:
        kind = "without loss, as PNG"
        if not settings.lossless:
            kind = f"as JPEG of quality {QUALITY}; figures were taken before that"
        small = ""
        if settings.size != self._size:
            small = f", made smaller to {settings.size[0]}x{settings.size[1]}"
        return [
            f"Pictures: {shown}{small}, {kind}.",
            "Difference: the largest of the three channels' at each pixel, in levels of 0 to 255.",
            "Keys: 1, 2, 3 … choose the view; comma and full stop step through the frames; the space bar "
            "plays. The divider and the scrubber take arrow keys, Home and End.",
        ]

    def _measured(self, found: Survey, motion: MotionFigures | None) -> str:
        count = len(found.times)
        against = "the reference" if "r" in self._names else "A"
        if count == 1:
            return f"Against {against}, at {self._size[0]}x{self._size[1]}."
        taken = min(count, SAMPLES)
        few = "every frame" if taken == count else f"{taken} frames spread evenly"
        return (
            f"Against {against}. PSNR (of the mean error) and sharpness: every frame. SSIM, indices and "
            f"overshoot: {few}. {motion.words if motion else ''}"
        ).strip()

    def _json(self, found: Survey, figures: list[Figure], summary: str, notes: list[str]) -> str:
        facts = {
            **{
                key: str(medium.path)
                for key, medium in zip(("a", "b", "reference"), self._media, strict=False)
            },
            "summary": summary,
            "size": list(self._size),
            "pairs": len(found.times),
            **asdict(self._pairs.unpaired),
            "figures": {
                figure.key: {which: _finite(value) for which, value in figure.values.items()}
                for figure in figures
            },
            "frames": {
                "frame": found.frames,
                "time_s": found.times,
                "difference": found.difference,
                "psnr": {which: list(map(_finite, values)) for which, values in found.psnr.items()},
                "sharpness": found.sharpness,
            },
            "notes": notes,
        }
        return json.dumps(facts, indent=2, allow_nan=False)


def _check(media: list[Medium], size: tuple[int, int], wishes: Wishes) -> None:
    if min(size) < _SMALLEST:
        raise SourceError(
            f"{media[0].path}: {size[0]}x{size[1]} is too small; {_SMALLEST} px each way are needed"
        )
    if wishes.video is not None and not media[0].is_video:
        raise SourceError(f"{media[0].path}: is a picture; --video wants two videos")
    targets = [path for path in (wishes.page, wishes.sheet, wishes.video, wishes.json) if path is not None]
    for target in targets:
        if not target.resolve().parent.is_dir():
            raise EncodeError(f"{target}: its folder does not exist; make it first")
        if target.is_dir():
            raise EncodeError(f"{target}: is a folder; name a file")
        if any(target.exists() and target.samefile(medium.path) for medium in media):
            raise EncodeError(f"{target}: is one of the inputs; name another file")
        if target.exists() and not wishes.overwrite:
            raise EncodeError(f"{target}: exists; name another file or add --overwrite")
    if len({target.resolve() for target in targets}) < len(targets):
        raise EncodeError(f"{targets[0]}: is named for two outputs; give each its own file")


def _names(paths: list[Path]) -> list[str]:
    """What the files are called for the reader: with the folder where two would be called the same."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [str(Path(path.resolve().parent.name) / path.name) for path in paths]


def _write(path: Path, data: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise EncodeError(f"{path}: cannot be written ({error.strerror}); check the disk") from None
    return path


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decibel(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.1f} dB"
