"""What a plan of segments costs, whether its borders show, and what Ray costs beside one process.

    python -m tests.bench.bench_segments [--seconds 68] [--rounds 2] [--only seam|plan|ray] [--json FILE]

Seam: the portrait sample is restored without segments and in segments whose borders are forced, losslessly.
Within two frames of a border the pixels that restoration changes are compared, and E_warp from the last
frame of a segment to the first of the next is compared with that of the five pairs before and after.

Plan: the whole command on a film of `--seconds`, the sample again and again, without segments and with the
default ones, in turn: wall time and size of the result. The film has no cut, so that its borders are forced.

Ray: the whole command in segments of ten seconds, by one process with all cores and by a cluster of one
machine with a worker for each core, in turn. The start of such a cluster is measured by itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from stream.config import load_config
from stream.job.api import restore_file
from stream.job.interface import Options
from stream.lab.bench.report import Row, Table
from stream.lab.quality.video_measures import ClipMotion, warping_error
from tests.bench.live_tools import ROOT, SAMPLES, add_json_option, write_json

SEAM_S = 2.0
"""Segments of the sample in which the seam is looked for: three forced borders."""
NEIGHBOURS = 5
MARGIN = 8


def film(path: Path, seconds: float) -> Path:
    """The portrait sample again and again, with a keyframe every two seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12800)
        stream.codec_context.gop_size = 50
        done = 0
        while done < 25 * seconds:
            with av.open(str(SAMPLES / "portrait.mp4")) as source:
                for picture in source.decode(video=0):
                    picture.pts, picture.time_base, picture.pict_type = done * 512, Fraction(1, 12800), 0
                    output.mux(stream.encode(picture))
                    done += 1
                    if done >= 25 * seconds:
                        break
        output.mux(stream.encode(None))
    return path


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def seam(folder: Path) -> list[Row]:
    """Differences and E_warp at each forced border."""
    source = film(folder / "short.mp4", 8.6)
    config = load_config("default", None, ["encode.codec=ffv1"])
    plain, parts = folder / "plain.mkv", folder / "parts.mkv"
    restore_file(source, plain, config, options=Options(segment_s=0.0))
    outcome = restore_file(source, parts, config, options=Options(segment_s=SEAM_S))
    given, one, two = pictures(source), pictures(plain), pictures(parts)
    rows: list[Row] = []
    for segment in outcome.report["segments"][1:]:
        border = round(segment["start_s"] * 25)
        apart, most = [], 0.0
        for at in range(border - 2, border + 2):
            changed = (one[at] != given[at]).any(axis=2)
            difference = np.abs(one[at].astype(np.int16) - two[at])[changed]
            apart.append(float(difference.mean()))
            most = max(most, float(difference.max()))
        box = _face_box(one[border], given[border])
        cut = [[picture[box] for picture in clip] for clip in (given, one, two)]
        near = range(border - NEIGHBOURS - 1, border + NEIGHBOURS)
        errors = [[_pair_error(clip, cut[0], at) for at in near] for clip in cut[1:]]
        middle = NEIGHBOURS
        sides = [[e for i, e in enumerate(of_clip) if i != middle] for of_clip in errors]
        rows.append(
            {
                "border": segment["start_s"],
                "apart": round(float(np.mean(apart)), 3),
                "most": most,
                "warp_plain": round(errors[0][middle] / statistics.mean(sides[0]), 3),
                "warp_parts": round(errors[1][middle] / statistics.mean(sides[1]), 3),
                "warp_ratio": round(errors[1][middle] / errors[0][middle], 3),
            }
        )
    return rows


def _pair_error(clip: list[np.ndarray], source: list[np.ndarray], at: int) -> float:
    return warping_error(clip[at : at + 2], ClipMotion(source[at : at + 2]))


def _face_box(one: np.ndarray, given: np.ndarray) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect((one != given).any(axis=2).astype(np.uint8))
    return slice(max(0, y - MARGIN), y + height + MARGIN), slice(max(0, x - MARGIN), x + width + MARGIN)


def command(source: Path, target: Path, *arguments: str) -> float:
    """Wall seconds of the whole command."""
    target.unlink(missing_ok=True)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "stream.cli", "restore", source, target, "--quiet", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return time.monotonic() - began


def plan_cost(source: Path, folder: Path, rounds: int) -> list[Row]:
    """Wall time and size with and without segments."""
    times: dict[str, list[float]] = {"0": [], "60": []}
    sizes: dict[str, int] = {}
    for turn in range(rounds):
        for name in ("0", "60") if turn % 2 else ("60", "0"):
            target = folder / f"out{name}.mp4"
            times[name].append(command(source, target, "--segment", name))
            sizes[name] = target.stat().st_size
    ratios = [parts / plain for parts, plain in zip(times["60"], times["0"], strict=True)]
    return [
        {
            "case": "segments against none",
            "wall": round(statistics.median(ratios), 3),
            "size": round(sizes["60"] / sizes["0"], 3),
            "seconds": round(statistics.median(times["0"]), 1),
        }
    ]


def ray_cost(source: Path, folder: Path, rounds: int) -> list[Row]:
    """Wall time of a cluster of this machine against one process, and the time of its start."""
    times: dict[str, list[float]] = {"ray": [], "one": []}
    for turn in range(rounds):
        for name in ("one", "ray") if turn % 2 else ("ray", "one"):
            on = ["--on", "local", "--worker-cores", "1"] if name == "ray" else []
            times[name].append(command(source, folder / f"{name}.mp4", "--segment", "10", *on))
    ratios = [ray / one for ray, one in zip(times["ray"], times["one"], strict=True)]
    code = (
        "import time; begun = time.monotonic(); from stream.job.cluster import connect; "
        "c = connect('local', '--on'); print(time.monotonic() - begun); c.close()"
    )
    starts = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        )
        for _ in range(3)
    ]
    return [
        {
            "case": "Ray, a worker for each core, against one process",
            "wall": round(statistics.median(ratios), 3),
            "seconds": round(statistics.median(times["one"]), 1),
            "start": round(statistics.median(starts), 1),
        }
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=68)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("seam", "plan", "ray"), action="append")
    add_json_option(parser)
    arguments = parser.parse_args()
    parts = arguments.only or ["seam", "plan", "ray"]
    tables: list[Table] = []

    def show(table: Table) -> None:
        tables.append(table)
        print(table.title)
        for row in table.rows:
            print("  ", ", ".join(f"{table.columns[key]}: {value}" for key, value in row.items()), flush=True)
        write_json(arguments.json, "segments", tables)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = film(folder / "film.mp4", arguments.seconds)
        if "seam" in parts:
            columns = {
                "border": "border, s",
                "apart": "mean difference, levels",
                "most": "largest difference, levels",
                "warp_plain": "E_warp there against its neighbours, without segments",
                "warp_parts": "the same with segments",
                "warp_ratio": "E_warp with against without segments",
            }
            show(Table("seam", "Forced borders, within two frames", columns, seam(folder)))
        if "plan" in parts:
            columns = {"case": "", "wall": "wall time", "size": "size", "seconds": "s without segments"}
            rows = plan_cost(source, folder, arguments.rounds)
            show(Table("plan", "Cost of a plan", columns, rows))
        if "ray" in parts:
            columns = {"case": "", "wall": "wall time", "seconds": "s of one process", "start": "s to start"}
            rows = ray_cost(source, folder, arguments.rounds)
            show(Table("ray", "Cost of Ray on one machine", columns, rows))


if __name__ == "__main__":
    main()
