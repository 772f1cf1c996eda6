"""The comparison: a first pass measures every pair, a second pass renders the selected ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from stream.errors import EncodeError, SourceError
from stream.lab.compare import contact_sheet, side_by_side
from stream.lab.compare.contact_sheet import SheetColumn
from stream.lab.compare.face_numbers import FaceNumbering
from stream.lab.compare.figures import SAMPLES, Figure, FirstPass, SampledFigures, first_pass
from stream.lab.compare.medium import Medium, common_size, open_medium
from stream.lab.compare.motion_figures import MotionFigures, stretches
from stream.lab.compare.page import LETTERS, QUALITY, Page, PageFormat, page_format
from stream.lab.compare.pairs import PairedPictures
from stream.lab.compare.selection import evenly_spaced, select_pairs
from stream.media.claim import OutputClaim
from stream.media.partial_file import write_whole

OnProgress = Callable[[str, int], None]
"""Called with the step as a past participle, such as "measured", and the number of pairs that it has done."""
_SMALLEST = 64
"""Least side of the pictures that the perceptual indices need, px."""


@dataclass(frozen=True, slots=True)
class ComparisonOutputs:
    """The files to write, and how. A path of None means that the file is not written."""

    page: Path | None = None
    sheet: Path | None = None
    video: Path | None = None
    json: Path | None = None
    layout: str = "split"
    """Layout of the video: split or side, see `side_by_side.write`."""
    budget_bytes: int = 20_000_000
    """Approximate size of the page."""
    overwrite: bool = False
    """Whether files that exist are replaced."""


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """The figures, and the files that were written."""

    figures: list[Figure]
    has_reference: bool
    """Whether the figures are relative to a reference."""
    summary: str
    """One line that says what was compared."""
    notes: list[str]
    """Remarks about the figures and the files, one line each."""
    written: list[Path]


def compare(
    a: Path,
    b: Path,
    reference: Path | None = None,
    outputs: ComparisonOutputs | None = None,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    offset_s: float = 0.0,
    on_progress: OnProgress = lambda what, count: None,
) -> ComparisonResult:
    """Compare two videos or two pictures, and write the requested outputs.

    `start_s` and `duration_s` select a part of A's time; B begins at `offset_s` of A's time. Raises
    StreamError with a message of one line.
    """
    outputs = outputs or ComparisonOutputs()
    media = [open_medium(Path(a), start_s, duration_s), open_medium(Path(b), start_s, duration_s, offset_s)]
    if reference is not None:
        media.append(open_medium(Path(reference), start_s, duration_s))
    size = common_size(media)
    _check(media, size, outputs)
    return _ComparisonRun(media, size, outputs, on_progress).result()


@dataclass(frozen=True, slots=True)
class _SecondPass:
    """The result of the second pass over the pairs."""

    sampled: SampledFigures
    motion: MotionFigures | None
    """None for still pictures."""
    page: Page | None
    """None if no page is requested."""
    shown: str
    """Description of the pairs that the page shows."""
    columns: list[SheetColumn]
    """The columns of the contact sheet."""

    def figures(self, found: FirstPass) -> list[Figure]:
        """All figures, those of pictures first."""
        return self.sampled.figures(found) + (self.motion.figures() if self.motion else [])


class _ComparisonRun:
    """One comparison of media that are scaled to one size."""

    def __init__(
        self,
        media: list[Medium],
        size: tuple[int, int],
        outputs: ComparisonOutputs,
        on_progress: OnProgress,
    ) -> None:
        self._media, self._size, self._outputs, self._on_progress = media, size, outputs, on_progress
        self._is_video = media[0].is_video
        self._names = dict(zip("abr", _names([medium.path for medium in media]), strict=False))
        self._pairs = PairedPictures(media[0], media[1], media[2] if len(media) > 2 else None, size)

    def result(self) -> ComparisonResult:
        """Measure, render and write everything."""
        outputs = self._outputs
        found = first_pass(self._pairs, lambda count: self._on_progress("measured", count))
        unpaired = self._unpaired()
        second = self._second_pass(found)
        figures = second.figures(found)
        measured = self._measured(found, second.motion)
        summary = self._summary(found)
        notes = [*unpaired, *(note for medium in self._media for note in medium.notes)]
        written: list[Path] = []
        if outputs.page is not None and second.page is not None:
            page_notes = [*notes, *self._page_notes(second.page.settings, second.shown)]
            text = second.page.html(
                self._names, found, figures, summary, page_notes, measured, self._is_video
            )
            written.append(_write(outputs.page, text.encode()))
        if outputs.sheet is not None:
            names = [f"{LETTERS[which]}: {name}" for which, name in self._names.items()]
            title = ["    ".join(names), summary, *unpaired]
            image = contact_sheet.draw(second.columns, title, figures, found.gain)
            written.append(_write(outputs.sheet, contact_sheet.png(image)))
        if outputs.video is not None:
            with OutputClaim(outputs.video):
                notes += side_by_side.write(
                    self._media[0], self._media[1], self._size, outputs.video, outputs.layout,
                    outputs.overwrite, lambda count: self._on_progress("encoded", count),
                )  # fmt: skip
            written.append(outputs.video)
        notes.append(measured)
        if outputs.json is not None:
            text = self._json(found, figures, summary, notes)
            written.append(_write(outputs.json, (text + "\n").encode()))
        return ComparisonResult(figures, "r" in self._names, summary, notes, written)

    def _second_pass(self, found: FirstPass) -> _SecondPass:
        """Measure the slow figures of a sample of pairs, and render the pairs that are shown."""
        count, peak = len(found.times), found.peak.index
        sampled = {*evenly_spaced(count, SAMPLES)}
        on_sheet = {*evenly_spaced(count, contact_sheet.COLUMNS), peak} if self._outputs.sheet else set()
        on_page: set[int] = set()
        page, shown = None, ""
        if self._outputs.page is not None:
            settings = page_format(found.peak, count, self._outputs.budget_bytes)
            chosen = select_pairs(found.difference, settings.frames)
            page, on_page, shown = Page(settings), set(chosen.pairs), chosen.description(count)
        find = FaceNumbering() if on_page or on_sheet else None
        figures, columns = SampledFigures(), []
        motion = MotionFigures(count) if self._is_video else None
        moving = {index for stretch in stretches(count) for index in stretch} if self._is_video else set()
        for pair in self._pairs.only(sampled | on_page | on_sheet | moving):
            if pair.index in sampled:
                figures.add(pair)
            if motion is not None:
                motion.add(pair)
            if find is not None and pair.index in on_page | on_sheet:
                faces = find(*(each for each in (pair.reference, pair.b, pair.a) if each is not None))
                if page is not None and pair.index in on_page:
                    page.add(pair, faces)
                if pair.index in on_sheet:
                    columns.append(SheetColumn(pair, faces, self._caption(found, pair.index)))
            self._on_progress("looked at again", pair.index + 1)
        return _SecondPass(figures, motion, page, shown, columns)

    def _caption(self, found: FirstPass, index: int) -> list[str]:
        lines = [f"frame {found.frames[index] + 1}, {found.times[index]:.2f} s"] if self._is_video else []
        psnr = [
            f"{which.upper() + ' ' if len(found.psnr) > 1 else ''}{_decibel(values[index])}"
            for which, values in found.psnr.items()
        ]
        lines.append(f"PSNR {', '.join(psnr)}")
        if index == found.peak.index and self._is_video:
            lines[0] += ", largest difference"
        return lines

    def _summary(self, found: FirstPass) -> str:
        size = f"{self._size[0]}x{self._size[1]}"
        if not self._is_video:
            return f"Two pictures, {size}"
        span = f"{found.times[0]:.2f} to {found.times[-1]:.2f}\u00a0s"
        return f"{len(found.times)} frames at the same times, {size}, {span}"

    def _unpaired(self) -> list[str]:
        found = self._pairs.unpaired
        counts = {
            "frames of A without a frame of B": found.only_a,
            "frames of B without a frame of A": found.only_b,
            "pairs without a frame of the reference": found.without_reference,
        }
        left_out = [f"{count} {words}" for words, count in counts.items() if count]
        return [f"Left out: {', '.join(left_out)}"] if left_out else []

    def _page_notes(self, settings: PageFormat, shown: str) -> list[str]:
        kind = "without loss, as PNG"
        if not settings.lossless:
            kind = f"as JPEG of quality {QUALITY}; figures were measured before"
        small = ""
        if settings.size != self._size:
            small = f", made smaller to {settings.size[0]}x{settings.size[1]}"
        return [
            f"Pictures: {shown}{small}, {kind}.",
            "Difference: the largest difference of the three channels at each pixel, in levels of 0 to 255.",
            "Keys: 1, 2, 3 … choose the view; comma and full stop step through the frames; the space bar "
            "plays. The arrow keys, Home and End move the divider and the scrubber.",
        ]

    def _measured(self, found: FirstPass, motion: MotionFigures | None) -> str:
        count = len(found.times)
        against = "the reference" if "r" in self._names else "A"
        if count == 1:
            return f"Against {against}, at {self._size[0]}x{self._size[1]}."
        sampled = min(count, SAMPLES)
        which = "every frame" if sampled == count else f"{sampled} evenly spaced frames"
        return (
            f"Against {against}. PSNR (of the mean error) and sharpness: every frame. SSIM, indices and "
            f"overshoot: {which}. {motion.description if motion else ''}"
        ).strip()

    def _json(self, found: FirstPass, figures: list[Figure], summary: str, notes: list[str]) -> str:
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


def _check(media: list[Medium], size: tuple[int, int], outputs: ComparisonOutputs) -> None:
    """Raise SourceError for pictures that cannot be compared, EncodeError for unusable outputs."""
    if min(size) < _SMALLEST:
        raise SourceError(
            f"{media[0].path}: {size[0]}x{size[1]} is too small; both sides need at least {_SMALLEST} px"
        )
    if outputs.video is not None and not media[0].is_video:
        raise SourceError(f"{media[0].path}: is a picture; --video wants two videos")
    targets = [
        path for path in (outputs.page, outputs.sheet, outputs.video, outputs.json) if path is not None
    ]
    for target in targets:
        if not target.resolve().parent.is_dir():
            raise EncodeError(f"{target}: its folder does not exist; make it first")
        if target.is_dir():
            raise EncodeError(f"{target}: is a folder; name a file")
        if any(target.exists() and target.samefile(medium.path) for medium in media):
            raise EncodeError(f"{target}: is one of the inputs; name another file")
        if target.exists() and not outputs.overwrite:
            raise EncodeError(f"{target}: exists; name another file or add --overwrite")
    if len({target.resolve() for target in targets}) < len(targets):
        raise EncodeError(f"{targets[0]}: is named for two outputs; give each its own file")


def _names(paths: list[Path]) -> list[str]:
    """The files' names, preceded by their folders' names if two files have the same name."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [str(Path(path.resolve().parent.name) / path.name) for path in paths]


def _write(path: Path, data: bytes) -> Path:
    try:
        with OutputClaim(path):
            write_whole(path, data)
    except OSError as error:
        raise EncodeError(f"{path}: cannot be written ({error.strerror}); check the disk") from None
    return path


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decibel(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.1f} dB"
