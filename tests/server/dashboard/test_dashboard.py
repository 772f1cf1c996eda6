"""`gpen-stream serve` as a whole: cameras, live pictures, updates, recordings, files, metrics and its end."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import stat
import subprocess

import av
import cv2
import numpy as np
import pytest
from dashboard_client import Client, command_line, descendants, served
from prometheus_client.parser import text_string_to_metric_families
from waiting import LIMIT_S, until
from websockets.exceptions import InvalidStatus

from stream.server.dashboard.jobs import JobQueue

CAMERAS = """
server:
  token_file: {folder}/token
  data: {folder}/data
  files: {folder}/files
cameras:
  door:
    source: "test:"
    to: [door/]
    preset: fast
    set: {{source.rate: 5, record.segment_s: 2, source.size: 320x180}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "cameras.yaml").write_text(CAMERAS.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with served("--config", "cameras.yaml", "--port", "0", cwd=folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(server, folder):
    """A client of the server, whose camera is live."""
    client = Client(server.port(), (folder / "token").read_text().strip())
    until(lambda: client.get("/api/cameras/door").json["report"].get("state") == "live")
    return client


def picture(jpeg: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def report(client, name="door"):
    return client.get(f"/api/cameras/{name}").json["report"]


# --- cameras --------------------------------------------------------------------------------------


def test_health_needs_no_token_and_readiness_tells_when_cameras_are_restored(client):
    assert Client(client.port).get("/healthz").json == {"status": "ok"}
    assert Client(client.port).get("/api/cameras").status == 401
    until(lambda: client.get("/readyz").status == 200)
    assert client.get("/readyz").json == {"status": "ready"}


def test_a_camera_is_added_replaced_and_removed_while_others_run(client, folder):
    body = {"name": "yard", "source": "test:", "set": {"source.rate": 2}, "enabled": False}
    added = client.ask("POST", "/api/cameras", body)
    assert (added.status, added.json["name"], added.json["process"]) == (201, "yard", "disabled")
    assert client.ask("POST", "/api/cameras", body).status == 409
    settings = client.get("/api/cameras/yard").json["settings"]
    replaced = client.ask("PUT", "/api/cameras/yard", settings | {"priority": 9})
    assert (replaced.status, replaced.json["settings"]["priority"]) == (200, 9)
    assert "priority: 9" in (folder / "cameras.yaml").read_text()
    assert client.ask("DELETE", "/api/cameras/yard").status == 200
    assert client.get("/api/cameras/yard").status == 404
    assert [camera["name"] for camera in client.get("/api/cameras").json] == ["door"]
    assert client.ask("DELETE", "/api/cameras/yard").json == {"error": "'yard': there is no such camera"}


def test_the_file_keeps_what_it_said_of_the_server_whatever_the_command_line_says(client, folder):
    client.ask("POST", "/api/cameras/door/change", {"strength": 0.9})
    kept = (folder / "cameras.yaml").read_text()
    assert "port" not in kept and "strength: 0.9" in kept


def test_strength_interval_and_passing_change_while_it_runs_and_nonsense_is_refused(client):
    before = client.get("/api/cameras/door").json["pid"]
    changes = {"strength": 0.5, "interval": 4, "passing": True, "exclude": [[0, 0, 0.25, 1]]}
    assert client.ask("POST", "/api/cameras/door/change", changes).status == 200

    def applied():
        now = report(client)
        return (now["strength"], now["interval"], now["passing"]) == (0.5, 4, True)

    until(applied)
    client.ask("POST", "/api/cameras/door/change", {"passing": False, "exclude": []})
    until(lambda: not report(client)["passing"])
    assert client.get("/api/cameras/door").json["pid"] == before
    for wrong in ({"strength": 2}, {"interval": 0}, {"model": "/etc/passwd"}, {"preset": "x"}, {"a": 1},
                  {"include": [[0, 0, 2, 1]]}, {"strength": "NaN"}):  # fmt: skip
        answer = client.ask("POST", "/api/cameras/door/change", wrong)
        assert answer.status == 422 and list(answer.json) == ["error"], wrong


def test_a_source_is_tried_and_its_first_picture_shown_or_the_reason_why_not(client):
    good = client.ask("POST", "/api/test", {"source": "test:"}).json
    assert good["ok"] and picture(base64.b64decode(good["picture"])).shape[2] == 3
    bad = client.ask("POST", "/api/test", {"source": "rtsp://admin:hunter2@127.0.0.1:9/door"})
    assert bad.status == 200 and not bad.json["ok"] and bad.json["picture"] == ""
    assert bad.json["reason"] and "hunter2" not in bad.body.decode()


def test_what_is_there_to_choose_is_told(client):
    models = {model["name"]: model for model in client.get("/api/models").json}
    assert models["gpen-lite-256"]["installed"] and not models["gpen-bfr-512"]["installed"]
    assert "fast" in client.get("/api/presets").json
    machine = client.get("/api/server").json
    assert machine["cores"] >= 1 and machine["locked"] and machine["disk"]["free_bytes"] > 0
    assert machine["engine"] == report(client)["engine"]
    assert client.get("/api/cameras/door/history").status == 200


# --- live pictures and updates -----------------------------------------------------------------------


def test_a_socket_shows_the_original_above_the_restored_picture(client):
    with client.watch("/api/cameras/door/live?kind=pair") as socket:
        pair = picture(socket.recv(timeout=LIMIT_S))
        second = picture(socket.recv(timeout=LIMIT_S))
    with client.watch("/api/cameras/door/live?kind=restored") as socket:
        single = picture(socket.recv(timeout=LIMIT_S))
    height, width = single.shape[:2]
    assert pair.shape[0] * width == 2 * height * pair.shape[1]
    assert (pair != second).any()  # it moves


def test_a_camera_or_a_view_that_is_not_there_is_refused_before_the_socket_opens(client):
    for path in ("/api/cameras/nobody/live", "/api/cameras/door/live?kind=x"):
        with pytest.raises(InvalidStatus), client.watch(path):
            pass
    assert client.get("/api/cameras/nobody/stream.mjpeg").status == 404
    assert client.get("/api/cameras/door/stream.mjpeg?kind=x").status == 404


def test_pictures_come_as_mjpeg_and_one_by_one_too(client):
    connection, answer = client.open("GET", "/api/cameras/door/stream.mjpeg")
    assert answer.getheader("content-type").startswith("multipart/x-mixed-replace; boundary=")
    for _ in range(3):
        lines = [answer.readline().strip() for _ in range(4)]
        length = int(lines[2].partition(b": ")[2])
        assert picture(answer.read(length)).size
        answer.readline()
    connection.close()
    single = client.get("/api/cameras/door/snapshot.jpg")
    assert (single.status, single.headers["content-type"]) == (200, "image/jpeg")
    assert picture(single.body).size


def test_news_of_cameras_events_and_removals_come_as_they_happen(client):
    news = client.updates()
    kind, camera = next(news)
    assert (kind, camera["name"]) == ("camera", "door")
    body = {"name": "gone", "source": "rtsp://127.0.0.1:9/x", "set": {"source.retry_s": 0.1}}
    client.ask("POST", "/api/cameras", body)
    seen = set()
    for kind, data in news:
        seen.add((kind, data.get("name") or data.get("camera"), data.get("removed", False)))
        if ("event", "gone", False) in seen and client.get("/api/cameras/gone").status == 200:
            client.ask("DELETE", "/api/cameras/gone")
        if ("camera", "gone", True) in seen:
            break
    assert ("camera", "gone", False) in seen
    past = client.get("/api/events").json
    assert [event["id"] for event in past] == sorted(event["id"] for event in past)
    later = client.get(f"/api/events?since={past[-1]['id']}").json
    assert all(event["id"] > past[-1]["id"] for event in later)


def test_a_page_that_lost_its_line_is_told_the_events_that_it_missed(client):
    first = client.get("/api/events").json[0]["id"]
    connection, answer = client.open("GET", "/api/events/stream", **{"Last-Event-ID": str(first)})
    missed = until(lambda: client.get(f"/api/events?since={first}").json)[0]["id"]
    while not (line := answer.readline()).startswith(b"id: "):
        pass
    connection.close()
    assert int(line.partition(b": ")[2]) == missed
    for odd in ("\xb2", "9" * 30, "-1", "x"):
        connection, answer = client.open("GET", "/api/events/stream", **{"Last-Event-ID": odd})
        assert answer.status == 200
        connection.close()


# --- recordings and files -------------------------------------------------------------------------


def test_recordings_are_listed_played_in_ranges_and_downloaded(client, tmp_path):
    def finished():
        return [one for one in client.get("/api/cameras/door/segments").json if not one["open"]]

    one = until(finished)[0]
    path = f"/api/cameras/door/segments/{one['name']}"
    whole = client.get(path)
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    part = client.get(path, Range="bytes=4-7")
    assert (part.status, part.body) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{one['bytes']}"
    assert client.get(path, Range="bytes=-100").body == whole.body[-100:]
    assert client.get(path, Range=f"bytes={one['bytes']}-").status == 416
    download = client.get(f"{path}?download=1")
    assert download.headers["content-disposition"] == f'attachment; filename="{one["name"]}"'
    (tmp_path / "segment.mp4").write_bytes(download.body)
    with av.open(str(tmp_path / "segment.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 5


@pytest.fixture(scope="module")
def clip(folder, portrait):
    """The first second of the portrait."""
    path = folder / "clip.mp4"
    with av.open(str(portrait)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is None or packet.pts * packet.time_base >= 1:
                break
            packet.stream = copy
            target.mux(packet)
    return path


def restored(folder):
    """Files in the folder of results, those included that a job has left behind."""
    return [name for name in os.listdir(folder / "files" / "restored") if name != ".jobs.json"]


def job(client, job_id):
    return next((one for one in client.get("/api/jobs").json if one["id"] == job_id), None)


def test_a_file_is_uploaded_restored_with_progress_compared_downloaded_and_removed(
    client, server, clip, folder
):
    sent = client.upload(clip)
    assert (sent.status, sent.json["name"]) == (201, "clip.mp4")
    assert {"name": "clip.mp4", "bytes": clip.stat().st_size} in client.get("/api/files").json
    began = client.ask("POST", "/api/jobs", {"file": "clip.mp4", "preset": "fast", "strength": 0.8})
    assert (began.status, began.json["state"]) == (201, "queued")
    seen = []

    def done():
        now = job(client, began.json["id"])
        seen.append(now["progress"])
        assert now["state"] != "failed", (now["error"], server.output)
        return now["state"] == "done" and now

    ended = until(done)
    assert seen == sorted(seen) and ended["progress"] == 1.0 and ended["left_s"] == 0
    assert ended["frames"] == 25 and ended["frame_rate"] > 0 and ended["strength"] == 0.8
    path = f"/api/jobs/{ended['id']}"
    assert client.get(f"{path}/input").body == clip.read_bytes()
    output = client.get(f"{path}/output")
    assert client.get(f"{path}/output", Range="bytes=4-7").body == output.body[4:8] == b"ftyp"
    assert client.get(f"{path}/output?download=1").headers["content-disposition"].startswith("attachment")
    assert client.get(f"{path}/nothing").status == 404
    (folder / "restored.mp4").write_bytes(output.body)
    with av.open(str(clip)) as before, av.open(str(folder / "restored.mp4")) as after:
        assert len(list(after.decode(video=0))) == len(list(before.decode(video=0)))
    assert client.ask("DELETE", path).status == 200
    assert job(client, ended["id"]) is None
    assert restored(folder) == []  # as the page says
    assert (folder / "files" / "clip.mp4").exists()


def test_a_job_that_is_cancelled_leaves_nothing_and_the_next_one_runs(client, clip, folder, portrait):
    shutil.copy(portrait, folder / "files" / "long.mp4")
    client.upload(clip)
    long = client.ask("POST", "/api/jobs", {"file": "long.mp4", "preset": "fast"}).json["id"]
    short = client.ask("POST", "/api/jobs", {"file": "clip.mp4", "preset": "fast"}).json["id"]
    until(lambda: job(client, long)["progress"] > 0)
    assert job(client, short)["state"] == "queued"
    assert client.ask("DELETE", f"/api/jobs/{long}").status == 200
    assert job(client, long)["state"] == "cancelled"
    until(lambda: job(client, short)["state"] == "done")
    assert restored(folder) == ["clip.mp4"]
    for one in (long, short):
        client.ask("DELETE", f"/api/jobs/{one}")
    assert client.get(f"/api/jobs/{long}/output").status == 404


def test_a_file_that_is_broken_fails_in_one_line(client, folder):
    (folder / "files" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 500)
    broken = client.ask("POST", "/api/jobs", {"file": "broken.mp4"}).json["id"]
    ended = until(lambda: (now := job(client, broken))["state"] == "failed" and now)
    assert "broken.mp4" in ended["error"] and "\n" not in ended["error"]
    (folder / "files" / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    refused = client.ask("POST", "/api/jobs", {"file": "list.mp4"})
    assert (refused.status, "no video" in refused.json["error"]) == (422, True)


# --- metrics and secrets --------------------------------------------------------------------------


def test_results_are_known_after_a_restart_and_remains_of_a_killed_server_are_gone(tmp_path):
    results = tmp_path / "restored"
    (results / ".job-left").mkdir(parents=True)
    (results / ".job-left" / "a.mp4").touch()
    (tmp_path / ".upload-left").touch()
    facts = {"file": "a.mp4", "preset": "fast", "model": "m", "strength": 1.0, "state": "done"}
    kept = [facts | {"id": name, "result": result} for name, result in (("1", "a.mp4"), ("2", "../token"))]
    (results / ".jobs.json").write_text(json.dumps(kept))
    (results / "a.mp4").touch()
    (tmp_path / "token").touch()
    jobs = JobQueue(tmp_path)
    jobs.start()
    try:
        assert [one.id for one in jobs.all()] == ["1"]
        jobs.remove("1")
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".jobs.json", "restored", "token"]
    finally:
        jobs.stop()
    (results / ".jobs.json").write_text("{broken")
    again = JobQueue(tmp_path)
    again.start()
    again.stop()
    assert again.all() == []


def test_metrics_are_parsed_back_with_help_type_and_one_value_for_each_label(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    for name, family in families.items():
        assert name.startswith(("gpen_stream_", "process_"))
        assert family.documentation and family.type in ("gauge", "counter"), name
        keys = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(keys) == len(set(keys)), name

    def measured():
        """The values, once a rate has been measured."""
        found = text_string_to_metric_families(client.get("/metrics").body.decode())
        value = {(s.name, s.labels.get("camera")): s.value for family in found for s in family.samples}
        return value["gpen_stream_camera_fps_in", "door"] > 0 and value

    value = until(measured)
    assert value["gpen_stream_camera_up", "door"] == 1
    assert value["gpen_stream_camera_memory_bytes", "door"] > 2**20
    assert 0 < value["gpen_stream_camera_delay_seconds", "door"] < 60
    assert value["gpen_stream_sink_up", "door"] == 1
    assert value["gpen_stream_restorer_up", None] == 1
    assert value["process_resident_memory_bytes", None] > 2**20


def test_credentials_are_in_no_answer_news_metric_log_process_list_or_recording(client, server, folder):
    secrets = ("hunter2", "hunter3", "hunter4", "hunter5")
    body = {
        "name": "secret",
        "source": "rtsp://admin:hunter2@127.0.0.1:9/door?token=hunter3",
        "to": ["rtmp://user:hunter4@127.0.0.1:9/live/hunter5", "secret/"],
        "set": {"source.retry_s": 0.1},
    }
    said = [client.ask("POST", "/api/cameras", body).body]
    news = client.updates()
    until(lambda: any(e["camera"] == "secret" for e in client.get("/api/events").json))
    said += [repr(next(news)).encode() for _ in range(8)]
    processes = [command_line(pid) for pid in descendants(server.process.pid)]
    assert any("camera secret" in one for one in processes)
    said += [one.encode() for one in processes]
    said.append(subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout)
    shown = client.get("/api/cameras/secret").json["settings"]
    said.append(client.ask("PUT", "/api/cameras/secret", shown).body)
    said.append(client.ask("POST", "/api/test", {"source": shown["source"]}).body)
    said.append(client.ask("POST", "/api/cameras/secret/change", {"strength": 0.4}).body)
    for path in client.get("/openapi.json").json["paths"]:
        if "stream" not in path and "snapshot" not in path:
            said.append(client.get(path.replace("{name}", "secret").replace("{", "").replace("}", "")).body)
    kept = (folder / "cameras.yaml").read_text()
    client.ask("DELETE", "/api/cameras/secret")
    said.append(server.output.encode())
    said += [path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret in kept  # where they have to be
        assert not any(secret.encode() in text for text in said)


# --- start and end --------------------------------------------------------------------------------


def test_any_address_but_loopback_gets_a_token_whose_value_is_not_printed(tmp_path):
    with served("--host", "0.0.0.0", "--port", "0", "--data", "data", cwd=tmp_path) as server:
        port, path = server.port(), tmp_path / "data" / "token"
        token = path.read_text().strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert str(path) in server.output and token not in server.output
        assert Client(port).get("/api/cameras").status == 401
        assert Client(port, token).get("/api/cameras").json == []
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_terminal_that_closes_ends_the_server_and_leaves_no_process(tmp_path, number):
    (tmp_path / "cameras.yaml").write_text(CAMERAS.format(folder=tmp_path))
    with served("--config", "cameras.yaml", "--port", "0", cwd=tmp_path) as server:
        client = Client(server.port(), (tmp_path / "token").read_text().strip())
        until(lambda: report(client).get("sinks") and report(client)["sinks"][0]["delivered"] > 5)
        processes = descendants(server.process.pid)
        for pid in processes[1:]:  # a terminal sends its signals to every process
            os.kill(pid, number)
        assert server.stop(number=number) == 0
    assert not [command_line(pid) for pid in processes if "gpen-stream" in command_line(pid)]
    assert "Traceback" not in server.output and "was ended by" not in server.output, server.output
    segments = sorted((tmp_path / "data" / "door").glob("*.mp4"))
    assert segments
    for path in segments:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def test_what_cannot_be_served_ends_in_one_line(tmp_path, client, folder):
    (tmp_path / "token").write_text("a token that everybody can read")
    (tmp_path / "token").chmod(0o644)
    with served("--host", "0.0.0.0", "--port", "0", "--data", ".", cwd=tmp_path) as open_token:
        assert open_token.process.wait(LIMIT_S) == 2
    with served("--port", str(client.port), "--data", "data", cwd=tmp_path) as taken:
        assert taken.process.wait(LIMIT_S) == 1
    with served("--config", "cameras.yaml", "--port", "0", cwd=folder) as second:
        assert second.process.wait(LIMIT_S) == 2
    with served("--config", "nothing.yaml", cwd=tmp_path) as missing:
        assert missing.process.wait(LIMIT_S) == 2
    said = {open_token: "chmod 600", taken: "is it in use", second: "another gpen", missing: "nothing.yaml"}
    for server, word in said.items():
        assert server.output.startswith("error: ") and server.output.count("\n") == 1, server.output
        assert word in server.output


def test_a_signal_flushes_recordings_and_ends_everything(folder, tmp_path, portrait):
    (tmp_path / "cameras.yaml").write_text(CAMERAS.format(folder=tmp_path))
    (tmp_path / "files").mkdir()
    shutil.copy(portrait, tmp_path / "files" / "long.mp4")
    with served("--config", "cameras.yaml", "--port", "0", cwd=tmp_path) as server:
        client = Client(server.port(), (tmp_path / "token").read_text().strip())
        until(lambda: report(client).get("sinks") and report(client)["sinks"][0]["delivered"] > 5)
        begun = client.ask("POST", "/api/jobs", {"file": "long.mp4", "preset": "quality"}).json["id"]
        until(lambda: job(client, begun)["progress"] > 0)
        processes = descendants(server.process.pid)
        assert len(processes) > 4  # the camera and its sink, the restorer, the file
        news = client.updates()
        next(news)  # a page is open, and a live picture
        with client.watch("/api/cameras/door/live") as socket:
            socket.recv(timeout=LIMIT_S)
            assert server.stop() == 0
    assert not [command_line(pid) for pid in processes if "gpen-stream" in command_line(pid)]
    segments = sorted((tmp_path / "data" / "door").glob("*.mp4"))
    assert segments
    for path in segments:
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0
    assert restored(tmp_path) == []
    assert "Traceback" not in server.output, server.output
