"""The queue of files: it survives the server, continues, is put in order, and runs several at once."""

from __future__ import annotations

import json
import logging
import shutil
from urllib.parse import urlsplit

import pytest
from conftest import SAMPLES
from dashboard import StalledQueue, dashboard
from dashboard_client import Client, descendants, served
from films import film, packets_sha256
from waiting import until

from stream.config import load_config
from stream.errors import ConfigError
from stream.server.camera_config import JobSettings, load_cameras
from stream.server.dashboard.job_list import LOG
from stream.server.dashboard.jobs import JobQueue

SERVER = "server: {{data: data, jobs: {{segment_s: 1, {more}}}}}\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Five seconds with a cut: six segments or more."""
    return film(tmp_path_factory.mktemp("films") / "film.mp4", frames=130)


@pytest.fixture
def start(tmp_path, clip):
    """Starts a server in a folder that has the clip."""
    (tmp_path / "data" / "files").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "data" / "files")

    def begin(more=""):
        (tmp_path / "cameras.yaml").write_text(SERVER.format(more=more))
        return served("--config", "cameras.yaml", "--port", "0", cwd=tmp_path)

    return begin


@pytest.fixture
def results(tmp_path):
    return tmp_path / "data" / "files" / "restored"


def add(client, file="film.mp4"):
    return client.ask("POST", "/api/jobs", {"file": file, "preset": "fast"}).json["id"]


def find(client, job_id):
    return next(one for one in client.get("/api/jobs").json if one["id"] == job_id)


def waiting(client):
    jobs = [one for one in client.get("/api/jobs").json if one["state"] == "queued"]
    assert [one["place"] for one in jobs] == list(range(1, len(jobs) + 1))
    return [one["id"] for one in jobs]


def in_the_middle(client, job_id):
    """The job, once it has a finished segment; it must not have ended."""

    def begun():
        now = find(client, job_id)
        assert now["state"] in ("queued", "running"), now
        return now["segments_done"] and now

    now = until(begun)
    assert now["segments_done"] < now["segments_total"]
    return now


def done(client, job_id):
    def ended():
        now = find(client, job_id)
        assert now["state"] in ("queued", "running", "done"), now
        return now["state"] == "done" and now

    return until(ended, timeout_s=200)


# --- a server that is killed ----------------------------------------------------------------------


def test_a_killed_server_continues_and_the_result_is_that_of_an_uninterrupted_job(start, results):
    with start() as server:
        client = Client(server.port())
        cut, whole = add(client), add(client)
        before = in_the_middle(client, cut)
        processes = descendants(server.process.pid)
        assert len(processes) > 1
        server.process.kill()
    with start() as server:
        client = Client(server.port())
        assert find(client, cut)["continuing"] and find(client, whole)["state"] == "queued"
        ended, other = done(client, cut), done(client, whole)
        paths = [client.get(f"/api/jobs/{one}/output") for one in (cut, whole)]
        assert "Traceback" not in server.output, server.output
    assert ended["continuing"] and not other["continuing"]
    assert ended["segments_done"] == ended["segments_total"] == before["segments_total"]
    assert ended["frames"] == other["frames"] == 130
    names = sorted(path.name for path in results.iterdir() if path.name != ".jobs.json")
    assert names == ["film-2.mp4", "film.mp4"]  # nothing of the work is left
    assert packets_sha256(results / "film.mp4") == packets_sha256(results / "film-2.mp4")
    assert [path.body for path in paths] == [(results / name).read_bytes() for name in names[::-1]]


def test_a_server_that_is_stopped_continues_too(start, results):
    with start() as server:
        client = Client(server.port())
        job = add(client)
        in_the_middle(client, job)
        assert server.stop() == 0
    assert list(results.glob(".job-*/.film.mp4.gpen/*.video"))
    with start() as server:
        client = Client(server.port())
        found = find(client, job)
        assert found["continuing"] and found["state"] in ("queued", "running")
        client.ask("DELETE", f"/api/jobs/{job}")
        client.ask("DELETE", f"/api/jobs/{job}")
        until(lambda: not list(results.glob(".job-*")))


def test_a_damaged_list_is_set_aside_and_results_are_listed(start, results, tmp_path):
    results.mkdir()
    shutil.copy(SAMPLES / "portrait.mp4", results / "film-2.mp4")
    (results / ".jobs.json").write_text('[{"id": "1", "file"')
    (results / ".job-lost").mkdir()
    with start() as server:
        client = Client(server.port())
        (found,) = client.get("/api/jobs").json
        assert (found["file"], found["state"], found["progress"]) == ("film.mp4", "done", 1.0)
        assert client.get(f"/api/jobs/{found['id']}/output").status == 200
        assert server.output.count("is damaged") == 1
    assert (results / ".jobs.damaged.json").read_text().startswith('[{"id"')
    assert (results / ".job-lost").exists()  # the list may be mended by hand
    queue = JobQueue(results.parent)
    queue.start()
    queue.stop()
    assert not (results / ".job-lost").exists()
    assert [one.id for one in queue.all()] == [found["id"]]


# --- retry, several at once, a cluster --------------------------------------------------------------


def test_two_run_at_once_and_one_that_was_cancelled_is_tried_again(start, results):
    with start("at_once: 2") as server:
        client = Client(server.port())
        first, second, third = (add(client) for _ in range(3))
        until(lambda: all(find(client, one)["progress"] > 0 for one in (first, second)))
        assert find(client, third)["place"] == 1
        assert client.ask("POST", f"/api/jobs/{first}/retry").status == 422  # it runs
        in_the_middle(client, first)
        client.ask("DELETE", f"/api/jobs/{first}")
        assert find(client, first)["state"] == "cancelled"
        until(lambda: find(client, third)["state"] == "running")
        assert client.ask("DELETE", f"/api/jobs/{second}").status == 200
        again = client.ask("POST", f"/api/jobs/{first}/retry").json
        assert (again["state"], again["continuing"], again["place"]) == ("queued", True, 1)
        until(lambda: find(client, first)["progress"] > 0)
        assert find(client, first)["continuing"]
        client.ask("DELETE", f"/api/jobs/{first}")
        (plan,) = results.glob(f".job-{first}/.film.mp4.gpen/plan.json")
        plan.write_text("{}")
        assert client.ask("POST", f"/api/jobs/{first}/retry").status == 200
        until(lambda: find(client, first)["note"].startswith("began again, since its plan is damaged"))
        for one in (first, second, third):
            if find(client, one)["state"] in ("queued", "running"):
                client.ask("DELETE", f"/api/jobs/{one}")
            assert client.ask("DELETE", f"/api/jobs/{one}").status == 200
        assert client.ask("POST", f"/api/jobs/{first}/retry").status == 404
        until(lambda: not list(results.glob(".job-*")))


def test_a_cluster_that_cannot_be_reached_is_told_by_the_servers_setting(start):
    pytest.importorskip("ray")
    with start("on: '127.0.0.1:9'") as server:
        client = Client(server.port())
        job = add(client)
        failed = until(lambda: (now := find(client, job))["state"] == "failed" and now)
        assert failed["error"].startswith("server.jobs.on 127.0.0.1:9: cannot be reached")


def test_the_settings_of_jobs_have_bounds(tmp_path):
    for wrong in ("at_once: 0", "segment_s: 0.1", "on: ''", "nothing: 1"):
        (tmp_path / "cameras.yaml").write_text(f"server: {{jobs: {{{wrong}}}}}\n")
        with pytest.raises(ConfigError, match=f"server.jobs.{wrong.split(':')[0]}"):
            load_cameras(tmp_path / "cameras.yaml")


# --- order, and what is stored ----------------------------------------------------------------------


def test_waiting_files_are_put_in_order_and_keep_it_after_a_restart(tmp_path):
    with dashboard(tmp_path) as running:
        client = Client(urlsplit(running.url).port)
        runs, *others = (add(client, "portrait.mp4") for _ in range(4))
        until(lambda: find(client, runs)["state"] == "running")
        one, two, three = others

        def move(job, place):
            return client.ask("POST", f"/api/jobs/{job}/move", {"place": place})

        assert move(three, 1).json["place"] == 1
        assert waiting(client) == [three, one, two]
        assert move(three, 99).json["place"] == 3
        assert move(two, 1).status == 200
        assert waiting(client) == [two, one, three]
        assert "only the order of waiting files" in move(runs, 1).json["error"]
        assert (move("nobody", 1).status, move(one, 0).status) == (404, 422)
        client.ask("DELETE", f"/api/jobs/{two}")
        assert client.ask("POST", f"/api/jobs/{two}/retry").json["place"] == 3
    queue = StalledQueue(running.files)
    queue.start()
    queue.stop()
    assert [job.id for job in queue.all()] == [running.job, runs, one, three, two]


def stored(job_id, state, **facts):
    own = {"file": "a.mp4", "preset": "fast", "model": "m", "strength": 0.5, "id": job_id, "state": state}
    return own | {"settings": load_config("fast").model_dump(mode="json")} | facts


def test_what_a_killed_server_was_about_to_do_is_found_out(tmp_path):
    results = tmp_path / "restored"
    results.mkdir()
    for name in ("moved.mp4", ".jobs.json.1.part"):
        (results / name).touch()
    for name in ("unmoved", "cut", "unlisted"):
        (results / f".job-{name}" / ".a.mp4.gpen").mkdir(parents=True)
        (results / f".job-{name}" / ".a.mp4.gpen" / "00000.video").touch()
    (results / ".job-unmoved" / "a.mp4").touch()
    settings = load_config("fast", None, ["restore.strength=0.5"]).model_dump(mode="json")
    jobs = [
        stored("gone", "done", result="gone.mp4"),
        stored("moved", "running", result="moved.mp4"),
        stored("unmoved", "running", result="other.mp4"),
        stored("cut", "cancelled"),
        stored("odd", "queued", settings={"restore": {"nothing": 1}}),
        stored("last", "queued", settings=settings, segment_s=7),
    ]
    (results / ".jobs.json").write_text(json.dumps(jobs))
    queue = StalledQueue(tmp_path, JobSettings(at_once=2))
    queue.start()
    try:
        found = {one.id: one for one in queue.all()}
        assert list(found) == ["moved", "unmoved", "cut", "odd", "last"]
        assert found["moved"].state == "done" and queue.find("moved").result == "moved.mp4"
        assert found["unmoved"].continuing and found["unmoved"].state in ("queued", "running")
        assert found["cut"].state == "cancelled" and (results / ".job-cut").exists()
        assert found["odd"].state == "failed" and "restore.nothing" in found["odd"].error
        assert queue.find("last").config.restore.strength == 0.5 and queue.find("last").segment_s == 7
        assert not (results / ".job-unlisted").exists() and not list(results.glob("*.part"))
    finally:
        queue.stop()


def test_a_list_that_cannot_be_written_is_told_once_and_the_queue_goes_on(tmp_path):
    shutil.copy(SAMPLES / "portrait.mp4", tmp_path / "a.mp4")
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    LOG.addHandler(handler)
    queue = StalledQueue(tmp_path)
    queue.start()
    try:
        (tmp_path / "restored" / ".jobs.json").unlink()
        (tmp_path / "restored" / ".jobs.json").mkdir()
        for _ in range(2):
            queue.add("a.mp4", load_config("fast"), "fast")
        assert len(queue.all()) == 2
    finally:
        queue.stop()
        LOG.removeHandler(handler)
    assert len(lines) == 1 and "cannot be written" in lines[0]
