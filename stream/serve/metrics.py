"""What Prometheus is told; `docs/operators.md` has alerts on these names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from stream import __version__
from stream.serve.jobs import STATES

if TYPE_CHECKING:
    from stream.serve.jobs import Jobs
    from stream.supervisor import Supervisor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES = {
    "fps_in": ("fps_in", "Frames a second that come from the source", 1),
    "fps_out": ("fps_out", "Frames a second that go out", 1),
    "faces": ("faces", "Faces in the newest picture", 1),
    "load": ("load", "Busy part of the time budget, 1: no more can be done", 1),
    "cpu_cores": ("cpu_cores", "CPU cores in use", 1),
    "degradation_level": ("level", "How far restoration has given way to keep up; 0: not at all", 1),
    "memory_bytes": ("memory_mb", "Resident memory of the camera's process", 2**20),
    "uptime_seconds": ("uptime_s", "Since the camera's session began", 1),
}
"""By metric: the report's key, what it is, and the factor to the metric's unit."""
_COUNTERS = {
    "faces_restored": ("faces_restored", "Faces that went through the network"),
    "faces_carried": ("faces_carried", "Faces carried from restored ones"),
    "corrupt_packets": ("corrupt_packets", "Packets that were damaged"),
    "connections": ("connections", "Connections to the source"),
}


def exposition(supervisor: Supervisor, jobs: Jobs, failures: int) -> bytes:
    """The metrics in Prometheus's text format; `failures` counts wrong tokens."""
    registry = CollectorRegistry()
    registry.register(_Cameras(supervisor))
    registry.register(_Dashboard(jobs, failures))
    ProcessCollector(registry=registry)  # process_*: of the server itself
    return generate_latest(registry)


class _Cameras:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        cameras = self._supervisor.cameras()
        build = GaugeMetricFamily("gpen_stream_build", "Always 1", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("up", "1: pictures come in", cameras, lambda c: float(_report(c).get("state") == "live"))
        meant = "1: it is meant to run: switched on, and within its schedule"
        yield _gauge("enabled", meant, cameras, lambda c: float(c["process"] not in ("paused", "disabled")))
        for name, (key, text, factor) in _GAUGES.items():
            yield _gauge(name, text, cameras, lambda c, k=key, f=factor: _number(_report(c).get(k), f))
        delay = GaugeMetricFamily(
            "gpen_stream_camera_delay_seconds",
            "From a packet's arrival to its delivery",
            labels=["camera", "quantile"],
        )
        for camera in cameras:
            for quantile, key in (("0.5", "median_ms"), ("0.95", "p95_ms")):
                value = _number((_report(camera).get("delay") or {}).get(key), 1e-3)
                if value is not None:
                    delay.add_metric([camera["name"], quantile], value)
        yield delay
        for name, (key, text) in _COUNTERS.items():
            yield _counter(name, text, cameras, lambda c, k=key: _number(_report(c).get(k)))
        yield _counter(
            "process_restarts", "Restarts of the camera's process", cameras, lambda c: c.get("restarts")
        )
        drops = CounterMetricFamily(
            "gpen_stream_camera_drops", "Frames not delivered", labels=["camera", "cause"]
        )
        for camera in cameras:
            for cause, count in (_report(camera).get("drops") or {}).items():
                drops.add_metric([camera["name"], cause], count)
        yield drops
        yield from _sinks(cameras)
        yield from self._machine()

    def _machine(self) -> Iterator[Metric]:
        folder = self._supervisor.server.data_folder
        free = GaugeMetricFamily("gpen_stream_disk_free_bytes", "Free where recordings lie")
        free.add_metric([], shutil.disk_usage(folder if folder.exists() else "/").free)
        yield free
        report = self._supervisor.restorer()
        up = GaugeMetricFamily("gpen_stream_restorer_up", "1: the restorer of all cameras runs")
        up.add_metric([], float(bool(report.get("pid"))))
        yield up
        load = GaugeMetricFamily("gpen_stream_restorer_load", "Part of the time that its network runs")
        load.add_metric([], float(report.get("load") or 0.0))
        yield load
        crops = CounterMetricFamily("gpen_stream_restorer_crops", "Crops restored", labels=["camera"])
        for camera, count in (report.get("crops") or {}).items():
            crops.add_metric([camera], count)
        yield crops


class _Dashboard:
    def __init__(self, jobs: Jobs, failures: int) -> None:
        self._jobs, self._failures = jobs, failures

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        states = Counter(job["state"] for job in self._jobs.all())
        family = GaugeMetricFamily("gpen_stream_jobs", "Files by how far they are", labels=["state"])
        for state in STATES:
            family.add_metric([state], states[state])
        yield family
        yield CounterMetricFamily("gpen_stream_failed_logins", "Wrong tokens", value=self._failures)


def _sinks(cameras: list[dict[str, Any]]) -> Iterator[Metric]:
    labels = ["camera", "sink", "kind"]
    up = GaugeMetricFamily("gpen_stream_sink_up", "1: it takes pictures", labels=labels)
    dropped = CounterMetricFamily(
        "gpen_stream_sink_drops", "Frames that it did not take in time", labels=labels
    )
    for camera in cameras:
        for sink in _report(camera).get("sinks") or ():
            names = [camera["name"], sink["name"], sink["kind"]]
            up.add_metric(names, float(sink["state"] == "live"))
            dropped.add_metric(names, sink["dropped"])
    yield up
    yield dropped


def _report(camera: dict[str, Any]) -> dict[str, Any]:
    return camera.get("report") or {}


def _number(value: Any, factor: float = 1) -> float | None:
    return None if value is None else float(value) * factor


def _gauge(name: str, text: str, cameras: list, value_of: Any) -> Metric:
    return _filled(
        GaugeMetricFamily(f"gpen_stream_camera_{name}", text, labels=["camera"]), cameras, value_of
    )


def _counter(name: str, text: str, cameras: list, value_of: Any) -> Metric:
    return _filled(
        CounterMetricFamily(f"gpen_stream_camera_{name}", text, labels=["camera"]), cameras, value_of
    )


def _filled(family: Any, cameras: list, value_of: Any) -> Metric:
    for camera in cameras:
        if (value := value_of(camera)) is not None:
            family.add_metric([camera["name"]], value)
    return family
