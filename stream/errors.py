"""All errors that a user can meet. Each has a message of one line and an exit code."""

from __future__ import annotations


class StreamError(Exception):
    """The base of all expected errors. The message is one line: what is wrong, where, and what to do."""

    exit_code = 1


class ConfigError(StreamError):
    """A setting is unknown, of the wrong type or out of range; the message names its key."""

    exit_code = 2


class SourceError(StreamError):
    """An input cannot be read; the message names the file."""


class ModelError(StreamError):
    """Weights are missing or broken, or do not fit the network; the message names the file."""


class EncodeError(StreamError):
    """An output cannot be written; the message names the file or the codec."""


class HardwareError(EncodeError):
    """A hardware encoder that the user did not name failed. Software can encode the video."""


class OutputTakenError(EncodeError):
    """Another run writes the output at this moment."""


class PlanError(StreamError):
    """A job cannot be continued or finished by its plan; the message names the difference or the segment."""


class PlanChangedError(PlanError):
    """An unfinished run does not fit this one any more. Only a run that begins again can restore the file."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """What differs, as the end of a sentence that begins with "since"."""


class ClusterError(StreamError):
    """A cluster cannot be reached or used; the message names its address, its node or its folder."""


class StageError(StreamError):
    """A stage failed unexpectedly. The original exception is its `__cause__`."""


class TrainError(StreamError):
    """Training cannot start or continue, because faces, weights or a checkpoint are wrong."""


class NotFoundError(StreamError):
    """The camera, recording or file that a request names does not exist."""
