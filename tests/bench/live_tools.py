"""Tools of the live benches: a source with the time burnt in, clients that read it, figures of processes."""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stream.lab.bench.machine import machine
from stream.lab.bench.report import BenchReport, Table
from stream.live.source import time_strip
from stream.pipeline.cpu_budget import available_cores

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --json, with which a bench writes its figures to a file for docs/bench."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")


def write_json(path: Path | None, bench: str, tables: list[Table]) -> None:
    """Write the figures with machine, commit and weights, if a file was named."""
    if path is not None:
        report = BenchReport(bench, machine(available_cores()), {}, None, tables)
        path.write_text(report.to_json() + "\n", encoding="utf-8")


def now_ms() -> int:
    """Time in ms by a clock that all processes of the machine share."""
    return time.monotonic_ns() // 1_000_000


def age_ms(luma: np.ndarray) -> int | None:
    """Age of the picture with this luma in ms; None if its time strip cannot be read."""
    made = time_strip.read(luma)
    return None if made is None else (now_ms() - made) % (1 << time_strip.BITS)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen]:
    """A process that ends with the block. Its output goes to this process's."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def strip_source(url: str, rate: float, size: str = "640x360", clip: str = "portrait"):
    """A process that sends a sample to `url` as H.264 in MPEG-TS, with the time strip in each picture.

    The clip "still" repeats one picture without a time strip.
    """
    return running("-m", "tests.bench.live_tools", url, str(rate), size, clip)


def _pictures(width: int, height: int, clip: str = "portrait") -> list[av.VideoFrame]:
    """A sample's frames in yuv420p, scaled and cropped to a size."""
    made = []
    with av.open(str(SAMPLES / f"{clip}.mp4")) as container:
        for frame in container.decode(video=0):
            wide = frame.reformat(width=width, height=round(frame.height * width / frame.width) // 2 * 2)
            rows = wide.to_ndarray(format="rgb24")
            top = max(0, (len(rows) - height) // 3)
            made.append(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(rows[top : top + height])).reformat(
                    format="yuv420p"
                )
            )
    return made


def write_clip(path: Path, size: tuple[int, int] = (640, 360)) -> Path:
    """Write the portrait as cameras send it: H.264, one keyframe a second, no B-frames."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 25
        stream.codec_context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "24"}
        for index, picture in enumerate(_pictures(*size)):
            picture.pts, picture.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def send(url: str, rate: float, size: str, clip: str) -> None:
    """Send until the process is killed; the body of the source's process."""
    width, height = map(int, size.split("x"))
    still = clip == "still"
    pictures = [picture.to_ndarray() for picture in _pictures(width, height, "portrait" if still else clip)]
    pictures = pictures[:1] if still else pictures
    output = av.open(url, "w", format="mpegts", container_options={"flush_packets": "1"})
    stream = output.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.gop_size, context.thread_count = round(rate), 1
    context.time_base = stream.time_base = Fraction(1, 90000)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "24"}
    began, index = time.monotonic(), 0
    while True:
        due = began + index / rate
        time.sleep(max(0.0, due - time.monotonic()))
        planes = pictures[index % len(pictures)].copy()
        if not still:
            time_strip.burn(planes[:height], now_ms())
        frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
        frame.pts, frame.time_base = round(index / rate * 90000), Fraction(1, 90000)
        for packet in stream.encode(frame):
            output.mux(packet)
        index += 1


class Client:
    """Reads pictures in a thread of its own until it is closed. `ages` holds (monotonic s, delay ms)."""

    def __init__(self, url: str) -> None:
        self.ages: list[tuple[float, int]] = []
        self.unreadable = 0
        self._closing = threading.Event()
        body = self._mjpeg if url.startswith("http") else self._container
        self._thread = threading.Thread(target=body, args=(url,))
        self._thread.start()

    def close(self) -> None:
        """Stop the reader."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def since(self, from_s: float, to_s: float) -> list[int]:
        """Delays in ms of the pictures that arrived in a period of time."""
        return [age for at, age in list(self.ages) if from_s <= at < to_s]

    def _add(self, luma: np.ndarray) -> None:
        age = age_ms(luma)
        if age is None:
            self.unreadable += 1
        else:
            self.ages.append((time.monotonic(), age))

    def _mjpeg(self, url: str) -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        while not self._closing.is_set():
            try:
                connection = http.client.HTTPConnection(host, timeout=2)
                connection.request("GET", f"/{path}")
                self._parts(connection.getresponse())
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)

    def _parts(self, response: http.client.HTTPResponse) -> None:
        decoder = av.CodecContext.create("mjpeg", "r")
        while not self._closing.is_set():
            length = 0
            while (line := response.readline()).strip() or not length:
                if not line:
                    return
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            for picture in decoder.decode(av.Packet(response.read(length))):
                self._add(picture.to_ndarray(format="gray"))

    def _container(self, url: str) -> None:
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay", "probesize": "200000",
                   "analyzeduration": "200000"}  # fmt: skip
        while not self._closing.is_set():
            try:
                with av.open(url, options=options, timeout=(5, 2)) as container:
                    container.streams.video[0].thread_type = "NONE"
                    for picture in container.decode(video=0):
                        self._add(picture.to_ndarray(format="gray"))
                        if self._closing.is_set():
                            return
            except av.FFmpegError:
                time.sleep(0.1)


def figures(delays: list[int], seconds: float) -> dict[str, float]:
    """Median and 95th percentile of delays, and frames a second."""
    if not delays:
        return {"median_ms": float("nan"), "p95_ms": float("nan"), "fps": 0.0}
    median, p95 = np.percentile(delays, [50, 95])
    return {"median_ms": float(median), "p95_ms": float(p95), "fps": len(delays) / seconds}


def process_figures(pid: int) -> dict[str, float]:
    """Resident memory, threads, open files and CPU time of a process and all its descendants."""
    totals = {"rss_mb": 0.0, "threads": 0, "files": 0, "cpu_s": 0.0, "processes": 0}
    for one in [pid, *_descendants(pid)]:
        try:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{one}/status").read_text().splitlines()
                if ":\t" in line
            )
            totals["rss_mb"] += int(status["VmRSS"].split()[0]) / 1024
            totals["threads"] += int(status["Threads"])
            totals["files"] += len(os.listdir(f"/proc/{one}/fd"))
            ticks = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13]
            totals["cpu_s"] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
            totals["processes"] += 1
        except (OSError, KeyError):
            continue  # the process has just ended
    return totals


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for task in tasks:
        try:
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            found += [child, *_descendants(child)]
    return found


if __name__ == "__main__":
    send(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
