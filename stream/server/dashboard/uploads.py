"""A file that comes as multipart/form-data, written where it is to lie as it comes."""

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

_SPARE = 2**30
"""Bytes that stay free on the disk."""
_HEAD_BYTES = 8192
"""Of the lines before a part."""


async def receive(request: Request, folder: Path) -> Path:
    """Write the form's first file into a folder, under its own name or the next free one.

    Raises ConfigError where there is none, or the disk has no room for it. Nothing is left of an
    upload that breaks off.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ConfigError("an upload is multipart/form-data with one file")
    length = int(request.headers.get("content-length") or 0)
    part = folder / f".upload-{os.urandom(8).hex()}"
    form = _Form(part)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            if max(length, len(chunk)) + _SPARE > shutil.disk_usage(folder).free + form.written:
                raise ConfigError("the disk has no room for this file")
            await asyncio.to_thread(parser.write, chunk)  # a disk may be slow
        parser.finalize()
        form.close()
        if not form.name or not form.complete:
            raise ConfigError("the upload holds no whole file")
        name = safe_name(form.name)
        if not is_media(part, name):
            raise ConfigError(f"{name}: is no video or picture that is known here")
        return _keep(part, folder, name)
    except FormParserError:
        raise ConfigError("the upload is no well-formed multipart/form-data") from None
    except OSError as error:
        raise ConfigError(f"the file cannot be kept ({error.strerror})") from None
    finally:
        form.close()
        part.unlink(missing_ok=True)


def _keep(part: Path, folder: Path, name: str) -> Path:
    """Give it its name; one that is taken already gets a number."""
    stem, ending = os.path.splitext(name)
    for number in range(1, 1000):
        path = folder / (name if number == 1 else f"{stem}-{number}{ending}")
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        return path
    raise ConfigError(f"{name}: there are a thousand of that name; rename it")


class _Form:
    """What the parser calls: the first part that is a file goes to disk, the rest is passed over."""

    def __init__(self, part: Path) -> None:
        self.name = ""
        self.complete = False
        self.written = 0
        self._part, self._here = part, False
        self._file: BufferedWriter | None = None
        self._field, self._value, self._disposition = b"", b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._disposition, self._field, self._value, self._here = b"", b"", b"", False

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check(self._field)

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check(self._value)

    def _check(self, text: bytes) -> None:
        if len(text) > _HEAD_BYTES:
            raise ConfigError("the upload's head is too long")

    def _header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name and not self.name:
            self.name, self._here = name.decode("utf-8", "replace"), True
            safe_name(self.name)
            self._file = self._part.open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._here and self._file is not None:
            self._file.write(data[start:end])
            self.written += end - start

    def _end(self) -> None:
        self.complete |= self._here
        self._here = False
