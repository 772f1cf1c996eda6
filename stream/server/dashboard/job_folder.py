"""The folder of one job: the output while it is written, and the segments that earlier runs have finished."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_PREFIX = ".job-"
_CLAIMED = "job"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A hidden folder beside the results. It stays until its job is done or removed from the list."""

    path: Path

    @classmethod
    def of(cls, results: Path, job_id: str) -> JobFolder:
        """The folder of a job; nothing is created."""
        return cls(results / f"{_PREFIX}{job_id}")

    @staticmethod
    def found(results: Path) -> list[JobFolder]:
        """All folders of jobs that lie in a folder of results."""
        return [JobFolder(path) for path in results.glob(f"{_PREFIX}*") if path.is_dir()]

    @property
    def claimed(self) -> Path:
        """What a process claims while it works in the folder; see `OutputClaim`."""
        return self.path / _CLAIMED

    def has_segments(self) -> bool:
        """Whether an earlier run has finished segments, which need not be restored again."""
        return any(self.path.glob(".*.gpen/*.video"))

    def make(self) -> None:
        """Create the folder if it does not exist. Raises OSError."""
        self.path.mkdir(exist_ok=True)

    def tidy(self) -> None:
        """Delete what a killed run has left, except plan and segments. Raises OSError."""
        for path in self.path.iterdir():
            if path.name != f".{_CLAIMED}.lock" and path.suffix != ".gpen":
                path.unlink()

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
