"""A long video restored by segments: the same bytes however often the run is killed, and no seam."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from films import film, packets_sha256, times
from waiting import until

from stream import Options, Status, load_config, restore_file
from stream.errors import EncodeError, HardwareError, PlanError
from stream.job.outlook import foresee, job_status, join_finished
from stream.job.segments.work_folder import WorkFolder
from stream.media.segment_encoder import SegmentEncoder

pytestmark = pytest.mark.timeout(400)
CONFIG = load_config("fast", None, ["restore.precision=fp32"])
OPTIONS = Options(segment_s=2.0)
CUTS = 80, 100
KINDS = {
    "mp4": ("libx264", "yuv420p", []),
    "mkv": ("libx265", "yuv420p10le", ["encode.preset=ultrafast"]),
    "webm": ("libvpx-vp9", "yuv420p", ["encode.preset=null", "encode.effort=low"]),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def source(tmp_path_factory, kind):
    codec, pix_fmt, _ = KINDS[kind]
    options = {"cpu-used": "8", "deadline": "realtime"} if kind == "webm" else {"preset": "ultrafast"}
    path = tmp_path_factory.mktemp("source") / f"film.{kind}"
    return film(path, codec, pix_fmt, frames=120, cuts=CUTS, options=options)


@pytest.fixture(scope="module")
def whole(source, kind, tmp_path_factory):
    """The film restored by segments, without a break."""
    path = tmp_path_factory.mktemp("whole") / f"out.{kind}"
    outcome = restore_file(source, path, config_of(kind), options=OPTIONS)
    assert outcome.status is Status.COMPLETE
    return path, outcome


def config_of(kind):
    return load_config("fast", None, ["restore.precision=fp32", *KINDS[kind][2]])


def killed_run(source, target, kind, when):
    """The real command, killed as soon as `when` says so of its work folder."""
    settings = [f"--set={text}" for text in ("restore.precision=fp32", *KINDS[kind][2])]
    command = [sys.executable, "-m", "stream.cli", "restore", source, target, "--preset=fast", "--segment=2"]
    process = subprocess.Popen([*map(str, command), *settings], stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or when(WorkFolder(target).path), 100)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_packets(source, whole, kind, tmp_path):
    target = tmp_path / f"out.{kind}"

    def receipts(count):
        return lambda folder: len(list(folder.glob("0????.json"))) >= count

    def a_part_has_begun(folder):
        return any(path.stat().st_size for path in folder.glob("0*.part"))

    moments = [receipts(1), receipts(2)]
    if kind == "mp4":
        moments = [
            lambda folder: folder.exists(),
            a_part_has_begun,
            receipts(1),
            a_part_has_begun,
            receipts(2),
        ]
    for when in moments:
        killed_run(source, target, kind, when)
    assert not target.exists() and job_status(target).segments_done >= 2
    outcome = restore_file(source, target, config_of(kind), options=OPTIONS)
    assert packets_sha256(target) == packets_sha256(whole[0])
    earlier = [segment["earlier"] for segment in outcome.report["segments"]]
    assert sum(earlier) >= 2
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_everything_but_the_pictures_is_as_without_segments(source, whole, kind, tmp_path):
    plain = tmp_path / f"plain.{kind}"
    restore_file(source, plain, config_of(kind), options=Options(segment_s=0.0))
    assert times(plain) == times(whole[0])
    with av.open(str(plain)) as one, av.open(str(whole[0])) as two:
        assert one.metadata == two.metadata and len(one.streams) == len(two.streams)
        for a, b in zip(one.streams, two.streams, strict=True):
            assert a.metadata.get("language") == b.metadata.get("language") and a.type == b.type
        sounds = [
            [bytes(packet) for packet in c.demux(audio=0)] if c.streams.audio else [] for c in (one, two)
        ]
        assert sounds[0] == sounds[1]
    assert whole[0].stat().st_size <= 1.05 * plain.stat().st_size


def test_every_border_can_be_decoded_and_the_times_rise(whole, kind):
    with av.open(str(whole[0])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    decoding = [packet.dts for packet in packets if packet.dts is not None]
    assert decoding == sorted(set(decoding))
    assert all(packet.dts is None or packet.dts <= packet.pts for packet in packets)
    first = packets[0].pts
    keyframes = {
        round(float((packet.pts - first) * packet.time_base) * 25) for packet in packets if packet.is_keyframe
    }
    assert {0, 50, 100} <= keyframes


def test_the_report_has_a_part_for_each_segment(whole):
    report = whole[1].report
    rows = report["segments"]
    assert [row["frames"] for row in rows] == [50, 50, 20] and report["frames_out"] == 120
    assert [row["begins_at_cut"] for row in rows] == [True, False, True]
    assert sum(row["faces"] for row in rows) == report["faces_restored"] + report["faces_carried"]
    assert all(row["seconds"] > 0 and not row["earlier"] for row in rows)


# --- one container will do ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """Three scenes of a second each."""
    path = tmp_path_factory.mktemp("movie") / "film.mp4"
    return film(path, frames=75, cuts=(25, 50), options={"preset": "ultrafast"})


def stopped_after(count):
    """A stop event, and a progress callback that sets it once `count` segments are done."""
    stop = threading.Event()

    def progress(done):
        if done.segments_done >= count:
            stop.set()

    return stop, progress


@pytest.fixture(scope="module")
def stopped_run(movie, tmp_path_factory):
    """A folder with an output of which some segments are done, and how its run ended."""
    folder = tmp_path_factory.mktemp("stopped")
    stop, progress = stopped_after(1)
    given = Options(segment_s=1.0)
    outcome = restore_file(movie, folder / "out.mp4", CONFIG, options=given, progress=progress, stop=stop)
    assert outcome.status is Status.INTERRUPTED
    return folder, outcome


@pytest.fixture
def begun(stopped_run, tmp_path):
    """An output of which some segments are done: a copy of its own."""
    folder, outcome = stopped_run
    shutil.copytree(folder, tmp_path / "begun")
    target = tmp_path / "begun" / "out.mp4"
    WorkFolder(target).note_partial(target.with_name("out.partial.mp4"))  # the copy is another file
    return target, outcome


@pytest.fixture(scope="module")
def kept_run(movie, tmp_path_factory):
    """A folder with the folder of segments of a whole output, and the SHA-256 of its packets."""
    folder = tmp_path_factory.mktemp("kept")
    target = folder / "out.mp4"
    restore_file(movie, target, CONFIG, options=Options(segment_s=1.0, keep_segments=True))
    whole = packets_sha256(target)
    target.unlink()
    return folder, whole


@pytest.fixture
def kept(kept_run, tmp_path):
    """An output whose segments are all done, but not joined: a copy of its own."""
    folder, whole = kept_run
    shutil.copytree(folder, tmp_path / "kept")
    return tmp_path / "kept" / "out.mp4", whole


def test_no_seam_is_seen_at_a_forced_border(tmp_path):
    """Within two frames of it, restored faces differ by less than a level from a run without borders."""
    scene = film(tmp_path / "scene.mp4", frames=90, options={"preset": "ultrafast"})
    lossless = load_config(
        "fast", None, ["restore.precision=fp32", "restore.interval=1", "encode.codec=ffv1"]
    )
    found = []
    for name, options in (("plain.mkv", Options(segment_s=0.0)), ("parts.mkv", Options(segment_s=2.0))):
        restore_file(scene, tmp_path / name, lossless, options=options)
        with av.open(str(tmp_path / name)) as container:
            found.append([f.to_ndarray(format="gray").astype(np.float32) for f in container.decode(video=0)])
    with av.open(str(scene)) as container:
        given = [f.to_ndarray(format="gray").astype(np.float32) for f in container.decode(video=0)]
    for at in range(48, 52):
        changed = np.abs(found[0][at] - given[at]) > 0.5
        assert changed.any()
        assert np.abs(found[0][at] - found[1][at])[changed].mean() < 1.0, at


def test_a_stopped_run_leaves_a_file_that_plays_and_says_how_to_go_on(begun):
    _, outcome = begun
    assert outcome.path.name == "out.partial.mp4"
    assert len(times(outcome.path)) >= 25
    assert any("segments are done; the same command continues" in note for note in outcome.notes)


def test_continuing_tells_what_is_done_and_leaves_the_output_alone(begun, movie):
    target, _ = begun
    seen = []
    outcome = restore_file(movie, target, CONFIG, options=Options(segment_s=1.0), progress=seen.append)
    assert outcome.status is Status.COMPLETE
    assert seen[0].frames_before >= 25 and seen[0].segments_done >= 1 and seen[0].segments_total == 3
    assert seen[-1].frames_done == seen[-1].frames_total == 75
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]


def test_the_command_says_that_it_continues(begun, movie, run_cli):
    target, _ = begun
    settings = ["--preset=fast", "--set=restore.precision=fp32", "--segment=1"]
    done = run_cli("restore", movie, target, *settings)
    assert done.returncode == 0, done.stderr
    assert f"continuing: {3 - 2} of 3 segments done" in done.stderr or "continuing: 2 of 3" in done.stderr


def test_status_tells_how_far_a_run_is_and_joins_what_there_is(begun, run_cli):
    target, outcome = begun
    outcome.path.unlink()
    done = run_cli("status", target, "--json")
    assert json.loads(done.stdout)["segments_total"] == 3
    path = join_finished(target)
    assert path.name == "out.partial.mp4" and len(times(path)) == job_status(target).frames_done
    assert run_cli("status", target.with_name("other.mp4")).returncode == 1


def test_restart_begins_again(begun, movie):
    target, _ = begun
    outcome = restore_file(movie, target, CONFIG, options=Options(segment_s=1.0, restart=True))
    assert not any(segment["earlier"] for segment in outcome.report["segments"])


def test_segments_are_kept_where_that_is_asked_for(kept):
    target, _ = kept
    assert len(list(WorkFolder(target).path.glob("*.video"))) == 3


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (["encode.crf=20"], {}, r"settings\.encode\.crf is 20\.0, was not set"),
        (["restore.strength=0.5"], {}, r"settings\.restore\.strength is 0\.5, was 1\.0"),
        ([], {"segment_s": 1.5}, r"options\.segment is 1\.5, was 1\.0"),
        ([], {"start_s": 1.0}, r"options\.start is 1\.0, was not set"),
    ],
)
def test_another_setting_is_named_and_nothing_is_lost(begun, movie, config, options, words):
    target, _ = begun
    changed = load_config("fast", None, ["restore.precision=fp32", *config])
    before = job_status(target)
    with pytest.raises(PlanError, match=rf"out\.mp4: an earlier run cannot be continued, since {words}"):
        restore_file(movie, target, changed, options=Options(**{"segment_s": 1.0, **options}))
    assert job_status(target) == before


def test_another_input_is_named(begun, movie, tmp_path):
    target, _ = begun
    other = film(tmp_path / "other.mp4", frames=70, cuts=(25, 50), options={"preset": "ultrafast"})
    with pytest.raises(PlanError, match=r"since input\.sampled_sha256 is .*, was .*; run it as before"):
        restore_file(other, target, CONFIG, options=Options(segment_s=1.0))


@pytest.mark.parametrize("fact", ["model.sha256", "version.gpen-stream", "version.av"])
def test_another_model_or_version_is_named(begun, movie, fact):
    target, _ = begun
    plan = WorkFolder(target).plan_path
    facts = json.loads(plan.read_text())
    facts["facts"][fact] = "another"
    plan.write_text(json.dumps(facts))
    with pytest.raises(PlanError, match=rf"since {fact} is .*, was another"):
        restore_file(movie, target, CONFIG, options=Options(segment_s=1.0))


@pytest.mark.parametrize("harm", ["damaged", "cut", "swapped", "gone"])
def test_a_segment_that_is_not_what_its_receipt_says_is_restored_again(movie, kept, harm):
    target, whole = kept
    options = Options(segment_s=1.0)
    path = WorkFolder(target).segment_path(1)
    if harm == "damaged":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "swapped":
        path.write_bytes(WorkFolder(target).segment_path(0).read_bytes())
    else:
        path.unlink()
    outcome = restore_file(movie, target, CONFIG, options=options)
    assert [segment["earlier"] for segment in outcome.report["segments"]] == [True, False, True]
    assert packets_sha256(target) == whole


def test_what_was_not_on_the_disk_at_a_power_cut_is_restored_again(movie, kept):
    """A receipt without its file, a file without its receipt, and parts of writings."""
    target, whole = kept
    options, folder = Options(segment_s=1.0, keep_segments=True), WorkFolder(target)
    folder.segment_path(0).write_bytes(b"")
    (folder.path / "00002.json").write_bytes(b"")
    (folder.path / "00001.abc.part").write_bytes(b"torn")
    (folder.path / "plan.json.abc.part").write_bytes(b"{")
    outcome = restore_file(movie, target, CONFIG, options=options)
    assert [segment["earlier"] for segment in outcome.report["segments"]] == [False, True, False]
    assert packets_sha256(target) == whole
    assert not list(folder.path.glob("*.part"))


def test_the_plan_is_shown_before_anything_is_written(movie, tmp_path, run_cli):
    target = tmp_path / "out.mp4"
    outlook = foresee(movie, target, CONFIG, Options(segment_s=1.0))
    assert [row.frames for row in outlook.segments] == [25, 25, 25] and outlook.fps > 0
    assert outlook.seconds == pytest.approx((75 + outlook.extra_frames) / outlook.fps, rel=0.02)
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_refused_before_any_work(movie, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(EncodeError, match="exists; name another output or add --overwrite"):
        restore_file(movie, target, CONFIG, options=Options(segment_s=1.0))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["out.mp4"]


def test_a_full_disk_at_the_join_keeps_the_segments_and_the_next_run_joins_them(movie, kept, run_cli):
    """The limit lies between the largest segment and the whole video."""
    target, whole = kept
    sizes = [path.stat().st_size for path in WorkFolder(target).path.glob("*.video")]
    limit = (max(sizes) + sum(sizes)) // 2

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    settings = ["--preset=fast", "--set=restore.precision=fp32", "--segment=1"]
    done = run_cli("restore", movie, target, *settings, preexec_fn=limited)
    assert done.returncode == 1 and "grew beyond what is allowed" in done.stderr
    assert job_status(target).segments_done == 3 and not target.exists()
    outcome = restore_file(movie, target, CONFIG, options=Options(segment_s=1.0))
    assert all(segment["earlier"] for segment in outcome.report["segments"])
    assert packets_sha256(target) == whole


def test_a_hardware_encoder_that_fails_begins_a_new_plan(movie, tmp_path, monkeypatch):
    """The software encoder makes the video: nothing of the hardware's segments is used."""
    encode = SegmentEncoder.write
    failed = []

    def write(self, picture, pts):
        if not failed and pts > 25 * 512:
            failed.append(pts)
            raise HardwareError("out.mp4: h264_nvenc failed; set encode.hardware to off")
        encode(self, picture, pts)

    monkeypatch.setattr(SegmentEncoder, "write", write)
    config = load_config("fast", None, ["restore.precision=fp32", "encode.hardware=auto"])
    outcome = restore_file(movie, tmp_path / "out.mp4", config, options=Options(segment_s=1.0))
    assert failed and outcome.status is Status.COMPLETE
    assert outcome.report["encoder"] == "libx264" and any("made again by" in n for n in outcome.notes)
    assert not any(segment["earlier"] for segment in outcome.report["segments"])
