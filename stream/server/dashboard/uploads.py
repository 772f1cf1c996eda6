"""Uploads: the file of a multipart/form-data request is written to the folder while it is received."""

from __future__ import annotations

import asyncio
import os
import shutil
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from stream.errors import ConfigError
from stream.server.dashboard.file_types import is_media, safe_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_SPARE_BYTES = 2**30
"""Bytes that must stay free on the disk."""
_MAX_HEADER_BYTES = 8192
"""Longest name or value of a header before a part of the form."""


async def receive(request: Request, folder: Path) -> Path:
    """Write the first file of a form into a folder; a number is added to a name that is taken.

    Returns the file's path. Raises ConfigError if the form has no file, if it is no video or picture, or
    if the disk has no room for it. An upload that breaks off leaves nothing behind.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ConfigError("an upload is multipart/form-data with one file")
    length = int(request.headers.get("content-length") or 0)
    part = folder / f".upload-{os.urandom(8).hex()}"
    form = _FormWriter(part)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            if max(length, len(chunk)) + _SPARE_BYTES > shutil.disk_usage(folder).free + form.written:
                raise ConfigError("the disk has no room for this file")
            await asyncio.to_thread(parser.write, chunk)  # a disk may be slow
        parser.finalize()
        form.close()
        if not form.name or not form.complete:
            raise ConfigError("the upload holds no whole file")
        name = safe_name(form.name)
        if not is_media(part, name):
            raise ConfigError(f"{name}: is no video or picture that is known here")
        return _link_under(part, folder, name)
    except FormParserError:
        raise ConfigError("the upload is no well-formed multipart/form-data") from None
    except OSError as error:
        raise ConfigError(f"the file cannot be kept ({error.strerror})") from None
    finally:
        form.close()
        part.unlink(missing_ok=True)


def _link_under(part: Path, folder: Path, name: str) -> Path:
    """Give a file a name in a folder; a number is added to a name that is taken."""
    stem, suffix = os.path.splitext(name)
    for number in range(1, 1000):
        path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        return path
    raise ConfigError(f"{name}: there are a thousand of that name; rename it")


class _FormWriter:
    """Receives the parser's callbacks: writes the first file of the form to disk, and ignores other parts."""

    def __init__(self, part: Path) -> None:
        self.name = ""
        self.complete = False
        self.written = 0
        self._part, self._in_file = part, False
        self._file: BufferedWriter | None = None
        self._field, self._value, self._disposition = b"", b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_part(self) -> None:
        self._disposition, self._field, self._value, self._in_file = b"", b"", b"", False

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check(self._field)

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check(self._value)

    def _check(self, text: bytes) -> None:
        if len(text) > _MAX_HEADER_BYTES:
            raise ConfigError("the upload's head is too long")

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name and not self.name:
            self.name, self._in_file = name.decode("utf-8", "replace"), True
            safe_name(self.name)
            self._file = self._part.open("xb")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file and self._file is not None:
            self._file.write(data[start:end])
            self.written += end - start

    def _end_part(self) -> None:
        self.complete |= self._in_file
        self._in_file = False
