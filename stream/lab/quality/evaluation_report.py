"""An evaluation as `gpen-stream evaluate --json` writes it; docs/quality.md explains each figure.

Figures are grouped by level of damage, then by row (the input or a contender), then by the figure's
name. None stands for a figure that no face has.
"""

from __future__ import annotations

from typing import TypedDict


class FigureDifference(TypedDict):
    """One figure of a row minus the same figure of another row, at one level; see `bootstrap.Difference`."""

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
    """better, worse, or empty if the interval includes zero."""


class EvaluationFigures(TypedDict):
    """The measured values."""

    seed: int
    faces: list[str]
    levels: list[str]
    rows: list[str]
    figures: list[str]
    middles: dict[str, dict[str, dict[str, float | None]]]
    missing: dict[str, dict[str, int]]
    """Number of pictures in which no face was found, by level and row."""
    differences: list[FigureDifference]
    by_face: dict[str, dict[str, dict[str, list[float | None]]]]
    """Lists with one value for each of `faces`."""


class EvaluationReport(EvaluationFigures):
    """The measured values, and the models and faces that they belong to."""

    split: str
    """Half of the people whose faces were used: one of `portraits.SPLITS`."""
    model: str
    models: list[str]
    """The model's rows: the network alone, and as it ships."""
    sha256: str
    """SHA-256 of the model's file, hexadecimal."""
    commit: str | None
    """The measured commit; None if the package does not run from a clone."""
    weights_sha256: str
    """SHA-256 of the bundled model's file, hexadecimal."""
    settings: dict[str, float]
    """Settings with which the model ships."""
    against: dict[str, str]
    """SHA-256 of the other models, by name."""
