"""A video file, read once from front to back: container -> Frame, planes untouched."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from stream.errors import SourceError
from stream.media import hardware
from stream.media.container import Damage, PtsWindow, decoded_pictures, open_video, video_stream
from stream.picture import pixel_formats
from stream.picture.frame import Frame, StreamInfo, Timestamp
from stream.picture.pixel_formats import CHROMA_SITES

_COMPARED = 24
"""Pictures of a hardware decoder that are compared with the software's: a second of them shows every
kind of prediction that the file uses."""


class _NoDamage(Damage):
    """Refuses damage: each hardware decoder conceals it in its own way, so software has to."""

    def count_lost(self) -> None:
        """See `Damage.count_lost`."""
        raise hardware.Unusable("a packet could not be decoded")

    def count_damaged(self) -> None:
        """See `Damage.count_damaged`."""
        raise hardware.Unusable("a damaged packet")


class FileSource:
    """Frames of a file in display order. One thread opens, reads and closes it.

    After the last frame `corrupt_packets` and `truncated` are final, and `notes` says in words
    what was converted.
    """

    def __init__(
        self,
        info: StreamInfo,
        window: PtsWindow = (None, None),
        threads: int = 0,
        try_hardware: bool = False,
        in_colour: bool = False,
        thread_type: str = "AUTO",
    ) -> None:
        """`info`: of the file, by `probe`. The frames are those in `window`, a part of the video.

        threads: of the decoder; 0: FFmpeg's choice. in_colour: grey pictures come in a format that can
        hold colour, with the same luma. thread_type: FFmpeg's, "AUTO", "FRAME", "SLICE" or "NONE".
        """
        self.info = _with_colour(info) if in_colour else info
        """Properties of the frames."""
        self.notes: list[str] = []
        self.decoder = info.codec
        """FFmpeg's name of the decoder that was used, and the hardware's kind, if any, in parentheses."""
        self.frames_in = 0
        self._in_colour = in_colour
        self._thread_type = thread_type
        self._damage = Damage()
        self._threads = threads
        self._try_hardware = try_hardware
        self._start_pts, self._end_pts = window
        self._window_done = False
        self._last_pts: int | None = None
        self._only_dts = False

    @property
    def corrupt_packets(self) -> int:
        """Packets that could not be decoded, or were marked as damaged."""
        return self._damage.packets

    @property
    def truncated(self) -> bool:
        """Whether the file ends before what its own index or duration promises."""
        if self._window_done or self._last_pts is None:
            return False
        if self._damage.ended_early:
            return True
        # A file that was cut short lacks many frames; broken ones may cost a few.
        missing = self.info.frames - self.frames_in - self._damage.packets
        short = self.info.duration_s - float((self._last_pts - self.info.start_pts) * self.info.time_base)
        return missing > max(2, 0.02 * self.info.frames) and short > 0.5 if self.info.frames else short > 1.5

    def frames(self) -> Generator[Frame, None, None]:
        """Decode; the caller may stop at any time. Raises SourceError."""
        pictures = self._by_either() if self._try_hardware else self._by_software(self._start_pts)
        with closing(pictures):
            yield from self._frames(pictures)

    def _frames(self, pictures: Iterator[av.VideoFrame]) -> Iterator[Frame]:
        """The window's frames out of its pictures and those before it."""
        info = self.info
        reformatter = VideoReformatter()
        for picture in pictures:
            pts = self._last_pts = self._pts(picture)
            if self._start_pts is not None and pts < self._start_pts:
                continue
            if self._end_pts is not None and pts >= self._end_pts:
                self._window_done = True
                return
            self._check_size(picture, pts)
            picture = self._handled(picture, reformatter)
            self.frames_in += 1
            yield Frame(
                index=self.frames_in - 1,
                time=Timestamp(pts, info.time_base),
                picture=picture,
                view=info.view,
                colour=info.colour,
                chroma_site=CHROMA_SITES.get(info.chroma_location, CHROMA_SITES["left"]),
            )

    def _by_software(self, start_pts: int | None) -> Generator[av.VideoFrame, None, None]:
        """All pictures of the file, or those from where decoding must begin for the one at `start_pts`."""
        container = self._open()
        try:
            if start_pts is not None and not self._seek(container, start_pts):
                container.close()
                container = self._open()
            yield from decoded_pictures(container, video_stream(container), self._damage)
        finally:
            container.close()

    def _by_hardware(self) -> Generator[av.VideoFrame, None, None]:
        """The same pictures by a hardware decoder. Raises Unusable at the first that may differ.

        The first of them are compared with the software decoder's, bit by bit.
        """
        path, pix_fmt = Path(self.info.path), self.info.pix_fmt
        container, device = hardware.open_decoder(path, self.info.codec)
        reformatter = VideoReformatter()
        reference = FileSource(self.info, threads=self._threads)._by_software(self._start_pts)
        last: int | None = None
        left = _COMPARED
        try:
            if container.format.name == "avi":
                raise hardware.Unusable("AVI stores no times to go on by")
            if self._start_pts is not None and not self._seek(container, self._start_pts):
                container.close()
                container, device = hardware.open_decoder(path, self.info.codec)
            for picture in decoded_pictures(container, video_stream(container), _NoDamage()):
                if picture.is_corrupt or picture.pts is None or (last is not None and picture.pts <= last):
                    raise hardware.Unusable("a damaged picture, or one out of order")
                picture = hardware.to_software_format(picture, pix_fmt, reformatter)
                if left:
                    left -= 1
                    other = next(reference, None)
                    if other is None or not hardware.identical(picture, other):
                        raise hardware.Unusable(f"{device} shows other pictures than software")
                else:
                    reference.close()
                last = picture.pts
                self.decoder = f"{self.info.codec} ({device})"
                yield picture
            if left and next(reference, None) is not None:
                raise hardware.Unusable(f"{device} shows fewer pictures than software")
        finally:
            reference.close()
            container.close()

    def _by_either(self) -> Generator[av.VideoFrame, None, None]:
        """Pictures by hardware as far as that goes, and by software from there on."""
        last: int | None = None
        try:
            for picture in self._by_hardware():
                last = picture.pts
                yield picture
            return
        except (hardware.Unusable, av.FFmpegError) as error:
            reason = hardware.reason(error)
        path = self.info.path
        if last is None:
            self.notes.append(f"{path}: decoded by software, no hardware would do ({reason})")
            yield from self._by_software(self._start_pts)
            return
        at = float((last - self.info.start_pts) * self.info.time_base)
        self.notes.append(f"{path}: decoded by software from {at:.2f} s on ({reason})")
        self.decoder += ", then software"
        yield from dropwhile(
            lambda picture: picture.pts is not None and picture.pts <= last, self._by_software(last)
        )

    def _open(self) -> InputContainer:
        container = open_video(Path(self.info.path))
        stream = video_stream(container)
        stream.thread_type = self._thread_type
        self._only_dts = container.format.name == "avi"
        if self._threads:
            stream.codec_context.thread_count = self._threads
        return container

    def _seek(self, container: InputContainer, start_pts: int) -> bool:
        """Go to where decoding has to begin for the frame at `start_pts`; False: read from the beginning.

        A container without an index (MPEG-TS) can land behind the keyframe that is needed. Then the seek
        is repeated to earlier and earlier times.
        """
        stream = video_stream(container)
        for run_up_s in (0, 2, 8, 32):
            target = start_pts - round(run_up_s / self.info.time_base)
            if target < self.info.start_pts:
                return False
            try:
                container.seek(target, stream=stream, backward=True)
                first = next(decoded_pictures(container, stream, Damage()), None)
                if first is not None and first.pts is not None and first.pts <= start_pts:
                    container.seek(target, stream=stream, backward=True)
                    return True
            except av.FFmpegError:
                return False
        return False

    def _pts(self, picture: av.VideoFrame) -> int:
        # AVI stores no presentation times; the decoder hands pictures out in their order, dts rising.
        time = picture.dts if self._only_dts else picture.pts
        if time is not None:
            return time
        step = round(1 / (self.info.rate * self.info.time_base)) if self.info.rate else 1
        return self.info.start_pts if self._last_pts is None else self._last_pts + step

    def _check_size(self, picture: av.VideoFrame, pts: int) -> None:
        view = self.info.view
        if (picture.width, picture.height) != (view.width, view.height):
            at = float((pts - self.info.start_pts) * self.info.time_base)
            raise SourceError(
                f"{self.info.path}: the picture changes from {view.width}x{view.height} to {picture.width}x"
                f"{picture.height} at {at:.2f} s; restore the parts with --start and --duration"
            )

    def _handled(self, picture: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
        """The picture in a format that is handled in place; `notes` says what that cost."""
        result = pixel_formats.in_handled_format(picture, reformatter, self._threads, self._in_colour)
        old, new = picture.format.name, result.format.name
        if self._in_colour and pixel_formats.in_colour(old) != old:
            self._note_once(f"{self.info.path}: is grey; the result is in colour ({new})")
        elif result is not picture:
            cost = "one copy a frame" if new == old else f"a conversion to {new} a frame"
            self._note_once(f"{self.info.path}: pixel format {old} costs {cost}")
        return result

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _with_colour(info: StreamInfo) -> StreamInfo:
    """A grey video as its frames will be in a format that can hold colour; any other as it is."""
    pix_fmt = pixel_formats.in_colour(info.pix_fmt)
    if pix_fmt == info.pix_fmt:
        return info
    matrix = info.colour.matrix or 2  # 0 stands for RGB
    return replace(info, pix_fmt=pix_fmt, colour=replace(info.colour, matrix=matrix))
