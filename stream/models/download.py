"""One file from a web server: resumed, checked before use, and renamed into its place.

What has come is kept in ``NAME.part`` and asked for no second time (RFC 9110, section 14).
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
from stream.models.ledger import cannot_write, set_aside

ProgressCallback = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be (None: not known)."""

_CHUNK = 1 << 18
_FRESH_COURAGE = 1 << 20
"""So many new bytes (1 MiB) and the count of failed attempts starts anew."""
_WORTH_A_RETRY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try."""

    timeout_s: float = 30.0
    """Longest silence of the server."""
    attempts: int = 4
    """Attempts in a row that bring next to nothing."""
    pause_s: float = 1.0
    """Before the second attempt; twice as long before each further one."""


class _BrokenError(Exception):
    """The transfer failed in a way that another attempt may mend."""


def fetch_file(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    approve: Callable[[Path, str], None] | None = None,
    progress: ProgressCallback | None = None,
    patience: Patience | None = None,
) -> str:
    """Download `url` to `target` and return its digest; `target` changes only when all is well.

    `size` and `sha256` are what the file must have, where that is known. `approve` is called with
    the finished file and its digest before it is put in place, and raises a ModelError to refuse
    it. A refused file, and one that a good one replaces, is kept aside under a name that says so.
    Raises ModelError or ConfigError in one line. One process at a time may fetch to `target`.
    """
    check_url(url)
    part = target.with_name(target.name + ".part")
    download = _Download(url, part, size, sha256 is not None, progress, patience or Patience())
    try:
        download.run()
        download.tag.unlink(missing_ok=True)
        digest = sha256_of(part)
        if sha256 is not None and digest != sha256:
            aside = set_aside(part, target.name, digest)
            raise ModelError(
                f"{target.name}: refused: its SHA-256 is {digest[:12]}..., expected {sha256[:12]}...; "
                f"kept aside as {aside}; fetch it again or from elsewhere"
            )
        if approve is not None:
            try:
                approve(part, digest)
            except ModelError as error:
                aside = set_aside(part, target.name, digest)
                reason = str(error).removeprefix(f"{part}: ")
                raise ModelError(
                    f"{target.name}: refused: {reason}; kept aside as {aside}; fetch it from elsewhere"
                ) from None
        if target.exists():
            set_aside(target, target.name, sha256_of(target))
        part.replace(target)
    except OSError as error:
        raise cannot_write(target.parent, error) from None
    return digest


def check_url(url: str) -> None:
    """Raise ConfigError unless `url` is one that can be fetched."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or re.search(r"[\s\x00-\x1f]", url):
        shown = re.sub(r"//[^/]*@", "//...@", url)
        raise ConfigError(f"{shown}: not a usable address; write http(s)://HOST/PATH, without a password")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects over the web only, and never from https to http."""

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
    """Fills `part` until it is whole."""

    def __init__(
        self,
        url: str,
        part: Path,
        size: int | None,
        known: bool,
        progress: ProgressCallback | None,
        patience: Patience,
    ) -> None:
        self.part, self.tag = part, part.with_name(part.name + ".tag")
        self._url, self._size, self._known = url, size, known
        self._progress, self._patience = progress, patience
        self._name, self._host = part.name.removesuffix(".part"), urlsplit(url).hostname
        self._opener = urllib.request.build_opener(_Redirects)

    def run(self) -> None:
        failures = 0
        while True:
            before = self._have()
            try:
                return self._receive()
            except _BrokenError as error:
                failures = 1 if self._have() - before >= _FRESH_COURAGE else failures + 1
                if failures >= self._patience.attempts:
                    kept = self._have()
                    after = f"; the {kept} bytes that came are kept" if kept else ""
                    raise ModelError(
                        f"{self._name}: {self._host} {error}{after}; try again later, or a mirror"
                    ) from None
            time.sleep(self._patience.pause_s * 2 ** (failures - 1))

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self) -> None:
        """One request; raises _BrokenError when the file is not whole after it."""
        have = self._resumable()
        if self._size is not None and have == self._size:
            return
        request = urllib.request.Request(self._url, headers={"User-Agent": f"gpen-stream/{__version__}"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if not self._known:
                request.add_header("If-Range", self.tag.read_text(encoding="ascii"))
        try:
            with self._opener.open(request, timeout=self._patience.timeout_s) as response:
                have, total = self._judge(response, have)
                self._store(response, have, self._size if self._size is not None else total)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code, error.reason, have) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise self._network(error) from None
        except ValueError:
            raise ModelError(
                f"{self._name}: {self._host} redirects to no usable address; use a mirror"
            ) from None

    def _resumable(self) -> int:
        """Bytes to build upon: none where the rest might be another file's without our noticing."""
        have = self._have()
        if (self._size is not None and have > self._size) or not (self._known or self.tag.exists()):
            return 0
        return have

    def _judge(self, response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
        """Where the body begins, and how long the whole file is said to be."""
        if response.status == 206:
            span = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
            )
            if span is None or int(span[1]) != have:
                self._forget()
                raise _BrokenError("sends another part of the file than was asked for")
            total = None if span[2] == "*" else int(span[2])
        else:  # the whole file, whether asked for or not
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        if self._size is not None and total is not None and total != self._size:
            raise ModelError(
                f"{self._name}: refused: {self._host} offers {total} bytes, expected {self._size}; "
                "it is another file; fetch it from elsewhere"
            )
        return have, total

    def _store(self, response: http.client.HTTPResponse, have: int, goal: int | None) -> None:
        if goal is not None and (free := shutil.disk_usage(self.part.parent).free) < goal - have:
            raise ModelError(
                f"{self._name}: needs {(goal - have) / 1e6:.0f} MB, {free / 1e6:.0f} MB are free in "
                f"{self.part.parent}; make room or set GPEN_STREAM_MODELS"
            )
        try:
            if not have:
                self._remember(response)
            with self.part.open("ab" if have else "wb") as file:
                while goal is None or have < goal:
                    data = self._read(response, _CHUNK if goal is None else min(_CHUNK, goal - have))
                    if not data:
                        break
                    file.write(data)
                    have += len(data)
                    if self._progress is not None:
                        self._progress(have, goal)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.part.parent, error) from None
        if goal is not None and have < goal:
            raise _BrokenError(f"broke off after {have} of {goal} bytes")

    def _read(self, response: http.client.HTTPResponse, count: int) -> bytes:
        """What has come of the body, at most `count` bytes; none at its end."""
        try:
            return response.read1(count)
        except (OSError, http.client.HTTPException) as error:
            raise self._network(error) from None

    def _remember(self, response: http.client.HTTPResponse) -> None:
        """Keep the server's strong validator, by which it knows whether the file is the same later."""
        etag = response.headers.get("ETag", "")
        tag = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        self.tag.unlink(missing_ok=True)
        if tag and tag.isascii() and not self._known:
            self.tag.write_text(tag, encoding="ascii")

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _refused(self, status: int, reason: str, have: int) -> Exception:
        reason = " ".join(reason.split())[:120]
        if status == 416 and have:
            self._forget()
            return _BrokenError("has no such part of the file")
        if status in _WORTH_A_RETRY:
            return _BrokenError(f"answers {status} ({reason})")
        return ModelError(
            f"{self._name}: {self._host} answers {status} ({reason}); fetch it by hand and import it, or set "
            "GPEN_STREAM_MODELS_URL to a mirror"
        )

    def _network(self, error: Exception) -> Exception:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(f"{self._name}: {self._host} shows no valid certificate; use a mirror")
        if isinstance(cause, TimeoutError):
            return _BrokenError(f"sent nothing for {self._patience.timeout_s:g} s")
        if isinstance(cause, http.client.IncompleteRead):
            return _BrokenError("broke off")
        said = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
        return _BrokenError(f"cannot be reached or broke off ({said[:120]})")
