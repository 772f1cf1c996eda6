"""Types: the package is strictly typed, and a user's own script sees its real types."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock

USE = """
    # mypy: disallow-any-expr
    import threading
    from pathlib import Path

    import stream
    from stream import Options, Outcome, Progress, RunReport, Status, errors, load_config, restore_file

    stop = threading.Event()

    def show(progress: Progress) -> None:
        if progress.elapsed_s > 60 and progress.frames_done < progress.frames_total:
            stop.set()

    def restore(source: Path) -> Outcome:
        config = load_config("fast", overrides=["restore.strength=0.8"])
        print(config.restore.strength + 1, config.detect.interval)
        options = Options(start_s=1.0, duration_s=0.5, overwrite=True)
        return restore_file(source, Path("out.mp4"), config, options=options, progress=show, stop=stop)

    try:
        outcome = restore(Path("in.mp4"))
    except errors.StreamError as error:
        raise SystemExit(error.exit_code) from error
    report: RunReport = outcome.report
    if outcome.status is Status.COMPLETE:
        print(outcome.path.name, report["frames_out"] + 1, report["notes"][:1], stream.__version__)
    for work in stream.restored_frames("in.mp4", options=Options(duration_s=1.0)):
        print(work.frame.time.seconds, work.frame.picture.width, [face.score for face in work.faces])
    reveal_type(stream.restore_images([(Path("in.png"), Path("out.png"))]))
"""
MISUSE = """
    import stream

    stream.restore_file("in.mp4")
    stream.restore_everything("in.mp4")
    stream.Options(start=1.0)
    stream.load_config().restore.strenght
    stream.restore_file("in.mp4", "out.mp4").report["frames"]
"""


def mypy_cache(base: Path) -> Path:
    """A folder that later runs find again: beside the numbered one in which this run has its files."""
    numbered = next((path for path in (base, *base.parents) if re.fullmatch(r"pytest-\d+", path.name)), None)
    return (numbered.parent if numbered is not None else base) / "mypy-cache"


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, list[str]]:
    """The messages of mypy with the project's configuration, as lines by file; the package's are under ""."""
    cache = mypy_cache(tmp_path_factory.getbasetemp())
    folder = cache.with_name("mypy-user")  # a file's results are kept with its path: it stays the same
    scripts = {folder / "use.py": USE, folder / "misuse.py": MISUSE}
    options = ["--cache-dir", str(cache), "--no-error-summary", "--no-pretty"]
    command = [sys.executable, "-m", "mypy", *options, "stream", *map(str, scripts)]
    with FileLock(f"{cache}.lock"):
        folder.mkdir(exist_ok=True)
        for path, script in scripts.items():
            path.write_text(textwrap.dedent(script))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    lines: dict[str, list[str]] = {"use": [], "misuse": [], "": []}
    for line in done.stdout.splitlines():
        name = re.match(rf"{re.escape(str(folder))}/(\w+)\.py", line)
        lines[name[1] if name else ""].append(line)
    return lines


pytestmark = pytest.mark.timeout(800)  # below faulthandler_timeout; the first check of a machine is slow


def test_the_package_is_strictly_typed(said):
    assert said[""] == []


def test_a_users_script_under_the_strictest_settings_sees_real_types(said):
    (revealed,) = said["use"]
    assert revealed.endswith('note: Revealed type is "stream.job.interface.Outcome"')


def test_a_checker_finds_wrong_use_of_the_interface(said):
    first_line, errors = 4, [re.search(r":(\d+): error: .*\[([a-z-]+)\]", line) for line in said["misuse"]]
    found = [(int(error[1]) - first_line, error[2]) for error in errors if error]
    kinds = ["call-arg", "attr-defined", "call-arg", "attr-defined", "typeddict-item"]
    assert found == list(enumerate(kinds))
