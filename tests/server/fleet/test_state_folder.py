"""The coordinator's state on disk: written whole, private, and opened by one coordinator after the other."""

from __future__ import annotations

import stat

import pytest

from stream.errors import ClusterError
from stream.server.camera_config import CameraSettings
from stream.server.fleet.lease_book import LeaseBook
from stream.server.fleet.state_folder import StateFolder

SECRET = "rtsp://admin:hunter2@192.0.2.1/door"


def test_what_was_saved_is_loaded_again_and_only_the_owner_can_read_it(tmp_path):
    folder = StateFolder(tmp_path / "fleet")
    assert folder.load() is None
    book = LeaseBook(0.0)
    book.put(
        "door", CameraSettings(source=SECRET, include=((0.1, 0.2, 0.3, 0.4),), set={"record.keep_days": 2})
    )
    folder.save(book.to_saved())
    assert folder.load() == book.to_saved()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "fleet").iterdir()}
    assert modes == {0o600}


def test_a_coordinator_sees_that_another_has_taken_its_place(tmp_path):
    first = StateFolder(tmp_path)
    assert not first.is_superseded()
    second = StateFolder(tmp_path)
    assert first.is_superseded() and not second.is_superseded() and second.term == first.term + 1


def test_a_folder_that_cannot_be_used_is_named_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match=r"file/fleet: the fleet's state cannot be kept there \(Not a dir"):
        StateFolder(tmp_path / "file" / "fleet")
    folder = StateFolder(tmp_path)
    for text in ("{", '{"next_number": "x"}', '{"other": 1}'):
        (tmp_path / "fleet.json").write_text(text)
        with pytest.raises(ClusterError, match=r"fleet\.json: is damaged; stop all nodes, delete it"):
            folder.load()
