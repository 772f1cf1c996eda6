"""Metrics for Prometheus; `docs/operators.md` has alerts on these names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from stream import __version__
from stream.live.status import ConnectionState
from stream.server.dashboard.job_status import JOB_STATES

if TYPE_CHECKING:
    from stream.live.session.session_report import SessionReport
    from stream.server.dashboard.jobs import JobQueue
    from stream.server.supervisor.camera_host import CameraHost
    from stream.server.supervisor.camera_status import CameraStatus, NodeStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Reading = Callable[["SessionReport"], float]
_Value = Callable[["CameraStatus"], float | None]
_GAUGES: dict[str, tuple[str, _Reading]] = {
    "fps_in": ("Frames per second from the source", lambda report: report.fps_in),
    "fps_out": ("Frames per second that are delivered", lambda report: report.fps_out),
    "faces": ("Faces in the newest picture", lambda report: report.faces),
    "load": ("Share of its time for which the busiest stage works, up to 1", lambda report: report.load),
    "cpu_cores": ("CPU cores in use", lambda report: report.cpu_cores),
    "degradation_level": (
        "How far restoration is reduced to keep up; 0: not at all", lambda report: report.level
    ),
    "memory_bytes": ("Resident memory of the camera's process", lambda report: report.memory_mb * 2**20),
    "uptime_seconds": ("Time since the camera's session began", lambda report: report.uptime_s),
}  # fmt: skip
"""Help text of each metric by its name, and the function that reads its value from a report."""
_COUNTERS: dict[str, tuple[str, _Reading]] = {
    "faces_restored": ("Faces restored by the network", lambda report: report.faces_restored),
    "faces_carried": (
        "Faces propagated from restored ones by optical flow",
        lambda report: report.faces_carried,
    ),
    "corrupt_packets": ("Damaged packets", lambda report: report.corrupt_packets),
    "connections": ("Connections to the source", lambda report: report.connections),
}


def exposition(supervisor: CameraHost, jobs: JobQueue, failures: int) -> bytes:
    """All metrics in Prometheus' text format. `failures` is the number of wrong tokens so far."""
    registry = CollectorRegistry()
    registry.register(_CameraCollector(supervisor))
    registry.register(_JobCollector(jobs, failures))
    ProcessCollector(registry=registry)  # process_*: metrics of the server itself
    return generate_latest(registry)


class _CameraCollector:
    def __init__(self, supervisor: CameraHost) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all cameras, their sinks and the machine."""
        cameras = self._supervisor.cameras()
        build = GaugeMetricFamily("gpen_stream_build", "Always 1", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge("up", "1: the source delivers pictures", cameras, _is_up)
        meant = "1: the camera is to run: it is enabled, and within its schedule"
        yield _gauge("enabled", meant, cameras, lambda one: float(one.process not in ("paused", "disabled")))
        for name, (text, reading) in _GAUGES.items():
            yield _gauge(name, text, cameras, _of_report(reading))
        delay = GaugeMetricFamily(
            "gpen_stream_camera_delay_seconds",
            "From a packet's arrival to its delivery",
            labels=["camera", "quantile"],
        )
        running = [(camera.name, camera.report) for camera in cameras if camera.report is not None]
        for name, report in running:
            for quantile, value_ms in (("0.5", report.delay["median_ms"]), ("0.95", report.delay["p95_ms"])):
                if value_ms is not None:
                    delay.add_metric([name, quantile], value_ms * 1e-3)
        yield delay
        for name, (text, reading) in _COUNTERS.items():
            yield _counter(name, text, cameras, _of_report(reading))
        yield _counter(
            "process_restarts", "Restarts of the camera's process", cameras, lambda one: one.restarts
        )
        drops = CounterMetricFamily(
            "gpen_stream_camera_drops", "Frames not delivered", labels=["camera", "cause"]
        )
        for name, report in running:
            for cause, count in report.drops.items():
                drops.add_metric([name, cause], count)
        yield drops
        yield from _sinks(running)
        yield from self._machine()
        if nodes := self._supervisor.nodes():
            yield from _nodes(nodes, cameras)

    def _machine(self) -> Iterator[Metric]:
        folder = self._supervisor.server.data_folder
        free = GaugeMetricFamily("gpen_stream_disk_free_bytes", "Free space in the data folder")
        free.add_metric([], shutil.disk_usage(folder if folder.exists() else "/").free)
        yield free
        restorer = self._supervisor.restorer()
        report = restorer.report if restorer is not None else None
        up = GaugeMetricFamily("gpen_stream_restorer_up", "1: the restorer of all cameras runs")
        up.add_metric([], float(restorer is not None and restorer.pid != 0))
        yield up
        load = GaugeMetricFamily(
            "gpen_stream_restorer_load", "Share of the time for which its network computes"
        )
        load.add_metric([], report.load if report is not None else 0.0)
        yield load
        crops = CounterMetricFamily("gpen_stream_restorer_crops", "Crops restored", labels=["camera"])
        for camera, count in report.crops.items() if report is not None else ():
            crops.add_metric([camera], count)
        yield crops


class _JobCollector:
    def __init__(self, jobs: JobQueue, failures: int) -> None:
        self._jobs, self._failures = jobs, failures

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of jobs and log-ins."""
        states = Counter(job.state for job in self._jobs.all())
        family = GaugeMetricFamily("gpen_stream_jobs", "Jobs by state", labels=["state"])
        for state in JOB_STATES:
            family.add_metric([state], states[state])
        yield family
        yield CounterMetricFamily("gpen_stream_failed_logins", "Wrong tokens", value=self._failures)


def _sinks(running: list[tuple[str, SessionReport]]) -> Iterator[Metric]:
    labels = ["camera", "sink", "kind"]
    up = GaugeMetricFamily("gpen_stream_sink_up", "1: the sink delivers pictures", labels=labels)
    dropped = CounterMetricFamily(
        "gpen_stream_sink_drops", "Frames that the sink was too slow for", labels=labels
    )
    for name, report in running:
        for sink in report.sinks:
            names = [name, sink["name"], sink["kind"]]
            up.add_metric(names, float(sink["state"] == "live"))
            dropped.add_metric(names, sink["dropped"])
    yield up
    yield dropped


def _nodes(nodes: list[NodeStatus], cameras: list[CameraStatus]) -> Iterator[Metric]:
    readings: dict[str, tuple[str, Callable[[NodeStatus], float]]] = {
        "up": ("1: the node renews its leases", lambda node: float(node.state == "up")),
        "cores": ("Cores for cameras", lambda node: node.cores),
        "used_cores": ("Cores that its cameras need", lambda node: node.used),
        "cameras": ("Cameras that it runs", lambda node: len(node.cameras)),
        "silence_seconds": ("Time since it was last heard of", lambda node: node.silence_s),
    }
    for name, (text, reading) in readings.items():
        family = GaugeMetricFamily(f"gpen_stream_node_{name}", text, labels=["node"])
        for node in nodes:
            family.add_metric([node.name], reading(node))
        yield family
    places = GaugeMetricFamily("gpen_stream_camera_node", "1: it runs there", labels=["camera", "node"])
    for camera in cameras:
        if camera.node:
            places.add_metric([camera.name, camera.node], 1)
    yield places


def _is_up(camera: CameraStatus) -> float:
    return float(camera.report is not None and camera.report.state is ConnectionState.LIVE)


def _of_report(reading: _Reading) -> _Value:
    return lambda camera: reading(camera.report) if camera.report is not None else None


def _gauge(name: str, text: str, cameras: list[CameraStatus], value_of: _Value) -> Metric:
    family = GaugeMetricFamily(f"gpen_stream_camera_{name}", text, labels=["camera"])
    return _filled(family, cameras, value_of)


def _counter(name: str, text: str, cameras: list[CameraStatus], value_of: _Value) -> Metric:
    family = CounterMetricFamily(f"gpen_stream_camera_{name}", text, labels=["camera"])
    return _filled(family, cameras, value_of)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, cameras: list[CameraStatus], value_of: _Value
) -> Metric:
    for camera in cameras:
        if (value := value_of(camera)) is not None:
            family.add_metric([camera.name], value)
    return family
