"""Whole runs: memory on 400 and 2,000 frames, and how well the stages overlap.

    python tests/bench/bench_pipeline.py [--json] [--rounds 3]

Memory: peak resident set of `gpen-stream restore` on the portrait sample repeated to 400 and to
2,000 frames. Overlap: wall time of a run against the larger of its slowest stage and all CPU
seconds over the cores, from the same run's report (from the first frame asked for to the last
written; the program's own start is left out on both sides).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "samples" / "portrait.mp4"


def repeat(frames: int, path: Path) -> Path:
    """The sample forwards, again and again, as one H.264 file of `frames` frames."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        done = 0
        while done < frames:
            with av.open(str(SAMPLE)) as source:
                for picture in source.decode(video=0):
                    if done == frames:
                        break
                    picture.pts, picture.time_base, picture.pict_type = done, Fraction(1, 25), 0
                    out.mux(stream.encode(picture))
                    done += 1
        out.mux(stream.encode())
    return path


def run(source: Path, folder: Path, *settings: str) -> dict:
    """One restore in its own process; its report."""
    report = folder / "report.json"
    subprocess.run(
        [sys.executable, "-m", "stream.cli", "restore", source, folder / "out.mp4", "--overwrite", "--quiet",
         "--report", report, *settings], check=True, cwd=ROOT,
    )  # fmt: skip
    return json.loads(report.read_text())


def memory(folder: Path) -> dict:
    """Peak MiB on 400 and on 2,000 frames, and their ratio."""
    peaks = {n: run(repeat(n, folder / f"{n}.mp4"), folder)["peak_rss_mb"] for n in (400, 2000)}
    return {"peak_rss_mb": peaks, "ratio": round(peaks[2000] / peaks[400], 3)}


def overlap(folder: Path, rounds: int) -> dict:
    """Wall over the ideal, median of `rounds` runs of the sample."""
    ratios, details = [], []
    for _ in range(rounds):
        report = run(SAMPLE, folder)
        slowest = max(report["stage_ms"].items(), key=lambda item: item[1]["busy_s"])
        ideal = max(slowest[1]["busy_s"], report["cpu_s"] / report["cores"])
        ratios.append(report["wall_s"] / ideal)
        details.append(
            {"wall_s": report["wall_s"], "slowest": slowest[0], "slowest_busy_s": slowest[1]["busy_s"],
             "cpu_over_cores_s": round(report["cpu_s"] / report["cores"], 2)}
        )  # fmt: skip
    return {"wall_over_ideal": round(statistics.median(ratios), 3), "rounds": details}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("memory", "overlap"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {"cores": len(os.sched_getaffinity(0))}
        if arguments.only != "memory":
            result["overlap"] = overlap(folder, arguments.rounds)
        if arguments.only != "overlap":
            result["memory"] = memory(folder)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, figures in result.items():
        print(name, figures)


if __name__ == "__main__":
    main()
