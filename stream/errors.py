"""Every error that a user can meet, as one clear line with an exit code."""

from __future__ import annotations


class StreamError(Exception):
    """Base of all expected errors. The message is one line: what is wrong, where, and what to do."""

    exit_code = 1


class ConfigError(StreamError):
    """A setting is unknown, of the wrong type or out of range; the message names its key."""

    exit_code = 2


class SourceError(StreamError):
    """An input cannot be read; the message names the file."""


class ModelError(StreamError):
    """Weights are missing, broken or do not fit the network; the message names the file."""


class EncodeError(StreamError):
    """An output cannot be written; the message names the file or the codec."""


class HardwareError(EncodeError):
    """A hardware encoder that nobody named failed: the video can be made in software."""


class StageError(StreamError):
    """A stage failed unexpectedly; the original exception is its `__cause__`."""


class TrainError(StreamError):
    """Training cannot start or go on: faces, weights or a checkpoint are not what they should be."""


class NotFoundError(StreamError):
    """What a request names, such as a camera, a recording or a file, does not exist."""
