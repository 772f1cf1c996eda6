"""The file that lists the jobs, so that a server that is started again continues with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from stream.media.synced_file import write_synced
from stream.server.dashboard.job_status import JobStatus

LOG = logging.getLogger(__name__)
LIST_NAME = ".jobs.json"
_DAMAGED_NAME = ".jobs.damaged.json"
_STATUS = TypeAdapter(JobStatus)


class _OtherFacts(BaseModel, frozen=True):
    """What the list holds of a job besides its status."""

    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,40}$")]  # a part of the name of its folder
    result: str = ""
    settings: dict[str, JsonValue] | None = None
    segment_s: Annotated[float, Field(ge=1)] | None = None


class StoredJob(BaseModel, frozen=True):
    """A job as the list holds it."""

    status: JobStatus
    result: str
    """Name of the result in the folder of results; empty while there is none."""
    settings: dict[str, JsonValue] | None
    """All settings, as nested sections; None for a job that is done."""
    segment_s: float | None
    """Longest segment, s; None: as the server's settings say."""


class JobList:
    """The file in the folder of results. Each job is one JSON object: its status with further keys."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._path = results / LIST_NAME
        self._is_written = True

    def read(self) -> list[StoredJob] | None:
        """The stored jobs, in their order; none if there is no file.

        None: the file is damaged. It is set aside, and the log says so.
        """
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            return [_parsed(entry) for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:  # ValidationError is a ValueError
            self._set_aside(error)
            return None

    def write(self, jobs: Sequence[StoredJob]) -> None:
        """Store the jobs. If that fails, the log says so once, and a restart finds the list as it was."""
        text = json.dumps([_entry(job) for job in jobs])
        try:
            write_synced(self._path, text)
            self._is_written = True
        except OSError as error:
            if self._is_written:
                LOG.warning(
                    "%s: cannot be written (%s); a restart forgets newer changes of the queue",
                    self._path, error.strerror,
                )  # fmt: skip
            self._is_written = False

    def drop_parts(self) -> None:
        """Delete what a server left that was killed while it wrote."""
        for path in self._results.glob(f"{LIST_NAME}.*.part"):
            path.unlink(missing_ok=True)

    def _set_aside(self, error: Exception) -> None:
        aside = self._path.with_name(_DAMAGED_NAME)
        reason = type(error).__name__ if isinstance(error, ValidationError) else str(error)
        try:
            self._path.replace(aside)
            text = "%s: is damaged (%s) and is now %s; results are listed, add files again that had to wait"
            LOG.warning(text, self._path, reason, aside.name)
        except OSError:
            LOG.warning("%s: cannot be read (%s); results are listed, no more", self._path, reason)


def _parsed(entry: object) -> StoredJob:
    others = _OtherFacts.model_validate(entry)
    return StoredJob(
        status=_STATUS.validate_python(entry),
        result=others.result,
        settings=others.settings,
        segment_s=others.segment_s,
    )


def _entry(job: StoredJob) -> dict[str, JsonValue]:
    others = job.model_dump(mode="json", exclude={"status"}, exclude_none=True)
    return job.status.to_json() | others
