"""The coordinator's state on storage that all machines see, from which it can be started again."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from stream.config import tuples
from stream.errors import ClusterError
from stream.server.fleet.lease_book import SavedBook

_STATE, _TERM = "fleet.json", "term"


class StateFolder:
    """The state in a folder. Each coordinator that opens the folder gets a higher term than those before.

    Where the network is cut in two, the cluster may start a second coordinator while the first runs on.
    The first sees by the term that it has been replaced.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder. Raises ClusterError if it cannot be written."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.term = self._read_term() + 1
            self._write(_TERM, str(self.term))
        except OSError as error:
            raise self._wrong(error) from None

    def load(self) -> SavedBook | None:
        """The saved state; None if there is none. Raises ClusterError if it cannot be read."""
        path = self._folder / _STATE
        try:
            return SavedBook.model_validate(tuples(json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._wrong(error) from None
        except (ValueError, ValidationError):
            raise ClusterError(
                f"{path}: is damaged; stop all nodes, delete it and start again: cameras are in cameras.yaml"
            ) from None

    def save(self, book: SavedBook) -> None:
        """Write the state, as a whole or not at all. Raises ClusterError."""
        data = book.model_dump(mode="json", exclude_defaults=True)
        try:
            self._write(_STATE, json.dumps(data, ensure_ascii=False))
        except OSError as error:
            raise self._wrong(error) from None

    def is_superseded(self) -> bool:
        """Whether another coordinator has opened the folder since; False if it cannot be read now."""
        try:
            return self._read_term() > self.term
        except OSError:
            return False

    def _read_term(self) -> int:
        try:
            text = (self._folder / _TERM).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdecimal() else 0

    def _write(self, name: str, text: str) -> None:
        """Only the owner can read it: addresses of cameras may hold passwords."""
        handle, part = tempfile.mkstemp(prefix=f".{name}-", dir=self._folder)
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, self._folder / name)
        except OSError:
            Path(part).unlink(missing_ok=True)
            raise

    def _wrong(self, error: OSError) -> ClusterError:
        return ClusterError(
            f"{self._folder}: the fleet's state cannot be kept there ({error.strerror}); name another --state"
        )
