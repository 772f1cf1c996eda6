"""What becomes of an output when runs meet, are killed or lose their terminal, by the real command."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
from conftest import SAMPLES
from PIL import Image
from waiting import LIMIT_S, until

from stream.media.claim import OutputClaim

COMMAND = [sys.executable, "-m", "stream.cli", "restore"]
FAST = ("--set", "encode.preset=ultrafast", "--set", "encode.crf=20")


def lines(text):
    return text.strip().splitlines()


def facts(path):
    """Width, and number of pictures up to the last whole one."""
    with av.open(str(path)) as container:
        count = 0
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:
            pass
        return container.streams.video[0].width, count


@contextmanager
def started(*arguments, **options):
    """The command in a process of its own, which is gone afterwards in any case."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | options
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], start_new_session=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_claimed(folder):
    lock = folder / ".out.mp4.lock"
    return lock.exists() and lock.read_text().endswith("\n")


def test_of_two_runs_on_one_output_the_second_ends_and_the_first_one_keeps_its_video(
    portrait, run_cli, tmp_path
):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    with started(portrait, "out.mp4", "--duration", "1", *FAST, cwd=folder) as first:
        until(lambda: is_claimed(folder))
        first.send_signal(signal.SIGSTOP)  # so that it has not ended when the second one begins
        for name in (folder / "out.mp4", tmp_path / "link" / "out.mp4"):
            second = run_cli("restore", SAMPLES / "group.mp4", name, "--overwrite")
            assert second.returncode == 1
            assert re.fullmatch(
                rf"error: {name}: is being written by another run \(process {first.pid} on \S+ since "
                r"[\d-]* ?\d\d:\d\d UTC\); wait for it, or name another output\n",
                second.stderr,
            )
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=LIMIT_S)
        assert first.returncode == 0, errors
    assert facts(folder / "out.mp4") == (640, 25)
    assert [path.name for path in folder.iterdir()] == ["out.mp4"]


def test_files_of_a_folder_that_others_write_fail_alone(face, portrait, run_cli, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(face, source / name)
    shutil.copy(portrait, source / "c.mp4")
    with OutputClaim(target / "a.jpg"), OutputClaim(target / "c.mp4"):
        done = run_cli("restore", source, target)
        single = run_cli("restore", face, target / "a.jpg")
    assert done.returncode == 1 and single.returncode == 1
    failed = [line for line in lines(done.stderr) if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in failed] == [str(target / "a.jpg"), str(target / "c.mp4")]
    assert all(f"another run (process {os.getpid()} on " in line for line in [*failed, single.stderr])
    assert [path.name for path in target.iterdir() if path.name != ".gpen-folder.json"] == ["b.jpg"]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_killed_run_leaves_what_plays_and_the_next_one_clears_it_away(portrait, run_cli, tmp_path, ending):
    partial = tmp_path / f".out.partial.{ending}"
    with started(portrait, f"out.{ending}", cwd=tmp_path) as process:
        until(partial.exists)
        process.kill()
        assert process.wait(LIMIT_S) == -signal.SIGKILL
    assert facts(partial)[0] == 640 and facts(partial)[1] >= 12
    done = run_cli("restore", portrait, tmp_path / f"out.{ending}", "--duration", "0.2", *FAST)
    assert done.returncode == 0, done.stderr
    assert facts(tmp_path / f"out.{ending}") == (640, 5)
    assert [path.name for path in tmp_path.iterdir()] == [f"out.{ending}"]


def test_links_at_the_hidden_names_lead_nowhere(face, portrait, run_cli, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".out.partial.mp4", ".out.begun.mp4", ".out.partial.png", ".no.mp4.lock", ".no.png.lock"):
        (tmp_path / name).symlink_to(victim)
    assert run_cli("restore", portrait, tmp_path / "out.mp4", "--duration", "0.2", *FAST).returncode == 0
    assert run_cli("restore", face, tmp_path / "out.png").returncode == 0
    for source, name in ((portrait, "no.mp4"), (face, "no.png")):
        refused = run_cli("restore", source, tmp_path / name)
        assert refused.returncode == 1
        expected = f"error: {tmp_path / name}: .{name}.lock beside it is a symbolic link; remove it"
        assert lines(refused.stderr) == [expected]
    assert victim.read_text() == "precious"
    assert facts(tmp_path / "out.mp4") == (640, 5) and Image.open(tmp_path / "out.png").size == (288, 288)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".no.mp4.lock", ".no.png.lock", "out.mp4", "out.png", "victim",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_other_signals_end_a_run_properly_too(number, portrait, tmp_path):
    with started(portrait, "out.mp4", *FAST, cwd=tmp_path) as process:
        until((tmp_path / ".out.partial.mp4").exists)
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 128 + number, errors
    assert lines(errors)[-1] == "stopped; what was restored so far: out.partial.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert 12 <= facts(tmp_path / "out.partial.mp4")[1] < 215


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_a_terminal_that_closes_ends_the_run_and_the_part_is_kept(portrait, tmp_path, options):
    main, child = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, portrait, "out.mp4", *FAST, *options], cwd=tmp_path, preexec_fn=lambda: os.login_tty(child)
    )
    os.close(child)
    try:
        until((tmp_path / ".out.partial.mp4").exists)
        os.close(main)
        assert process.wait(LIMIT_S) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert 12 <= facts(tmp_path / "out.partial.mp4")[1] < 215


def test_nohup_keeps_a_run_going(portrait, tmp_path):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    given = (portrait, "out.mp4", "--duration", "1", *FAST)
    with started(*given, cwd=tmp_path, preexec_fn=ignore) as process:
        until(lambda: is_claimed(tmp_path))
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
    assert facts(tmp_path / "out.mp4") == (640, 25)


def test_the_claim_ends_with_a_run_that_fails(run_cli, tmp_path):
    broken = Path(tmp_path / "in.mp4")
    broken.write_bytes(b"no video" * 1000)
    done = run_cli("restore", broken, tmp_path / "out.mp4")
    assert done.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
