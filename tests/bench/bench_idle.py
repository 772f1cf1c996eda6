"""CPU time of a camera without motion beyond decoding.

    python -m tests.bench.bench_idle [--seconds 60] [--json FILE]

An RTSP server plays a still 640x360 picture with a little noise at 25 fps. Three processes read it at the
same time: decoding by PyAV alone, the capture alone, and a session that records one frame a second because
its motion gate is closed. The figure is the CPU time of each for a frame, including its sinks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stream.lab.bench.report import Row, Table
from stream.pipeline.processes import ChildProcess
from tests.bench.bench_live import session_body
from tests.bench.live_tools import SAMPLES, add_json_option, process_figures, write_json
from tests.servers import rtsp_server

SETTLE_S = 20.0


def make_still(path: Path) -> None:
    """Write ten seconds of one picture with sensor noise of one level."""
    with av.open(str(SAMPLES / "portrait.mp4")) as container:
        first = next(container.decode(video=0)).reformat(width=640, height=360, format="yuv420p").to_ndarray()
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.options = 25, {"crf": "23", "bf": "0"}
        for index in range(250):
            planes = np.clip(first + noise.normal(0, 1, first.shape), 16, 235).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def decode_body(link, url: str) -> None:
    """Body of a process that only decodes, until the link closes."""
    with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(10, 10)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        for number, _ in enumerate(container.decode(stream)):
            if link.poll(0):
                try:
                    link.recv()
                except EOFError:
                    return
                link.send(number)


def capture_body(link, url: str) -> None:
    """Body of a process that only captures, until the link closes."""
    from stream.config_live import SourceSettings
    from stream.live.source.address import parse_address
    from stream.live.source.capture import Capture

    capture = Capture(parse_address(url), SourceSettings(), decoder_threads=1, hardware=False)
    for number, _ in enumerate(capture.frames()):
        if link.poll(0):
            try:
                link.recv()
            except EOFError:
                capture.stop()
                continue
            link.send(number)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_still(Path(name) / "still.mp4")
        with rtsp_server(Path(name) / "still.mp4") as server:
            url = server.url("live")
            settings = ["motion.gate=true", "motion.hold_s=2.0", "decode.threads=1", "encode.threads=1"]
            jobs = {
                "decoding": ChildProcess("decoding", decode_body, url),
                "capture": ChildProcess("capture", capture_body, url),
                "idle camera": ChildProcess("idle", session_body, url, [f"{name}/rec/"], "fast", settings),
            }
            Path(name, "rec").mkdir(exist_ok=True)
            time.sleep(SETTLE_S)
            before = {key: process_figures(job.pid)["cpu_s"] for key, job in jobs.items()}
            time.sleep(arguments.seconds)
            cost = {}
            for key, job in jobs.items():
                cost[key] = (process_figures(job.pid)["cpu_s"] - before[key]) / (25 * arguments.seconds) * 1e3
            jobs["idle camera"].link.send(("report", None))
            report = jobs["idle camera"].link.recv()
            for job in jobs.values():
                job.link.close()
            for job in jobs.values():
                job.end(10)
    for key, value in cost.items():
        print(f"{key}: {value:.2f} ms of CPU a frame, {value - cost['decoding']:+.2f} beyond decoding alone")
    rows: list[Row] = [{"figure": key, "ms": value} for key, value in cost.items()]
    columns = {"figure": "process", "ms": "ms of a core a frame"}
    title = "A camera without motion, its gate closed"
    write_json(arguments.json, "idle", [Table("idle", title, columns, rows)])
    print(f"idle: {report['idle']}, {report['fps_in']} fps in, {report['fps_out']} out, {report['drops']}")


if __name__ == "__main__":
    main()
