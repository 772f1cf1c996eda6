"""Cameras under supervision: killed, frozen, crashing, changed, scheduled, watched and recorded."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import av
import pytest
from servers import Mount, rtsp_server
from waiting import LIMIT_S, until

from stream.errors import ConfigError, NotFoundError
from stream.live.session.live_settings import LiveSettings
from stream.live.status import ConnectionState
from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings, load_cameras
from stream.server.camera_lease import CameraLease
from stream.server.events import Events
from stream.server.supervisor.niceness import can_lower_niceness
from stream.server.supervisor.restart_policy import SupervisionLimits
from stream.server.supervisor.supervisor import Supervisor

LIMITS = SupervisionLimits(frozen_s=3600, retry_s=0.1, retry_most_s=0.2, breaker_crashes=3, breaker_s=3600)
SECRET = "rtsp://admin:hunter2@127.0.0.1:{port}/door"


SLOW = {"source.rate": 5.0}
"""Few frames per second: these tests are about processes, of which several run at a time."""


def pattern(set=SLOW, **settings):
    return CameraSettings(source="test:", set=set, **settings)


@pytest.fixture
def supervise(tmp_path):
    """Start a supervisor for cameras; it is stopped at the end of the test."""
    started = []

    def supervise(limits=LIMITS, **cameras) -> Supervisor:
        server = ServerSettings(data=str(tmp_path / "data"))
        supervisor = Supervisor(
            CamerasFile(server=server, cameras=cameras), tmp_path / "cameras.yaml", Events(), limits
        )
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield supervise
    for supervisor in started:
        supervisor.stop()


def live(supervisor, *names):
    """The statuses of cameras, once all of them report frames."""

    def all_of_them():
        found = [supervisor.camera(name) for name in names]
        return (
            all(one.report is not None and one.report.state is ConnectionState.LIVE for one in found)
            and found
        )

    return until(all_of_them)


def kinds(supervisor, camera):
    return [event.kind for event in supervisor.events.since(0) if event.camera == camera]


def crops(supervisor):
    """Crops restored so far, by camera."""
    report = supervisor.restorer().report
    return report.crops if report is not None else {}


def gone(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_camera_that_is_killed_starts_again_while_the_others_go_on(supervise, how):
    supervisor = supervise(door=pattern(), yard=pattern())
    door, yard = live(supervisor, "door", "yard")
    os.kill(door.pid, how)
    until(lambda: supervisor.camera("door").pid not in (0, door.pid))
    assert supervisor.camera("door").restarts == 1
    assert "camera_restarted" in kinds(supervisor, "door")
    live(supervisor, "door")
    after = supervisor.camera("yard")
    assert after.pid == yard.pid and after.restarts == 0
    assert after.report.uptime_s > yard.report.uptime_s


def test_restarts_leave_neither_threads_nor_files_behind(supervise):
    supervisor = supervise(replace(LIMITS, breaker_crashes=100), door=pattern())

    def held():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def restart(count):
        os.kill(live(supervisor, "door")[0].pid, signal.SIGKILL)
        until(lambda: supervisor.camera("door").restarts == count)
        live(supervisor, "door")

    restart(1)
    before = held()
    for count in range(2, 6):
        restart(count)
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


def test_a_camera_that_crashes_over_and_over_meets_the_breaker(supervise):
    supervisor = supervise(door=pattern(), yard=pattern())
    live(supervisor, "yard")

    def crash():
        state = supervisor.camera("door")
        if state.pid:
            os.kill(state.pid, signal.SIGKILL)
        return state.process == "broken"

    until(crash)
    state = supervisor.camera("door")
    assert state.words.startswith("stopped after 3 crashes, next try in ")
    assert "SIGKILL" in state.words and state.restarts == 3
    assert supervisor.camera("yard").process == "running"
    supervisor.replace("door", pattern(priority=7))  # an operator has mended it
    live(supervisor, "door")


def test_a_camera_that_freezes_is_killed_and_starts_again(supervise):
    supervisor = supervise(replace(LIMITS, frozen_s=10), door=pattern())
    (door,) = live(supervisor, "door")
    os.kill(door.pid, signal.SIGSTOP)
    until(lambda: supervisor.camera("door").restarts == 1)
    assert gone(door.pid)
    live(supervisor, "door")
    words = [event.text for event in supervisor.events.since(0) if event.kind == "camera_restarted"]
    assert "no sign of life" in words[0]


def test_cameras_are_added_replaced_and_removed_while_others_run(supervise, tmp_path):
    supervisor = supervise(yard=pattern())
    (yard,) = live(supervisor, "yard")
    supervisor.add("door", pattern(to=("rec/",)))
    with pytest.raises(ConfigError, match=r"cameras\.door: there is such a camera"):
        supervisor.add("door", pattern(to=("rec/",)))
    with pytest.raises(ConfigError, match=r"cameras\.attic\.to: rec/ is camera door's"):
        supervisor.add("attic", pattern(to=("rec/",)))
    (door,) = live(supervisor, "door")
    assert set(load_cameras(tmp_path / "cameras.yaml").cameras) == {"yard", "door"}

    supervisor.replace("door", pattern(preset="fast"))
    until(lambda: supervisor.camera("door").pid not in (0, door.pid))
    (door,) = live(supervisor, "door")
    assert door.report.settings.preset == "fast" and door.restarts == 0

    supervisor.remove("door")
    assert gone(door.pid)
    with pytest.raises(NotFoundError, match="'door': there is no such camera"):
        supervisor.camera("door")
    assert set(load_cameras(tmp_path / "cameras.yaml").cameras) == {"yard"}
    assert supervisor.camera("yard").pid == yard.pid


def test_a_setting_changes_while_it_runs_and_is_kept(supervise, tmp_path):
    supervisor = supervise(door=pattern())
    (door,) = live(supervisor, "door")
    supervisor.change("door", LiveSettings(strength=0.25))
    until(lambda: supervisor.camera("door").report.settings.strength == 0.25)
    assert supervisor.camera("door").pid == door.pid
    assert load_cameras(tmp_path / "cameras.yaml").cameras["door"].set == SLOW | {"restore.strength": 0.25}
    os.kill(door.pid, signal.SIGKILL)
    until(lambda: supervisor.camera("door").pid not in (0, door.pid))
    live(supervisor, "door")
    assert supervisor.camera("door").report.settings.strength == 0.25


def test_a_change_that_is_wrong_is_refused_and_changes_nothing(supervise):
    supervisor = supervise(door=pattern())
    live(supervisor, "door")
    with pytest.raises(ConfigError, match="fastest"):
        supervisor.change("door", LiveSettings(strength=0.5, preset="fastest"))
    assert supervisor.camera("door").settings.set == SLOW


def test_a_schedule_starts_and_ends_a_camera(supervise):
    tomorrow = f"{datetime.now() + timedelta(days=2):%a} 09:00-17:00".lower()
    supervisor = supervise(door=pattern(schedule=(tomorrow,)))
    until(lambda: supervisor.camera("door").process == "paused")
    assert supervisor.camera("door").words.startswith("paused by its schedule until ")
    supervisor.replace("door", pattern(schedule=("00:00-24:00",)))
    live(supervisor, "door")
    supervisor.replace("door", pattern(enabled=False))
    until(lambda: supervisor.camera("door").process == "disabled")
    assert supervisor.camera("door").pid == 0


def test_at_the_end_everything_is_flushed_and_ended(supervise):
    supervisor = supervise(door=pattern(to=("door/",)), yard=pattern())
    pids = [one.pid for one in live(supervisor, "door", "yard")]
    until(lambda: supervisor.segments("door"))
    supervisor.stop(timeout_s=LIMIT_S)  # a camera that did not end by itself would run into the test's limit
    assert all(map(gone, pids))
    (segment,) = supervisor.segments("door")
    with av.open(str(supervisor.segment_path("door", segment.name))) as video:
        assert sum(1 for _ in video.decode(video=0)) > 0


def test_a_frozen_camera_does_not_keep_the_server_from_ending(supervise):
    supervisor = supervise(door=pattern())
    (door,) = live(supervisor, "door")
    os.kill(door.pid, signal.SIGSTOP)
    supervisor.stop(timeout_s=3)  # would wait for ever if the process were not killed
    assert gone(door.pid)


SERVER = """
import sys, threading
from pathlib import Path
from stream.server.camera_config import load_cameras
from stream.server.events import Events
from stream.live.status import ConnectionState
from stream.server.supervisor.supervisor import Supervisor
if __name__ == "__main__":
    path = Path(sys.argv[1])
    supervisor = Supervisor(load_cameras(path), path, Events())
    supervisor.start()
    while (report := supervisor.camera("door").report) is None or report.state is not ConnectionState.LIVE:
        threading.Event().wait(0.1)
    print(supervisor.camera("door").pid, flush=True)
    threading.Event().wait()
"""


def test_cameras_end_by_themselves_when_the_server_is_killed(tmp_path):
    script, path = tmp_path / "server.py", tmp_path / "cameras.yaml"
    script.write_text(SERVER)
    path.write_text(f"server: {{data: {tmp_path}/data}}\ncameras: {{door: {{source: 'test:'}}}}\n")
    with subprocess.Popen([sys.executable, script, path], stdout=subprocess.PIPE, text=True) as server:
        try:
            pid = int(server.stdout.readline())
        finally:
            server.kill()
    until(lambda: gone(pid), 60)


LEASED = """
import sys, threading, time
from pathlib import Path
from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings
from stream.server.camera_lease import CameraLease
from stream.server.events import Events
from stream.live.status import ConnectionState
from stream.server.supervisor.supervisor import Supervisor
if __name__ == "__main__":
    supervisor = Supervisor(CamerasFile(server=ServerSettings(data=sys.argv[1])), None, Events())
    supervisor.start()
    supervisor.add("door", CameraSettings(source="test:"), lease=CameraLease(7, time.monotonic() + 100))
    while (report := supervisor.camera("door").report) is None or report.state is not ConnectionState.LIVE:
        threading.Event().wait(0.1)
    supervisor.extend_leases(["door"], time.monotonic() + 3)
    print(supervisor.camera("door").pid, flush=True)
    threading.Event().wait()
"""


def test_a_camera_ends_with_its_lease_while_its_supervisor_hangs(tmp_path):
    script = tmp_path / "server.py"
    script.write_text(LEASED)
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True) as server:
        try:
            pid = int(server.stdout.readline())
            server.send_signal(signal.SIGSTOP)
            until(lambda: gone(pid))
            assert server.poll() is None
        finally:
            server.kill()


def test_a_camera_runs_as_long_as_its_lease_is_extended_and_again_under_the_next(supervise):
    supervisor = supervise()
    lease = CameraLease(7, time.monotonic() + 100)
    supervisor.add("door", pattern(to=("door/",)), lease=lease)
    (door,) = live(supervisor, "door")
    (recording,) = until(lambda: supervisor.segments("door"))
    assert recording.name.endswith("Z-L7.mp4")
    supervisor.extend_leases(["door"], time.monotonic() + 0.5)
    until(lambda: supervisor.camera("door").process == "waiting")
    assert gone(door.pid) and supervisor.camera("door").restarts == 0
    with av.open(str(supervisor.segment_path("door", recording.name))) as video:
        assert sum(1 for _ in video.decode(video=0)) > 0
    supervisor.extend_leases(["door"], time.monotonic() + 100)
    live(supervisor, "door")


def test_a_viewer_gets_the_newest_picture_and_a_slow_one_only_skips(supervise):
    supervisor = supervise(door=pattern())
    live(supervisor, "door")
    with supervisor.watch("door", "restored") as quick, supervisor.watch("door", "restored") as slow:
        first = quick.next(30)
        assert first.data[:2] == b"\xff\xd8"
        for _ in range(10):
            newest = quick.next(30)
        skipped = slow.next(30)
        assert skipped.pts >= newest.pts > first.pts
    with supervisor.watch("door", "pair") as viewer:
        assert viewer.next(30).data[:2] == b"\xff\xd8"
    with pytest.raises(ConfigError, match="no preview"), supervisor.watch("door", "x-ray"):
        pass
    with supervisor.watch("door", "pair") as viewer:
        remover = threading.Thread(target=supervisor.remove, args=("door",))
        remover.start()
        until(lambda: viewer.closed and viewer.next(0.1) is None)
        remover.join()


def test_history_has_a_point_every_ten_seconds(supervise):
    supervisor = supervise(door=pattern())
    live(supervisor, "door")
    point = until(lambda: next((p for p in supervisor.history("door") if p.fps), None))
    assert point.at and point.delay_ms and point.p95_ms and point.load is not None


def test_recordings_are_listed_and_nothing_else_is_reached(supervise, tmp_path):
    supervisor = supervise(door=pattern(to=("door/",)))
    live(supervisor, "door")
    (segment,) = until(lambda: supervisor.segments("door"))
    assert segment.open and segment.name.endswith("Z.mp4")
    path = supervisor.segment_path("door", segment.name)
    assert path == tmp_path / "data" / "door" / segment.name
    (tmp_path / "2026-01-01T00-00-00Z.mp4").write_bytes(b"secret")
    (path.parent / "2026-01-02T00-00-00Z.mp4").symlink_to(tmp_path / "2026-01-01T00-00-00Z.mp4")
    for wrong in (
        "../2026-01-01T00-00-00Z.mp4",
        "2026-01-02T00-00-00Z.mp4",
        str(tmp_path / "2026-01-01T00-00-00Z.mp4"),
        "..",
        "",
        f"{segment.name}\0",
        "2026-01-03T00-00-00Z.mp4",
    ):
        with pytest.raises(NotFoundError, match="has no such recording"):
            supervisor.segment_path("door", wrong)


def test_a_good_source_is_tried_and_shows_its_first_picture(supervise, portrait):
    supervisor = supervise()
    for source in ("test:", str(portrait)):
        result = supervisor.test_source(source)
        assert result.ok, result.reason
        assert result.jpeg[:2] == b"\xff\xd8" and result.facts


@contextmanager
def silent_port():
    """A port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_refused_a_silent_and_a_wrong_source_say_why_without_credentials(supervise):
    supervisor = supervise()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with silent_port() as silent:
        for source in (SECRET.format(port=free), SECRET.format(port=silent), "gopher://u:hunter2@h/"):
            result = supervisor.test_source(source)
            assert not result.ok and result.jpeg is None
            assert result.reason and "\n" not in result.reason and "hunter2" not in result.reason


def test_no_credentials_are_shown_and_an_edit_of_what_is_shown_keeps_them(supervise, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = SECRET.format(port=server.getsockname()[1])
    supervisor = supervise(door=CameraSettings(source=source, to=("rtmp://u:hunter2@127.0.0.1:1/app/x",)))
    until(lambda: supervisor.camera("door").report)
    shown = supervisor.camera("door")
    told = [one.to_json() for one in (*supervisor.cameras(), *supervisor.events.since(0))]
    assert "hunter2" not in json.dumps(told) and "rtsp://***@127.0.0.1" in json.dumps(told)
    child = Path(f"/proc/{shown.pid}/cmdline").read_bytes()
    assert b"hunter2" not in child and b"gpen-stream: camera door" in child
    edited = CameraSettings(source=shown.settings.source, to=shown.settings.to, priority=9)
    supervisor.replace("door", edited)
    kept = load_cameras(tmp_path / "cameras.yaml").cameras["door"]
    assert kept.source == source and kept.to == ("rtmp://u:hunter2@127.0.0.1:1/app/x",) and kept.priority == 9


def test_one_restorer_serves_all_cameras_and_its_death_harms_none(supervise):
    always = SLOW | {"restore.skip_sharp": 1.0, "latency.give_way": False, "latency.budget_ms": 10000.0}
    supervisor = supervise(door=pattern(always), yard=pattern(always, priority=9))
    before = live(supervisor, "door", "yard")
    until(lambda: set(crops(supervisor)) == {"door", "yard"})
    restorer = supervisor.restorer()
    os.kill(restorer.pid, signal.SIGKILL)
    until(lambda: supervisor.restorer().pid not in (0, restorer.pid))
    until(lambda: set(crops(supervisor)) == {"door", "yard"})
    assert [one.pid for one in supervisor.cameras()] == [one.pid for one in before]
    assert "restorer_restarted" in kinds(supervisor, "")
    assert supervisor.restorer().restarts == 1


def of_threads(pid, value_of):
    """The values of all threads of a process, without those that have just ended."""
    values = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            values.add(value_of(int(task.name)))
    return values


def niceness(pid):
    return of_threads(pid, lambda task: os.getpriority(os.PRIO_PROCESS, task))


def policies(pid):
    """Scheduling policies of a process's threads."""
    return of_threads(pid, os.sched_getscheduler)


def test_a_camera_gives_way_while_it_starts_and_no_longer(supervise):
    supervisor = supervise(door=pattern())
    starting = until(lambda: (one := supervisor.camera("door")).process == "starting" and one)
    if can_lower_niceness():
        assert starting.nice == 10
    (door,) = live(supervisor, "door")
    assert door.nice == 0
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    until(lambda: niceness(door.pid) == {usual})
    assert policies(door.pid) == {os.SCHED_OTHER}


def test_a_camera_that_floods_gives_way_and_its_neighbour_does_not(supervise, portrait):
    with rtsp_server({"fast": Mount(file=str(portrait), speed=4)}) as server:
        supervisor = supervise(flood=CameraSettings(source=server.url("fast")), yard=pattern())
        (flood,) = until(lambda: (one := supervisor.camera("flood")).nice == 15 and [one])
        assert "announces" in flood.words
        assert max(niceness(flood.pid)) >= os.getpriority(os.PRIO_PROCESS, 0) + 15
        until(lambda: policies(flood.pid) == {os.SCHED_IDLE})
        (yard,) = live(supervisor, "yard")
        assert yard.nice == 0 and policies(yard.pid) == {os.SCHED_OTHER}


def test_without_the_right_to_come_back_nobody_gives_way_at_first():
    code = (
        "import os, resource; from stream.server.supervisor.niceness import can_lower_niceness;"
        "resource.setrlimit(resource.RLIMIT_NICE, (0, 0)); os.geteuid() or os.setuid(65534);"
        "print(can_lower_niceness())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S)
    assert result.stdout == "False\n", result.stderr
