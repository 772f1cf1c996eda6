"""The claim on an output: real files, threads and processes that want the same one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stream.errors import EncodeError
from stream.media.claim import OutputClaim

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from stream.media.claim import OutputClaim
with OutputClaim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen:
    """A process that holds the claim until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_the_claim_says_who_holds_it_and_leaves_nothing(tmp_path):
    path = tmp_path / "out.mp4"
    with OutputClaim(path) as claim:
        assert claim.path == tmp_path / ".out.mp4.lock"
        pid, since = re.fullmatch(r"process (\d+) on \S+ since (\S+)\n", claim.path.read_text()).groups()
        assert int(pid) == os.getpid()
        assert abs((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()) < 100
        with pytest.raises(EncodeError) as refused:
            OutputClaim(path).acquire()
    assert re.fullmatch(
        rf"{path}: is being written by another run \(process {os.getpid()} on \S+ since "
        r"[\d-]* ?\d\d:\d\d UTC\); wait for it, or name another output",
        str(refused.value),
    )
    assert not list(tmp_path.iterdir())
    claim.release()


def test_every_spelling_of_a_path_is_the_same_claim(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    with OutputClaim(folder / "out.mp4"):
        for other in (Path("out.mp4"), tmp_path / "link" / "out.mp4", Path("../link/../folder/out.mp4")):
            with pytest.raises(EncodeError, match=re.escape(f"{other}: is being written by another run")):
                OutputClaim(other).acquire()
        with OutputClaim(Path("other.mp4")), OutputClaim(Path("out.mkv")):
            pass
    assert not list(folder.iterdir())


def test_another_process_is_named_and_its_end_frees_the_output_however_it_ends(tmp_path):
    path = tmp_path / "out.mp4"
    process = hold(path)
    with pytest.raises(EncodeError, match=rf"another run \(process {process.pid} on "):
        OutputClaim(path).acquire()
    process.kill()
    process.communicate()
    assert (tmp_path / ".out.mp4.lock").exists(), "a killed process removes nothing"
    with OutputClaim(path) as claim:
        assert claim.path.read_text().startswith(f"process {os.getpid()} on ")
    process = hold(path)
    process.communicate("")
    assert process.returncode == 0 and not list(tmp_path.iterdir())


def test_of_many_threads_one_at_a_time_holds_it(tmp_path):
    path, inside, most = tmp_path / "out.mp4", [], []

    def work(_: int) -> int:
        held = 0
        for _ in range(200):
            try:
                with OutputClaim(path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    held += 1
            except EncodeError as error:
                assert "is being written by another run" in str(error)
        return held

    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(work, range(6)))
    assert sum(counts) == len(most) > 0 and max(most) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["symbolic link", "hard link", "other file", "folder", "pipe"])
def test_what_is_no_lock_file_stays_as_it_is(tmp_path, there):
    lock, victim = tmp_path / ".out.mp4.lock", tmp_path / "victim"
    victim.write_text("precious")
    if there == "symbolic link":
        lock.symlink_to(victim)
    elif there == "hard link":
        lock.hardlink_to(victim)
    elif there == "other file":
        lock.write_text("of another program")
    elif there == "folder":
        lock.mkdir()
    else:
        os.mkfifo(lock)

    def facts() -> tuple[int, int, int]:
        found = os.stat(lock, follow_symlinks=False)
        return found.st_ino, found.st_size, found.st_mtime_ns

    before = facts()
    with pytest.raises(EncodeError, match=r"out\.mp4: \.out\.mp4\.lock beside it ") as refused:
        OutputClaim(tmp_path / "out.mp4").acquire()
    assert "\n" not in str(refused.value)
    assert facts() == before
    assert victim.read_text() == "precious"


def test_a_claim_is_not_taken_twice_and_can_be_taken_again(tmp_path):
    claim = OutputClaim(tmp_path / "out.mp4")
    with claim, pytest.raises(RuntimeError, match="claimed already"):
        claim.acquire()
    with claim:
        assert claim.path.exists()
    assert not claim.path.exists()


def test_where_the_folder_is_gone_the_claim_says_so(tmp_path):
    with pytest.raises(EncodeError, match=r"cannot be used \(No such file or directory\); check the folder"):
        OutputClaim(tmp_path / "none" / "out.mp4").acquire()
