"""An evaluation as `gpen-stream evaluate --json` writes it; docs/quality.md says what each figure means.

Figures are grouped by level of damage, then by row (the input or a contender), then by the figure's
name. None stands for a figure that no face has.
"""

from __future__ import annotations

from typing import TypedDict


class FigureDifference(TypedDict):
    """One figure of a row less that of another row, at one level; see `bootstrap.Difference`."""

    level: str
    row: str
    against: str
    """The other row."""
    figure: str
    difference: float | None
    low: float | None
    high: float | None
    pairs: int
    verdict: str
    """better, worse, or empty where the interval holds no change."""


class EvaluationFigures(TypedDict):
    """What was measured."""

    seed: int
    faces: list[str]
    levels: list[str]
    rows: list[str]
    figures: list[str]
    middles: dict[str, dict[str, dict[str, float | None]]]
    missing: dict[str, dict[str, int]]
    """By level and row: faces in which no face was found."""
    differences: list[FigureDifference]
    by_face: dict[str, dict[str, dict[str, list[float | None]]]]
    """One value for each of `faces`."""


class EvaluationReport(EvaluationFigures):
    """What was measured, and on what."""

    split: str
    """Which half of the people: one of `portraits.SPLITS`."""
    model: str
    models: list[str]
    """The model's rows: the bare network, and as it ships."""
    sha256: str
    """Of the model's file."""
    commit: str | None
    """The version that was measured; None where it was no clone."""
    weights_sha256: str
    """Of the bundled model's file."""
    settings: dict[str, float]
    """How it ships."""
    against: dict[str, str]
    """SHA-256 of the models that it is compared with, by name."""
