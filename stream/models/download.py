"""Download of one file from a web server: resumed, checked, and then renamed to its final name.

The bytes received so far are kept in ``NAME.part``. Only the rest is requested (RFC 9110, section 14).
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from stream import __version__
from stream.errors import ConfigError, ModelError
from stream.models.info import sha256_of
from stream.models.ledger import cannot_write, rename_refused

ReceivedCallback = Callable[[int, int | None], None]
"""Called with the number of bytes received so far, and of the whole file (None: not known)."""

_CHUNK = 1 << 18
_RESET_AFTER = 1 << 20
"""Number of new bytes by which an attempt resets the count of failed attempts."""
_RETRIABLE_STATUSES = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a download is tried."""

    timeout_s: float = 30.0
    """Longest time without a byte from the server."""
    attempts: int = 4
    """Attempts in a row that bring fewer than 1 MiB."""
    pause_s: float = 1.0
    """Pause before the second attempt. It doubles with every further one."""


class _TransientError(Exception):
    """The transfer failed, but another attempt may succeed."""


def fetch_file(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    approve: Callable[[Path, str], None] | None = None,
    progress: ReceivedCallback | None = None,
    retry: RetryPolicy | None = None,
) -> str:
    """Download `url` to `target` and return its digest. `target` changes only if everything succeeds.

    size, sha256: what the file must have, if that is known. `approve` is called with the complete file and
    its digest before the file gets its name; it raises a ModelError to refuse the file. A refused file, and
    a file that is replaced, is renamed to ``NAME.refused-DIGEST``. Raises ModelError or ConfigError. Only
    one process at a time may download to `target`.
    """
    check_url(url)
    part = target.with_name(target.name + ".part")
    download = _Download(url, part, size, sha256 is not None, progress, retry or RetryPolicy())
    try:
        download.run()
        download.validator.unlink(missing_ok=True)
        digest = sha256_of(part)
        if sha256 is not None and digest != sha256:
            aside = rename_refused(part, target.name, digest)
            raise ModelError(
                f"{target.name}: refused: its SHA-256 is {digest[:12]}..., expected {sha256[:12]}...; "
                f"kept aside as {aside}; fetch it again or from elsewhere"
            )
        if approve is not None:
            try:
                approve(part, digest)
            except ModelError as error:
                aside = rename_refused(part, target.name, digest)
                reason = str(error).removeprefix(f"{part}: ")
                raise ModelError(
                    f"{target.name}: refused: {reason}; kept aside as {aside}; fetch it from elsewhere"
                ) from None
        if target.exists():
            rename_refused(target, target.name, sha256_of(target))
        part.replace(target)
    except OSError as error:
        raise cannot_write(target.parent, error) from None
    return digest


def check_url(url: str) -> None:
    """Raise ConfigError unless `url` is an http or https address without a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or re.search(r"[\s\x00-\x1f]", url):
        shown = re.sub(r"//[^/]*@", "//...@", url)
        raise ConfigError(f"{shown}: not a usable address; write http(s)://HOST/PATH, without a password")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(
        self,
        request: urllib.request.Request,
        file: IO[bytes],
        code: int,
        message: str,
        headers: http.client.HTTPMessage,
        new_url: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(request.full_url).scheme, urlsplit(new_url).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            host = urlsplit(request.full_url).hostname
            raise ModelError(f"{host}: redirects from {old} to {new}, which is not followed; use a mirror")
        return super().redirect_request(request, file, code, message, headers, new_url)


class _Download:
    """Requests a file until `part` is complete.

    known_digest: whether the file's digest is known, so that a wrong part is noticed. `validator` is a file
    with the server's ETag or time for the part: by it the server recognises the file's version.
    """

    def __init__(
        self,
        url: str,
        part: Path,
        size: int | None,
        known_digest: bool,
        progress: ReceivedCallback | None,
        retry: RetryPolicy,
    ) -> None:
        self.part, self.validator = part, part.with_name(part.name + ".tag")
        self._url, self._size, self._known_digest = url, size, known_digest
        self._progress, self._retry = progress, retry
        self._name, self._host = part.name.removesuffix(".part"), urlsplit(url).hostname
        self._opener = urllib.request.build_opener(_Redirects)

    def run(self) -> None:
        """Try until the part is complete. Raises ModelError."""
        failures = 0
        while True:
            before = self._received()
            try:
                return self._attempt()
            except _TransientError as error:
                failures = 1 if self._received() - before >= _RESET_AFTER else failures + 1
                if failures >= self._retry.attempts:
                    kept = self._received()
                    after = f"; the {kept} bytes that came are kept" if kept else ""
                    raise ModelError(
                        f"{self._name}: {self._host} {error}{after}; try again later, or a mirror"
                    ) from None
            time.sleep(self._retry.pause_s * 2 ** (failures - 1))

    def _received(self) -> int:
        """Bytes of the part."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        """Make one request. Raises _TransientError if the file is not complete after it."""
        offset = self._resumable()
        if self._size is not None and offset == self._size:
            return
        request = urllib.request.Request(self._url, headers={"User-Agent": f"gpen-stream/{__version__}"})
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            if not self._known_digest:
                request.add_header("If-Range", self.validator.read_text(encoding="ascii"))
        try:
            with self._opener.open(request, timeout=self._retry.timeout_s) as response:
                offset, total = self._check_response(response, offset)
                self._save(response, offset, self._size if self._size is not None else total)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._status_error(error.code, error.reason, offset) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise self._network_error(error) from None
        except ValueError:
            raise ModelError(
                f"{self._name}: {self._host} redirects to no usable address; use a mirror"
            ) from None

    def _resumable(self) -> int:
        """Bytes of the part to keep; 0 if the rest could come from another version unnoticed."""
        received = self._received()
        too_long = self._size is not None and received > self._size
        return 0 if too_long or not (self._known_digest or self.validator.exists()) else received

    def _check_response(self, response: http.client.HTTPResponse, offset: int) -> tuple[int, int | None]:
        """Position of the body in the file, and the length that the server states for the whole file."""
        if response.status == 206:
            span = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
            )
            if span is None or int(span[1]) != offset:
                self._discard()
                raise _TransientError("sends another part of the file than was asked for")
            total = None if span[2] == "*" else int(span[2])
        else:  # the whole file, whether requested or not
            offset, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        if self._size is not None and total is not None and total != self._size:
            raise ModelError(
                f"{self._name}: refused: {self._host} offers {total} bytes, expected {self._size}; "
                "it is another file; fetch it from elsewhere"
            )
        return offset, total

    def _save(self, response: http.client.HTTPResponse, offset: int, goal: int | None) -> None:
        """Write the body to the part from `offset` on. goal: length of the whole file, if known."""
        if goal is not None and (free := shutil.disk_usage(self.part.parent).free) < goal - offset:
            raise ModelError(
                f"{self._name}: needs {(goal - offset) / 1e6:.0f} MB, {free / 1e6:.0f} MB are free in "
                f"{self.part.parent}; make room or set GPEN_STREAM_MODELS"
            )
        try:
            if not offset:
                self._save_validator(response)
            with self.part.open("ab" if offset else "wb") as file:
                while goal is None or offset < goal:
                    data = self._read(response, _CHUNK if goal is None else min(_CHUNK, goal - offset))
                    if not data:
                        break
                    file.write(data)
                    offset += len(data)
                    if self._progress is not None:
                        self._progress(offset, goal)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.part.parent, error) from None
        if goal is not None and offset < goal:
            raise _TransientError(f"broke off after {offset} of {goal} bytes")

    def _read(self, response: http.client.HTTPResponse, count: int) -> bytes:
        """The next bytes of the body, at most `count`; empty at its end."""
        try:
            return response.read1(count)
        except (OSError, http.client.HTTPException) as error:
            raise self._network_error(error) from None

    def _save_validator(self, response: http.client.HTTPResponse) -> None:
        """Keep the response's strong validator (RFC 9110, 8.8), if it has one."""
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        self.validator.unlink(missing_ok=True)
        if validator and validator.isascii() and not self._known_digest:
            self.validator.write_text(validator, encoding="ascii")

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)

    def _status_error(self, status: int, reason: str, offset: int) -> Exception:
        reason = " ".join(reason.split())[:120]
        if status == 416 and offset:
            self._discard()
            return _TransientError("has no such part of the file")
        if status in _RETRIABLE_STATUSES:
            return _TransientError(f"answers {status} ({reason})")
        return ModelError(
            f"{self._name}: {self._host} answers {status} ({reason}); fetch it by hand and import it, or set "
            "GPEN_STREAM_MODELS_URL to a mirror"
        )

    def _network_error(self, error: Exception) -> Exception:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(f"{self._name}: {self._host} shows no valid certificate; use a mirror")
        if isinstance(cause, TimeoutError):
            return _TransientError(f"sent nothing for {self._retry.timeout_s:g} s")
        if isinstance(cause, http.client.IncompleteRead):
            return _TransientError("broke off")
        text = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
        return _TransientError(f"cannot be reached or broke off ({text[:120]})")
