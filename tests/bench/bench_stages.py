"""Time of a frame in each stage: 1280x720, without a face and with one face.

    python tests/bench/bench_stages.py [--json] [--rounds 3] [--frames 48] [--set KEY=VALUE]

The stages of `restore` run one after another in one thread on clips that this script makes: a drawn room
that pans slowly, and the same with the portrait sample in it. `find`, the thumbnail and the detector on
keyframes, is measured apart from `track`. Figures are medians over the rounds of wall and CPU time for a
frame in ms; CPU time counts all threads of the process. "beside" is the CPU time of a frame in all stages
except decode, find and encode.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "samples" / "portrait.mp4"
SIZE = 1280, 720
sys.path.insert(0, str(ROOT / "samples"))

from stream.config import load_config  # noqa: E402
from stream.faces.assembly import Setup, assemble  # noqa: E402
from stream.media.decode import FileSource  # noqa: E402
from stream.media.encode import FileSink, OutputOptions  # noqa: E402
from stream.media.probe import probe  # noqa: E402
from stream.picture.face import FrameWork  # noqa: E402
from stream.pipeline.cpu_budget import available_cores  # noqa: E402


def make_clip(path: Path, frames: int, face: bool) -> Path:
    """Write a clip as cameras send it: H.264, 24 frames a second."""
    from scenery import library

    room = (cv2.resize(library(), (1360, 765), interpolation=cv2.INTER_CUBIC) * 255).clip(0, 255)
    portraits = decoded(SAMPLE)
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(frames):
            view = room[20 : 20 + SIZE[1], index : index + SIZE[0]] + rng.normal(
                0, 1.5, (SIZE[1], SIZE[0], 1)
            )
            if face:
                view[150:630, 320:960] = portraits[index % len(portraits)]
            picture = av.VideoFrame.from_ndarray(view.clip(0, 255).astype(np.uint8), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=1)
            picture.pts, picture.time_base = index, Fraction(1, 24)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """The RGB pictures of a video in order and then backwards, so that they can be repeated."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return pictures + pictures[::-1]


class Clock:
    """Wall and CPU time in s by name. The time of a nested call counts for the nested name only."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self._inner = [(0.0, 0.0)]

    def __call__(self, name: str, call, *arguments):
        """Call a function and add its time to `name`."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._inner.append((0.0, 0.0))
        try:
            return call(*arguments)
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            inner = self._inner.pop()
            self.wall_s[name] += wall - inner[0]
            self.cpu_s[name] += cpu - inner[1]
            outer = self._inner.pop()
            self._inner.append((outer[0] + wall, outer[1] + cpu))


def one_round(path: Path, folder: Path, settings: list[str]) -> tuple[Clock, dict]:
    """Process all frames by all stages in this thread."""
    config = load_config("default", None, settings)
    stages, clock = assemble(Setup.of(config)), Clock()
    info = probe(path)
    source = FileSource(info, threads=available_cores())
    sink = FileSink(info, folder / "out.mp4", config.encode, OutputOptions(overwrite=True))
    line = [*stages.in_line(), ("encode", sink)]
    finder = stages.detect._finder
    finder(next(FileSource(info).frames()))  # compiles the detector for this size
    stages.detect._finder = lambda frame: clock("find", finder, frame)
    cv2.setNumThreads(1)
    for _, stage in line:
        stage.open()

    def push(at: int, works: Iterable[FrameWork]) -> None:
        if at == len(line):
            return
        name, stage = line[at]
        for work in works:
            push(at + 1, clock(name, lambda work=work: list(stage.process(work))))

    frames = source.frames()
    count = 0
    while (frame := clock("decode", next, frames, None)) is not None:
        push(0, [FrameWork(frame)])
        count += 1
    for at, (name, stage) in enumerate(line):
        push(at + 1, clock(name, lambda stage=stage: list(stage.flush())))
    for _, stage in line:
        stage.close()
    sink.discard()
    facts = {
        "frames": count,
        "faces": stages.restore.counts.restored,
        "detections": stages.detect.detections_run,
    }
    return clock, facts


def measure(face: bool, folder: Path, frames: int, rounds: int, settings: list[str]) -> dict:
    """Times of a frame by stage in ms, medians of the rounds."""
    path = make_clip(folder / f"{'face' if face else 'empty'}.mp4", frames, face)
    seen = [one_round(path, folder, settings) for _ in range(rounds)]
    facts = seen[0][1]
    result: dict = {"facts": facts, "wall_ms": {}, "cpu_ms": {}}
    for name in seen[0][0].wall_s:
        for key, part in (("wall_ms", "wall_s"), ("cpu_ms", "cpu_s")):
            values = [getattr(clock, part)[name] for clock, _ in seen]
            result[key][name] = round(statistics.median(values) * 1e3 / facts["frames"], 3)
    beside = [name for name in result["cpu_ms"] if name not in ("decode", "find", "encode")]
    result["beside_cpu_ms"] = round(sum(result["cpu_ms"][name] for name in beside), 3)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = {
            title: measure(face, Path(name), arguments.frames, arguments.rounds, arguments.settings)
            for title, face in (("no face", False), ("one face", True))
        }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for title, figures in result.items():
        print(f"{title}: {figures['facts']}, beside {figures['beside_cpu_ms']} ms CPU")
        for stage, wall in figures["wall_ms"].items():
            print(f"  {stage:8} {wall:8.3f} ms wall {figures['cpu_ms'][stage]:8.3f} ms CPU")


if __name__ == "__main__":
    main()
