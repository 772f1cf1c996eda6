"""The ends of a pipeline over still pictures: each is read, claimed and written by itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stream.errors import EncodeError, SourceError, StreamError
from stream.media.claim import OutputClaim
from stream.media.encode import claim_destination
from stream.media.images import Still, read_image, write_image
from stream.picture.face import FrameWork
from stream.picture.frame import Frame
from stream.pipeline.stage import Sink


@dataclass(frozen=True, slots=True, eq=False)
class ImageWork:
    """A picture in the pipeline."""

    still: Still
    destination: Path
    claim: OutputClaim
    """Held until the picture is written."""


class ImageSource:
    """Frames of several pictures, each with its own size.

    jobs: (source, destination) of each. One that cannot be read, or whose destination cannot be written
    or is another run's, goes into `failures`. `adapt` may change a picture that was read, or refuse it by
    a SourceError. overwrite: whether an existing destination may be replaced.
    """

    def __init__(
        self,
        jobs: Sequence[tuple[Path, Path]],
        adapt: Callable[[Still], Still] = lambda still: still,
        *,
        overwrite: bool = False,
    ) -> None:
        self.works: dict[int, ImageWork] = {}
        """Pictures in the pipeline, by the frame's index; `ImageSink` removes them."""
        self.failures: list[StreamError] = []
        self.frames_in, self.corrupt_packets = 0, 0
        self.notes: list[str] = []
        self._jobs, self._adapt, self._overwrite = jobs, adapt, overwrite

    def frames(self) -> Generator[Frame, None, None]:
        """Read the pictures in order."""
        for path, destination in self._jobs:
            try:
                work = self._begin(path, destination)
            except (SourceError, EncodeError) as error:
                self.failures.append(error)
                continue
            if work.still.note:
                self.notes.append(work.still.note)
            self.works[self.frames_in] = work
            self.frames_in += 1
            yield work.still.frame(self.frames_in - 1)

    def release(self) -> None:
        """Give up the claims of pictures that were read and never written. Call it after the pipeline."""
        for work in self.works.values():
            work.claim.release()
        self.works.clear()

    def _begin(self, path: Path, destination: Path) -> ImageWork:
        with ExitStack() as undo:
            claim = claim_destination(path, destination, self._overwrite)
            undo.callback(claim.release)
            work = ImageWork(self._adapt(read_image(path)), destination, claim)
            undo.pop_all()
        return work


class ImageSink(Sink):
    """Stage: writes every frame to its own file. One that cannot be written goes into `failures`."""

    def __init__(self, source: ImageSource, note: str) -> None:
        self.frames_out = 0
        self.notes: list[str] = []
        self.failures: list[EncodeError] = []
        self._source, self._note = source, note

    def process(self, item: FrameWork) -> Iterable[None]:
        """Write one picture."""
        work = self._source.works.pop(item.frame.index)
        try:
            write_image(work.still, item.frame, work.destination, self._note)
        except EncodeError as error:
            self.failures.append(error)
            return ()
        finally:
            work.claim.release()
        self.frames_out += 1
        return ()
