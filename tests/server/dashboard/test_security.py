"""Attacks on the dashboard: its token and sessions, other sites, paths, sizes, sources and bodies."""

from __future__ import annotations

import hmac
import json
import logging
import os
import shutil
import stat
from contextlib import contextmanager

import pytest
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse

from stream.errors import ConfigError
from stream.server.camera_config import CameraSettings, CamerasFile, ServerSettings
from stream.server.dashboard import security
from stream.server.dashboard.app import create_app
from stream.server.dashboard.jobs import JobQueue
from stream.server.dashboard.security import COOKIE
from stream.server.dashboard.token import is_loopback, load_token
from stream.server.events import Events
from stream.server.supervisor.supervisor import Supervisor

TOKEN = "a-token-of-some-length"
OURS = {"X-Requested-With": "gpen-stream"}
BASE = "http://127.0.0.1:8080"
SOCKET = "ws://127.0.0.1:8080/api/cameras/cam/live"
MP4 = b"\0\0\0\x18ftypisom and so on"


@pytest.fixture
def server(tmp_path):
    """Settings of a server whose folders are the test's own."""
    settings = ServerSettings(data=str(tmp_path / "data"), upload_mb=1, names=("cams.example",))
    settings.files_folder.mkdir(parents=True)
    return settings


@pytest.fixture
def client(server):
    with served(server) as client:
        yield client


@pytest.fixture
def locked(server):
    with served(server, TOKEN) as client:
        yield client


@contextmanager
def served(server, token=None):
    supervisor = Supervisor(CamerasFile(server=server), None, Events())
    app = create_app(supervisor, JobQueue(server.files_folder), token=token)
    try:
        yield TestClient(app, base_url=BASE, follow_redirects=False)
    finally:
        supervisor.stop()


# --- token and log-in -----------------------------------------------------------------------------


def test_this_machine_alone_needs_no_token_and_every_other_address_gets_one_that_only_its_owner_reads(
    tmp_path,
):
    path = tmp_path / "deep" / "token"
    assert load_token(path, "127.0.0.1") is None
    assert not path.exists()
    token = load_token(path, "0.0.0.0")
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path, "0.0.0.0") == load_token(path, "127.0.0.1") == token


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_only_loopback_counts_as_this_machine(host, alone):
    assert is_loopback(host) is alone


def test_a_token_that_others_may_read_is_too_short_or_cannot_be_written_is_refused_in_one_line(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_token(path, "0.0.0.0")
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="too short"):
        load_token(path, "0.0.0.0")
    blocked = tmp_path / "token" / "below"
    with pytest.raises(ConfigError, match="is served with one only"):
        load_token(blocked, "0.0.0.0")


def test_without_the_token_nothing_but_health_log_in_and_the_pages_parts_is_answered(locked):
    schema = make_paths(locked)
    for method, path in schema:
        answer = locked.request(method, path, headers=OURS, json={})
        if path == "/healthz":
            assert answer.status_code == 200
        elif path == "/api/login":
            assert answer.status_code == 422
        else:
            assert (answer.status_code, answer.json()) == (401, {"error": "Log in first"}), path
    assert locked.get("/").status_code == 303
    assert locked.get("/").headers["location"] == "/login"
    assert locked.get("/openapi.json").status_code == 401
    assert locked.get("/static/icon.svg").status_code == 200


def make_paths(client):
    """Every method and path of the interface."""
    schema = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    names = {"{name}": "cam", "{file}": "a.mp4", "{job_id}": "1", "{which}": "input"}
    found = []
    for path, methods in schema["paths"].items():
        for key, value in names.items():
            path = path.replace(key, value)
        found += [(method.upper(), path) for method in methods]
    assert len(found) > 25
    return found


def test_a_log_in_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(locked):
    answer = locked.post("/api/login", json={"token": TOKEN}, headers=OURS)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    assert locked.get("/api/cameras").status_code == 200
    old = locked.cookies[COOKIE]
    assert locked.post("/api/logout", headers=OURS).status_code == 200
    locked.cookies.set(COOKIE, old)
    assert locked.get("/api/cameras").status_code == 401  # ended on the server's side too


def test_a_script_comes_in_by_bearer_and_a_wrong_one_does_not(locked):
    assert locked.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for wrong in ("Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer "):
        locked = make_again(locked)
        assert locked.get("/metrics", headers={"Authorization": wrong}).status_code == 401


def make_again(client):
    client.app._failed.clear()
    return client


def test_guessing_is_slowed_down_even_for_who_guesses_right_at_last(locked):
    for _ in range(5):
        assert locked.post("/api/login", json={"token": "guess"}, headers=OURS).status_code == 401
    answer = locked.post("/api/login", json={"token": TOKEN}, headers=OURS)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert locked.get("/api/cameras", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 429


def test_tokens_are_compared_in_constant_time(locked, monkeypatch):
    compared = []
    monkeypatch.setattr(
        security.hmac,
        "compare_digest",
        lambda a, b, real=hmac.compare_digest: compared.append(a) or real(a, b),
    )
    locked.post("/api/login", json={"token": "guess"}, headers=OURS)
    locked.get("/metrics", headers={"Authorization": "Bearer other"})
    assert compared == [b"guess", b"other"]


# --- other sites ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "a@b"])
def test_a_name_that_was_rebound_to_us_is_not_answered(client, host):
    for path in ("/", "/api/cameras", "/healthz", "/static/icon.svg"):
        assert client.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "192.168.7.7:8080", "cams.example"]
)
def test_our_own_names_and_numbers_are_answered(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_form_of_another_site_changes_nothing(client, method):
    answer = client.request(method, "/api/cameras/cam", content=b"{}")
    assert (answer.status_code, answer.json()["error"]) == (403, "X-Requested-With: gpen-stream is missing")
    for foreign in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        assert client.request(method, "/api/cameras/cam", headers=OURS | foreign, json={}).status_code == 403
    own = OURS | {"Origin": BASE, "Sec-Fetch-Site": "same-origin"}
    assert client.request(method, "/api/cameras/cam", headers=own, json={}).status_code in (404, 405)


def test_another_site_cannot_embed_pictures_or_read_answers(client):
    for mode in ("no-cors", "cors", "navigate"):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        assert client.get("/api/cameras", headers=headers).status_code == 403
    navigate = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=navigate).status_code == 200  # a link to the dashboard still works
    assert "access-control-allow-origin" not in client.get("/api/cameras", headers={"Origin": BASE}).headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "file://"},
        {"Origin": "ws://127.0.0.1:8080"},
    ],
)
def test_a_socket_opened_by_another_site_is_refused(client, headers):
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect(SOCKET, headers=OURS | headers),
    ):
        pass
    assert caught.value.status_code in (403, 421)


def test_a_socket_that_does_not_say_which_page_opened_it_needs_what_no_page_can_send(locked):
    locked.post("/api/login", json={"token": TOKEN}, headers=OURS)
    with pytest.raises(WebSocketDenialResponse) as caught, locked.websocket_connect(SOCKET):
        pass
    assert caught.value.status_code == 403


def test_a_socket_without_a_log_in_is_refused(locked):
    for headers in (OURS, {"Origin": BASE}, {"Origin": BASE, "Cookie": f"{COOKIE}=guess"}):
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            locked.websocket_connect(SOCKET, headers=headers),
        ):
            pass
        assert caught.value.status_code == 401


def test_every_answer_carries_the_headers_that_keep_other_code_out(client):
    for path in ("/", "/api/cameras", "/nowhere", "/static/js/main.js", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/api/cameras").headers["cache-control"] == "no-store"


# --- paths, sizes, sources ------------------------------------------------------------------------

TRAVERSALS = [
    "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5ctoken", "%2e%2e", ".hidden",
    "%2fetc%2fpasswd", "..%252f..%252ftoken", "a%00.mp4", "....//token", "%c0%ae%c0%ae%c0%aftoken",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_spelling_of_a_path_leads_out_of_a_folder(client, server, name):
    (server.data_folder / "token").write_text("secret")
    for path in (f"/static/{name}", f"/api/cameras/cam/segments/{name}", f"/api/jobs/1/{name}"):
        answer = client.get(path)
        assert answer.status_code in (404, 405), path
        assert b"secret" not in answer.content and b"root:" not in answer.content
    assert client.delete(f"/api/files/{name}", headers=OURS).status_code in (404, 405)
    assert (server.data_folder / "token").exists()
    answer = client.post("/api/jobs", headers=OURS, json={"file": name})
    assert answer.status_code == 404


def test_a_link_in_the_folder_leads_nowhere(client, server):
    (server.files_folder / "link.mp4").symlink_to("/etc/passwd")
    assert client.get("/api/files").json() == []
    assert client.post("/api/jobs", headers=OURS, json={"file": "link.mp4"}).status_code == 404


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../clip.mp4", "clip.mp4"),
        ("C:\\me\\clip.mp4", "clip.mp4"),
        ("ü 1.mp4", "ü 1.mp4"),
    ],
)
def test_an_upload_lies_in_the_folder_under_its_last_name(client, server, sent, kept):
    answer = client.post("/api/files", headers=OURS, files={"file": (sent, MP4)})
    assert answer.status_code == 201
    assert answer.json() == {"name": kept, "bytes": len(MP4)}
    assert (server.files_folder / kept).read_bytes() == MP4
    again = client.post("/api/files", headers=OURS, files={"file": (sent, MP4[:12])}).json()["name"]
    assert again != kept and (server.files_folder / kept).read_bytes() == MP4
    assert sorted(os.listdir(server.files_folder)) == sorted([kept, again])


@pytest.mark.parametrize(
    "name",
    ["..", ".hidden.mp4", "a:b.mp4", "<x>.mp4", "x" * 250 + ".mp4", "page.html", "clip.mp4.svg", "list.m3u8"],
)
def test_an_upload_with_a_name_that_is_none_is_refused_and_leaves_nothing(client, server, name):
    answer = client.post("/api/files", headers=OURS, files={"file": (name, MP4)})
    assert answer.status_code in (400, 422)
    assert os.listdir(server.files_folder) == []


def test_an_upload_beyond_the_limit_is_cut_off_and_leaves_nothing(client, server):
    answer = client.post("/api/files", headers=OURS, files={"file": ("big.mp4", b"x" * (2**20 + 4096))})
    assert answer.status_code == 413
    assert os.listdir(server.files_folder) == []


def test_a_request_that_is_no_upload_may_be_small_only(client):
    answer = client.post("/api/test", headers=OURS, json={"source": "test:" + "x" * 100_000})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "source",
    ["concat:/etc/passwd|/etc/hosts", "file:///etc/passwd", "/etc/passwd", "subfile:,,start,0,end,9,,:/x",
     "data:text/plain,x", "ftp://host/x", "rtsp://", "crypto:/etc/passwd", "tcp://127.0.0.1:22", "unix:/run",
     "rtsp://u:${HOME}@host/x", "lavfi:testsrc", "pipe:0", "../../etc/passwd", "http://host/\r\nX: y"],
)  # fmt: skip
def test_a_source_that_is_none_of_the_allowed_is_refused_everywhere(client, source):
    assert client.post("/api/test", headers=OURS, json={"source": source}).status_code == 422
    answer = client.post("/api/cameras", headers=OURS, json={"name": "cam", "source": source})
    assert answer.status_code == 422
    assert client.get("/api/cameras").json() == []


@pytest.mark.parametrize(
    "to",
    [
        "window",
        "virtual-camera",
        "/tmp/elsewhere/",
        "../outside/",
        "hls:/srv/www",
        "snapshots:../../x",
        "/etc/x.mp4",
    ],
)
def test_a_sink_outside_the_data_folder_or_on_the_servers_screen_is_refused(client, to):
    answer = client.post("/api/cameras", headers=OURS, json={"name": "cam", "source": "test:", "to": [to]})
    assert answer.status_code == 422
    assert client.get("/api/cameras").json() == []


@pytest.mark.parametrize(
    "setting",
    [{"restore.model": "/etc/passwd"}, {"restore.model": "../x.safetensors"}, {"detect.weights": "x.pth"},
     {"compose.mask_weights": "/etc/passwd"}, {"restore.inpaint_mask": "/etc/passwd"}],
)  # fmt: skip
def test_a_setting_that_names_a_file_is_refused(client, setting):
    body = {"name": "cam", "source": "test:", "set": setting}
    assert client.post("/api/cameras", headers=OURS, json=body).status_code == 422
    job = {"file": "x", "model": next(iter(setting.values()))}
    assert client.post("/api/jobs", headers=OURS, json=job).status_code in (404, 422)


def test_errors_are_one_line_and_never_repeat_what_was_sent(client):
    secret = "rtsp://user:hunter2@host/x"
    for path, body in (
        ("/api/test", {"source": [secret]}),
        ("/api/test", {"sauce": secret}),
        ("/api/cameras", {"source": secret}),
        ("/api/cameras", {"name": "a b", "source": secret}),
        ("/api/cameras", {"name": "a", "source": secret, "to": [7]}),
        ("/api/cameras", {"name": "a", "source": secret, "nonsense": secret}),
        ("/api/cameras", {"name": "a", "source": "gopher" + secret}),
        ("/api/login", {"token": {"a": secret}}),
    ):  # fmt: skip
        answer = client.post(path, headers=OURS, json=body)
        assert answer.status_code == 422
        assert list(answer.json()) == ["error"] and "\n" not in answer.json()["error"]
        assert "hunter2" not in answer.text


def test_credentials_come_back_in_no_answer_no_metric_no_event_and_no_log(server, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "cameras.yaml"
    supervisor = Supervisor(CamerasFile(server=server), path, Events())
    client = TestClient(create_app(supervisor, JobQueue(server.files_folder)), base_url=BASE)
    body = {
        "name": "cam", "source": "rtsp://user:hunter2@127.0.0.1:9/x?token=hunter3", "enabled": False,
        "to": ["rtmp://user:hunter4@127.0.0.1:9/live/hunter5"],
    }  # fmt: skip
    answers = [client.post("/api/cameras", headers=OURS, json=body)]
    assert answers[0].status_code == 201
    shown = client.get("/api/cameras/cam").json()["settings"]
    answers.append(client.put("/api/cameras/cam", headers=OURS, json=shown))  # as a form sends it back
    assert answers[-1].status_code == 200
    kept = path.read_text()
    assert all(f"hunter{n}" in kept for n in (2, 3, 4, 5))  # and nothing is lost by it
    answers.append(client.post("/api/test", headers=OURS, json={"source": shown["source"]}))
    answers.append(client.post("/api/test", headers=OURS, json={"source": body["source"]}))
    for method, url in make_paths_of(client):
        if method == "GET" and "stream" not in url:
            answers.append(client.get(url))
    supervisor.stop()
    out = capfd.readouterr()
    everything = (
        "".join(a.text + json.dumps(dict(a.headers)) for a in answers) + caplog.text + out.out + out.err
    )
    assert "hunter" not in everything
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def make_paths_of(client):
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (m.upper(), p.replace("{name}", "cam").replace("snapshot.jpg", "history"))
        for p in paths
        for m in paths[p]
    ]


def test_the_openapi_page_is_made_of_our_own_files_only(client):
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    schema = client.get("/openapi.json").json()
    assert {"/api/cameras", "/api/jobs", "/api/events/stream", "/metrics"} <= set(schema["paths"])


# --- what only the server's own file may set ----------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"source": "http://127.0.0.1:9/${GPEN_TEST_SECRET}"},
        {"source": "test:", "to": ["rtmp://127.0.0.1:9/live/${GPEN_TEST_SECRET}"]},
        {"source": "test:", "to": ["whip:https://127.0.0.1:9/${GPEN_TEST_SECRET}"]},
        {"source": "http://127.0.0.1:9/${GPEN_TEST_NOTHING}"},
    ],
)
def test_no_address_from_a_page_carries_the_servers_environment_away(client, monkeypatch, body):
    monkeypatch.setenv("GPEN_TEST_SECRET", "hunter2")
    answer = client.post("/api/cameras", headers=OURS, json={"name": "cam"} | body)
    assert answer.status_code == 422 and "hunter2" not in answer.text
    assert "server's own file only" in answer.json()["error"]  # whether there is such a variable or not
    assert client.get("/api/cameras").json() == []


@pytest.mark.parametrize(
    "to",
    ["mjpeg:0.0.0.0:8090", "mjpeg:192.168.1.5:8090", "mjpeg:example.org:80", "./", "~/elsewhere/", "hls:.",
     "a/../../b/", "cam\n/", "file:///tmp/x.mp4"],
)  # fmt: skip
def test_a_page_opens_no_port_to_everybody_and_writes_into_no_other_folder(client, to):
    answer = client.post("/api/cameras", headers=OURS, json={"name": "cam", "source": "test:", "to": [to]})
    assert answer.status_code == 422
    assert client.get("/api/cameras").json() == []


def test_a_link_inside_the_data_folder_leads_no_recording_out_of_it(client, server, tmp_path):
    (server.data_folder / "link").symlink_to(tmp_path)
    body = {"name": "cam", "source": "test:", "to": ["link/out/"]}
    assert client.post("/api/cameras", headers=OURS, json=body).status_code == 422


def test_what_the_servers_own_file_allows_stays_when_a_form_sends_it_back(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GPEN_TEST_LOGIN", "user:hunter2")
    settings = CameraSettings(
        source="rtsp://${GPEN_TEST_LOGIN}@127.0.0.1:9/x",
        to=(f"{tmp_path}/elsewhere/", "mjpeg:0.0.0.0:0"),
        set={"compose.mask_weights": "/srv/parsing_parsenet.pth"},
        enabled=False,
    )
    path = tmp_path / "cameras.yaml"
    supervisor = Supervisor(CamerasFile(server=server, cameras={"cam": settings}), path, Events())
    client = TestClient(create_app(supervisor, JobQueue(server.files_folder)), base_url=BASE)
    shown = client.get("/api/cameras/cam").json()["settings"]
    answer = client.put("/api/cameras/cam", headers=OURS, json=shown | {"priority": 7})
    assert answer.status_code == 200 and "hunter2" not in answer.text
    kept = path.read_text()
    assert "${GPEN_TEST_LOGIN}" in kept and "mjpeg:0.0.0.0" in kept and "parsenet" in kept
    for change in ({"source": "rtsp://${GPEN_TEST_LOGIN}@evil.example/x"}, {"to": ["/srv/other/"]}):
        assert client.put("/api/cameras/cam", headers=OURS, json=shown | change).status_code == 422
    for key in ("compose.mask_weights", "detect.weights"):
        changed = shown | {"set": {key: "/etc/passwd"}}
        assert client.put("/api/cameras/cam", headers=OURS, json=changed).status_code == 422
    supervisor.stop()


def test_a_file_is_a_source_only_as_a_video_in_the_servers_folders(client, server, portrait):
    shutil.copy(portrait, server.files_folder / "door.mp4")
    body = {"name": "cam", "enabled": False}
    added = client.post("/api/cameras", headers=OURS, json=body | {"source": "file:door.mp4"})
    assert added.status_code == 201
    assert added.json()["settings"]["source"] == f"file:{server.files_folder.resolve() / 'door.mp4'}"
    (server.data_folder / "token").write_text(TOKEN)
    (server.files_folder / "token.mp4").symlink_to(server.data_folder / "token")
    (server.files_folder / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (server.files_folder / "play.ts").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    refusals = set()
    for name in (
        "../token",
        "token.mp4",
        "list.mp4",
        "play.ts",
        "nothing.mp4",
        "/dev/zero",
        "door.mp4/x",
        "",
    ):
        answer = client.post("/api/test", headers=OURS, json={"source": f"file:{name}"})
        assert answer.status_code == 422, name
        refusals.add(answer.json()["error"])
    assert len(refusals) == 1  # nobody learns by it what lies elsewhere


# --- odd requests ---------------------------------------------------------------------------------


def test_an_unforeseen_error_tells_nobody_what_it_holds(server, caplog):
    caplog.set_level(logging.DEBUG)

    class Broken(Supervisor):
        def history(self, name):
            raise RuntimeError("rtsp://user:hunter2@127.0.0.1/x broke")

    supervisor = Broken(CamerasFile(server=server), None, Events())
    client = TestClient(create_app(supervisor, JobQueue(server.files_folder)), base_url=BASE)
    answer = client.get("/api/cameras/cam/history")
    assert answer.status_code == 500
    assert answer.json() == {"error": "unexpected RuntimeError; see the server's log"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "rtsp://***@127.0.0.1/x broke" in caplog.text and "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://["}, {"Origin": "http://127.0.0.1:8080.evil.example"}, {"Origin": ""},
     {"Host": "["}, {"Host": "evil@127.0.0.1:8080"}, {"Host": "127.0.0.1:8080, evil.example"},
     {"Host": "127.0.0.1:x"}],
)  # fmt: skip
def test_a_header_that_cannot_be_read_is_refused(client, headers):
    answer = client.post("/api/test", headers=OURS | headers, json={"source": "test:"})
    assert answer.status_code in (403, 421)


@pytest.mark.parametrize(
    "body",
    [b"[" * 50_000, b'{"source": "test:"', b"\xff\xfe", b'"x"', b"null", b"1e999999", b"{}" * 3, b""],
)
def test_a_body_that_is_no_settings_is_refused_in_one_line(client, body):
    headers = OURS | {"Content-Type": "application/json"}
    for path in ("/api/cameras", "/api/test", "/api/jobs", "/api/login"):
        answer = client.post(path, headers=headers, content=body)
        assert answer.status_code in (400, 422), path
        assert list(answer.json()) == ["error"] and isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition" + b"x" * 20_000),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; filename="a.mp4"\r\n\r\n',
        ),
        ("multipart/form-data; boundary=" + "x" * 500, b""),
        ("multipart/form-data", b""),
        ("text/plain", b"x"),
    ],
)
def test_an_upload_that_is_no_form_is_refused_and_leaves_nothing(client, server, kind, body):
    answer = client.post("/api/files", headers=OURS | {"Content-Type": kind}, content=body)
    assert answer.status_code == 422 and list(answer.json()) == ["error"]
    assert os.listdir(server.files_folder) == []


@pytest.mark.parametrize(
    "content", [b"<script>alert(1)</script>", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"v=0\n"]
)
def test_a_page_or_a_playlist_with_a_videos_name_is_not_kept(client, server, content):
    answer = client.post("/api/files", headers=OURS, files={"file": ("clip.mp4", content)})
    assert answer.status_code == 422
    assert os.listdir(server.files_folder) == []


# --- sessions -------------------------------------------------------------------------------------


def test_over_tls_the_cookie_never_travels_without_it(locked):
    secure = TestClient(locked.app, base_url="https://cams.example")
    headers = OURS | {"Origin": "https://cams.example"}
    answer = secure.post("/api/login", json={"token": TOKEN}, headers=headers)
    assert "secure" in answer.headers["set-cookie"].lower()


def test_guesses_are_counted_for_a_whole_network_and_end_after_a_minute(locked, monkeypatch):
    for number in range(5):
        scope = {"type": "http", "headers": [], "client": (f"2001:db8::{number}", 1)}
        locked.app._record_failure(HTTPConnection(scope))
    here = HTTPConnection({"type": "http", "headers": [], "client": ("2001:db8::77", 1)})
    other = HTTPConnection({"type": "http", "headers": [], "client": ("2001:db8:1::1", 1)})
    assert locked.app._too_many_failures(here).status_code == 429
    assert locked.app._too_many_failures(other) is None
    now = security.time.monotonic()
    monkeypatch.setattr(security.time, "monotonic", lambda: now + 61)
    assert locked.app._too_many_failures(here) is None


def test_who_is_logged_in_is_not_locked_out_by_those_who_guess(locked):
    locked.post("/api/login", json={"token": TOKEN}, headers=OURS)
    for _ in range(9):
        locked.post("/api/login", json={"token": "guess"}, headers=OURS)
    assert locked.get("/api/cameras").status_code == 200


def test_a_token_file_of_somebody_else_a_folder_or_without_a_token_is_refused(tmp_path):
    path = tmp_path / "token"
    path.mkdir()
    with pytest.raises(ConfigError):
        load_token(path, "0.0.0.0")
    path.rmdir()
    for content in (b"", b"\n\n", b"\xff" * 40, b"two words of a good length"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="delete the file"):
            load_token(path, "0.0.0.0")
    path.write_text(TOKEN)
    if os.geteuid() == 0:
        os.chown(path, 4321, 4321)
        with pytest.raises(ConfigError, match="belongs to another user"):
            load_token(path, "0.0.0.0")


def test_a_token_that_is_asked_for_is_made_on_loopback_too(tmp_path):
    assert load_token(tmp_path / "token", "127.0.0.1", wanted=True)
