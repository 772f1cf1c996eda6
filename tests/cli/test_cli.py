"""The command as a user meets it: in a process of its own, with its exit codes and its words."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import av
import numpy as np
import pytest
from clips import first_part, remux
from conftest import SAMPLES, on_terminal
from PIL import Image
from safetensors.numpy import save_file
from waiting import LIMIT_S, until

REPORTED = {
    "frames_in", "frames_out", "faces_restored", "faces_carried", "restorations_forced",
    "faces_left_alone", "first_frame_s",
    "detections_run", "frames_tracked", "tracks", "scene_cuts", "corrupt_packets", "wall_s", "fps",
    "stage_ms", "peak_rss_mb", "engine", "model", "config",
}  # fmt: skip


def lines(text):
    return text.strip().splitlines()


def frames_of(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def small_video(path):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        for value in range(10):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), value * 20, np.uint8))))
        output.mux(stream.encode(None))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, portrait):
    """Inputs that are broken in one way each, and settings and weights likewise. Read only."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(portrait, folder / "good.mp4")
    (folder / "link.mp4").symlink_to(folder / "good.mp4")
    (folder / "empty.mp4").touch()
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    (folder / "text.mp4").write_text("no video\n" * 400)
    (folder / "text.txt").write_text("no video\n" * 400)
    first_part(portrait, folder / "stump.mp4", 0.01)
    remux(portrait, folder / "sound.m4a", only=("audio",))
    remux(portrait, folder / "front.mp4", movflags="faststart")
    first_part(folder / "front.mp4", folder / "cut.mp4", 0.6)
    remux(portrait, folder / "whole.mkv")
    first_part(folder / "whole.mkv", folder / "cut.mkv", 0.6)
    (folder / "broken.yaml").write_text("detect:\n  interval: [1\n")
    (folder / "nested.yaml").write_text("select:\n  include: [[0, 0, 1]]\n")
    (folder / "wrong.yaml").write_text("restore:\n  strenght: 1\n")
    (folder / "garbage.safetensors").write_bytes(b"\xff" * 4096)
    save_file({"a": np.zeros(3, np.float32)}, folder / "other.safetensors")
    Image.new("RGB", (64, 64)).save(folder / "still.png")
    return folder


BAD = {
    # what is wrong: (arguments after `restore`, what the line must hold, exit code)
    "missing": ("none.mp4 o/x.mp4", ["none.mp4", "no such file", "check the path"], 1),
    "empty": ("empty.mp4 o/x.mp4", ["empty.mp4", "is empty", "copy it again"], 1),
    "garbage": ("garbage.mp4 o/x.mp4", ["garbage.mp4", "not a video", "whole"], 1),
    "text named video": ("text.mp4 o/x.mp4", ["text.mp4", "not a video", "whole"], 1),
    "text": ("text.txt o/x.mp4", ["text.txt", "is a text file", "name a video"], 1),
    "sound only": ("sound.m4a o/x.mp4", ["sound.m4a", "no video stream, only audio", "name a video"], 1),
    "stump": ("stump.mp4 o/x.mp4", ["stump.mp4", "not a video", "whole"], 1),
    "missing picture": ("none.png o/x.png", ["none.png", "no such file"], 1),
    "itself": ("good.mp4 good.mp4 --overwrite", ["good.mp4", "is the input itself", "another output"], 1),
    "itself by a link": ("link.mp4 good.mp4 --overwrite", ["good.mp4", "is the input itself"], 1),
    "its own link": ("good.mp4 link.mp4 --overwrite", ["link.mp4", "is the input itself"], 1),
    "no folder": ("good.mp4 none/x.mp4", ["none/x.mp4", "folder none does not exist", "make it"], 1),
    "a folder": ("good.mp4 o", ["o: is a folder", "name a file"], 1),
    "exists": ("good.mp4 still.png", ["still.png: exists", "--overwrite"], 1),
    "no container": ("good.mp4 o/x.xyz --duration 0.1", ["x.xyz", ".xyz", ".mp4"], 1),
    "unknown codec": ("good.mp4 o/x.mp4 --set encode.codec=libfoo", ["encode.codec", "libfoo", "libx264"], 1),
    "codec is none": ("good.mp4 o/x.mp4 --set encode.codec=aac", ["encode.codec", "aac"], 1),
    "unknown key": ("good.mp4 o/x.mp4 --set foo.bar=1", ["foo:", "known there: detect"], 2),
    "wrong type": ("good.mp4 o/x.mp4 --set detect.interval=often", ["detect.interval", "integer"], 2),
    "out of range": ("good.mp4 o/x.mp4 --set restore.strength=2", ["restore.strength", "1, got 2"], 2),
    "no value": ("good.mp4 o/x.mp4 --set detect.interval", ["--set detect.interval", "key.path=value"], 2),
    "batch of none": ("good.mp4 o/x.mp4 --batch-size 0", ["restore.batch_size", "1, got 0"], 2),
    "broken file": ("good.mp4 o/x.mp4 --config broken.yaml", ["broken.yaml", "broken YAML at line"], 2),
    "key in a file": ("good.mp4 o/x.mp4 --config wrong.yaml", ["restore.strenght", "strength"], 2),
    "nested": ("good.mp4 o/x.mp4 --config nested.yaml", ["select.include.0", "x, y, width, height"], 2),
    "no file": ("good.mp4 o/x.mp4 --config none.yaml", ["none.yaml", "cannot be read"], 2),
    "not text": ("good.mp4 o/x.mp4 --config garbage.mp4", ["garbage.mp4", "YAML"], 2),
    "unknown preset": ("good.mp4 o/x.mp4 --preset best", ["--preset best", "default, fast"], 2),
    "unknown option": ("good.mp4 o/x.mp4 --fast", ["--fast", "restore --help"], 2),
    "bad region": ("good.mp4 o/x.mp4 --include 1,2", ["--include 1,2", "fractions"], 2),
    "bad number": ("good.mp4 o/x.mp4 --exclude 0,0,1,2", ["--exclude 0,0,1,2", "fractions"], 2),
    "bad time": ("good.mp4 o/x.mp4 --start -1", ["--start"], 2),
    "beyond the end": ("good.mp4 o/x.mp4 --start 60", ["good.mp4", "lasts 8.60 s", "lower --start"], 1),
    "no output": ("good.mp4", ["OUTPUT is missing", "restore INPUT OUTPUT"], 2),
    "given twice": ("good.mp4 o/x.mp4 --input cut.mp4", ["given twice"], 2),
    "report": ("good.mp4 o/x.mp4 --report none/r.json", ["--report none/r.json", "make it first"], 2),
    "report onto input": ("good.mp4 o/x.mp4 --report good.mp4", ["--report good.mp4", "another file"], 2),
    "weights missing": ("good.mp4 o/x.mp4 --set restore.model=no.safetensors", ["no.safetensors", "path"], 1),
    "weights garbage": (
        "good.mp4 o/x.mp4 --set restore.model=garbage.safetensors",
        ["garbage.safe", "again"],
        1,
    ),
    "weights of other": ("good.mp4 o/x.mp4 --set restore.model=other.safetensors", ["other.safe", "arch"], 1),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_that_helps_and_leaves_nothing(case, inputs, run_cli):
    arguments, expected, code = BAD[case]
    before = (inputs / "good.mp4").read_bytes()
    (inputs / "o").mkdir(exist_ok=True)
    done = run_cli("restore", *arguments.split(), cwd=inputs)
    assert done.returncode == code, done.stderr
    assert len(lines(done.stderr)) == 1 and done.stdout == "", done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    for words in expected:
        assert words in done.stderr
    assert not list((inputs / "o").iterdir())
    assert not [path for path in inputs.iterdir() if "partial" in path.name]
    assert (inputs / "good.mp4").read_bytes() == before


def test_debug_adds_the_traceback(inputs, run_cli):
    done = run_cli("restore", "garbage.mp4", "o.mp4", "--debug", cwd=inputs)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and lines(done.stderr)[-1].startswith("error: garbage.mp4")


def full_disk(tmp_path):
    """A file system that is nearly full, or None where it takes more rights to make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        return None
    return folder


@pytest.mark.parametrize("name, codec", [("x.mp4", "mjpeg"), ("x.mkv", "ffv1")])
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(name, codec, portrait, run_cli, tmp_path):
    folder = full_disk(tmp_path)
    if folder is None:
        pytest.skip("needs the right to mount a small file system")
    try:
        done = run_cli("restore", portrait, folder / name, "--quiet", "--set", f"encode.codec={codec}")
        left = list(folder.iterdir())
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 1 and len(lines(done.stderr)) == 1, done.stderr
    assert name in done.stderr and "disk is full" in done.stderr
    assert not left


@pytest.mark.parametrize("name", ["x.mkv", "x.png"])
def test_a_file_that_may_not_grow_ends_in_one_line_and_leaves_nothing(
    name, portrait, face, run_cli, tmp_path
):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    src = portrait if name == "x.mkv" else face
    arguments = ["--set", "encode.codec=ffv1"] if name == "x.mkv" else []
    done = run_cli("restore", src, tmp_path / name, "--quiet", *arguments, preexec_fn=limit)
    assert done.returncode == 1 and len(lines(done.stderr)) == 1, done.stderr
    assert name in done.stderr and done.stderr.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_second_of_the_sample_is_restored_and_reported(portrait, run_cli, tmp_path):
    done = run_cli("restore", portrait, "out.mp4", "--duration", "1", "--report", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and lines(done.stderr)[-1].startswith("out.mp4: 25 frames, ")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
        assert sum(frame.samples for frame in container.decode(audio=0)) / 48000 == pytest.approx(1, abs=0.1)
    assert frames_of(tmp_path / "out.mp4") == 25
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report) >= REPORTED
    assert report["frames_in"] == report["frames_out"] == 25
    assert 20 <= report["faces_restored"] <= 25 and report["tracks"] == 1
    assert report["corrupt_packets"] == 0 and report["scene_cuts"] == 0
    assert report["peak_rss_mb"] > 100 and report["wall_s"] > 0 and report["fps"] > 0
    assert report["model"] == "gpen-lite-256" and report["config"]["detect"]["interval"] == 10
    for name in ("decode", "track", "crop", "restore", "compose", "encode"):
        assert {"median", "p95"} <= set(report["stage_ms"][name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "r.json"]


def plays(path) -> bool:
    """Whether a file that is being written shows a frame already."""
    try:
        return frames_of(path) > 0
    except (av.FFmpegError, IndexError):
        return False


@pytest.mark.parametrize("number, name", [(signal.SIGINT, "x.mp4"), (signal.SIGTERM, "x.mkv")])
def test_a_signal_leaves_a_partial_file_that_plays_under_its_own_name(number, name, portrait, tmp_path):
    command = [sys.executable, "-m", "stream.cli", "restore", str(portrait), name]
    command += ["--set", "encode.codec=ffv1"] if name == "x.mkv" else []
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    stem, ending = name.split(".")
    hidden, partial = tmp_path / f".{stem}.partial.{ending}", tmp_path / f"{stem}.partial.{ending}"
    until(lambda: plays(hidden))
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number, errors
    assert lines(errors)[-1] == f"stopped; what was restored so far: {partial.name}"
    assert [path.name for path in tmp_path.iterdir()] == [partial.name]
    assert 0 < frames_of(partial) < 215


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_file_that_was_cut_short_is_restored_as_far_as_it_goes(name, inputs, run_cli, tmp_path):
    out = tmp_path / name
    done = run_cli("restore", inputs / name, out, "--start", "5", "--report", tmp_path / "r.json")
    assert done.returncode == 3
    assert lines(done.stderr)[-1] == f"error: {inputs / name}: ends early; restored as far as it goes: {out}"
    report = json.loads((tmp_path / "r.json").read_text())
    assert frames_of(out) == report["frames_out"] > 5
    assert report["status"] == "truncated"


def test_published_spellings_work_for_a_folder_of_aligned_crops(face, run_cli, tmp_path):
    (tmp_path / "in").mkdir()
    Image.open(face).resize((256, 256)).save(tmp_path / "in" / "a.png")
    arguments = [
        "--input_dir",
        "in",
        "--output_dir",
        "out",
        "--batch_size",
        "2",
        "--aligned",
        "--set",
        "restore.skip_sharp=1",
        "--report",
        "r.json",
    ]
    done = run_cli("restore", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads((tmp_path / "r.json").read_text())
    assert report["faces_restored"] == 1 and report["detections_run"] == 0
    assert report["config"]["restore"]["batch_size"] == 2
    before, after = (np.asarray(Image.open(tmp_path / folder / "a.png")) for folder in ("in", "out"))
    assert before.shape == after.shape
    assert (before != after).any(axis=2)[:4].any(), "aligned crops have no mask: corners change too"


def test_regions_select_faces_and_leave_the_others_to_the_bit(run_cli, read_frames, tmp_path):
    source = SAMPLES / "group.mp4"
    lossless = ["--duration", "0.12", "--set", "encode.codec=ffv1", "--quiet"]
    right, left = (slice(190, 290), slice(650, 750)), (slice(225, 295), slice(195, 260))  # faces' luma
    before = read_frames(source)[:3]
    for name, option, changed, kept in (("in", "--include", right, left), ("out", "--exclude", left, right)):
        done = run_cli("restore", source, f"{name}.mkv", option, "0.5,0,0.5,1", *lossless, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == done.stderr == ""
        after = read_frames(tmp_path / f"{name}.mkv")
        assert len(after) == 3
        for a, b in zip(before, after, strict=True):
            assert (a[kept] == b[kept]).all()
            assert (a[changed] != b[changed]).mean() > 0.3


def test_without_a_terminal_progress_is_plain_lines(face, run_cli, tmp_path):
    often = (
        "import stream.cli.progress as p; p._PLAIN_EVERY_S = 0.0; from stream.cli.main import main; main()"
    )
    done = run_cli("restore", face, tmp_path / "x.jpg", code=often)
    assert done.returncode == 0
    *progress, last = lines(done.stderr)
    assert ", 1 left alone, " in last, "this face is sharp already"
    assert progress and all(" of 1 frames, " in line and " fps, " in line for line in progress)
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    assert last.startswith(f"{tmp_path / 'x.jpg'}: 1 frames, 0 faces, ")


def test_on_a_terminal_there_is_a_bar_that_goes_away(portrait, tmp_path):
    command = [sys.executable, "-m", "stream.cli", "restore", str(portrait), "x.mp4", "--duration", "0.2"]
    code, text = on_terminal(command, 100, cwd=tmp_path)
    assert code == 0
    assert "━" in text and "/5 frames" in text and "fps" in text and "\x1b[2K" in text
    assert lines(text)[-1].split("\x1b")[-1].endswith("fps")


OPTIONS = (
    "--input --input_dir --output --output_dir --aligned --start --duration --include --exclude --preset "
    "--config --set --model --batch-size --batch_size --strength --task --inpaint-mask --inpaint-key "
    "--fidelity-weight --fidelity_weight --upscale --overwrite --allow-loss --report --quiet --debug --help"
)


@pytest.mark.parametrize(
    "command, options", [("restore", OPTIONS), ("probe", "--json --help"), ("", "--version")]
)
def test_help_names_every_option_on_a_narrow_terminal(command, options, run_cli):
    done = run_cli(*command.split(), "--help", env=os.environ | {"COLUMNS": "80", "TERM": "dumb"})
    assert done.returncode == 0 and done.stderr == ""
    for option in options.split():
        assert option in done.stdout
    assert "Exit codes" in done.stdout or command != "restore"


def test_the_bare_command_shows_its_help_and_the_version_is_the_packages(run_cli):
    from stream import __version__

    done = run_cli()
    assert "restore" in done.stdout + done.stderr and "error" not in done.stderr and done.returncode == 2
    assert run_cli("--version").stdout.strip() == f"gpen-stream {__version__}"


def test_probe_tells_what_is_in_a_video_and_in_a_picture(portrait, face, run_cli):
    facts = json.loads(run_cli("probe", portrait, "--json").stdout)
    assert facts["restored"]["codec"] == "h264" and facts["restored"]["size"] == "640x480"
    assert facts["restored"]["frames"] == 215 and facts["restored"]["frame_rate"] == "25"
    assert [stream["type"] for stream in facts["stream"]] == ["video", "audio"]
    plain = run_cli("probe", portrait).stdout
    assert "codec: h264" in plain and "sound: 48000 Hz, stereo" in plain
    facts = json.loads(run_cli("probe", face, "--json").stdout)
    assert facts["size"] == "288x288" and facts["pixel_format"] == "rgb24"


def test_probe_refuses_what_it_cannot_read_in_one_line(inputs, run_cli):
    for name in ("garbage.mp4", "none.mp4", "o.png"):
        done = run_cli("probe", name, cwd=inputs)
        assert done.returncode == 1 and len(lines(done.stderr)) == 1 and name in done.stderr


def test_a_folder_is_restored_as_a_tree_and_one_broken_file_keeps_nothing_back(face, run_cli, tmp_path):
    src, dst = tmp_path / "in", tmp_path / "out"
    (src / "deep" / "er").mkdir(parents=True)
    shutil.copy(face, src / "a.jpg")
    Image.open(face).convert("L").save(src / "deep" / "b.png")
    Image.open(face).resize((200, 200)).save(src / "deep" / "er" / "c.webp")
    (src / "deep" / "broken.jpg").write_bytes(b"no picture")
    (src / "notes.txt").write_text("not a video")
    (src / ".hidden.jpg").write_bytes(b"")
    small_video(src / "deep" / "v.mkv")
    done = run_cli("restore", src, dst, "--report", tmp_path / "r.json")
    assert done.returncode == 1
    wrong = [line for line in lines(done.stderr) if line.startswith("error")]
    assert len(wrong) == 1 and "broken.jpg" in wrong[0]
    found = sorted(str(path.relative_to(dst)) for path in dst.rglob("*") if path.is_file())
    assert found == ["a.jpg", "deep/b.png", "deep/er/c.webp", "deep/v.mkv"]
    assert Image.open(dst / "deep" / "b.png").mode == "L"
    reports = json.loads((tmp_path / "r.json").read_text())
    assert reports[0]["frames_out"] == 3 and "broken.jpg" in reports[0]["failures"][0]
    assert reports[1]["frames_out"] == frames_of(dst / "deep" / "v.mkv") == 10
    again = run_cli("restore", src, dst)
    assert again.returncode == 1 and again.stderr.count("exists") == 4


def test_a_folder_without_anything_to_restore_or_onto_itself_is_refused(run_cli, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "file").touch()
    for dst, words in (("out", "no video and no picture"), ("in", "INPUT itself"), ("file", "is a file")):
        done = run_cli("restore", "in", dst, cwd=tmp_path)
        assert done.returncode == 1 and words in done.stderr and len(lines(done.stderr)) == 1


def test_the_fidelity_switch_reaches_the_engine(face, tmp_path, run_cli):
    """Both spellings; 1.0 is the default, byte for byte."""
    plain, one, half = (tmp_path / f"{name}.png" for name in ("plain", "one", "half"))
    for target, switches in (
        (plain, ()),
        (one, ("--fidelity_weight", "1.0")),
        (half, ("--fidelity-weight", "0.5", "--set", "restore.precision=fp32")),
    ):
        done = run_cli(
            "restore", face, target, "--quiet", "--aligned", "--set", "restore.skip_sharp=1", *switches
        )
        assert done.returncode == 0, done.stderr
    assert plain.read_bytes() == one.read_bytes() != half.read_bytes()
    refused = run_cli("restore", face, half, "--fidelity-weight", "1.5")
    assert refused.returncode == 2
    assert "fidelity" in refused.stderr
