"""The file of cameras: reading, errors that name the key, writing, and schedules."""

import pickle
from datetime import datetime, timedelta

import pytest

from stream.config import preset_path
from stream.errors import ConfigError
from stream.server.camera_config import (
    CameraSettings,
    CamerasFile,
    load_cameras,
    parse_camera,
    redacted,
    save_cameras,
)
from stream.server.opening_hours import is_open, next_opening

SECRET = "rtsp://admin:hunter2@192.0.2.7/stream"
WEDNESDAY = datetime(2026, 11, 25, 12, 0)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "cameras.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_example_that_is_delivered_can_be_loaded():
    file = load_cameras(preset_path("default").parent / "cameras.yaml")
    assert list(file.cameras) == ["test"]
    assert file.cameras["test"].config().motion.gate is True
    assert file.server.host == "127.0.0.1"


def test_settings_start_from_the_preset_and_hold_over_it():
    settings = parse_camera(
        "door",
        {
            "source": "test:",
            "preset": "fast",
            "set": {"restore.strength": 0.5, "source.rate": 5},
            "include": [[0, 0, 0.5, 1]],
        },
    )
    config = settings.config()
    assert config.detect.max_side == 640
    assert config.restore.strength == 0.5
    assert config.source.rate == 5.0
    assert config.select.include == ((0.0, 0.0, 0.5, 1.0),)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "cameras.door.source: is missing"),
        ({"source": SECRET, "too": 1}, "cameras.door.too: unknown setting; known there: source, to"),
        ({"source": SECRET, "priority": 11}, "cameras.door.priority: input should be less than"),
        ({"source": SECRET, "preset": "best"}, "cameras.door.preset: input should be 'default', 'fast'"),
        ({"source": SECRET, "set": {"restore.strength": 3}}, "cameras.door.set.restore.strength: "),
        ({"source": SECRET, "set": {"restore.power": 3}}, "cameras.door.set.restore.power: unknown setting"),
        ({"source": SECRET, "set": {"strength": 3}}, "cameras.door.set.strength: no setting"),
        ({"source": SECRET, "schedule": ["mon 9-17"]}, "cameras.door.schedule: 'mon 9-17' is no window"),
        ({"source": SECRET, "schedule": ["Xmas 09:00-17:00"]}, "cameras.door.schedule: 'xmas' is no weekday"),
        ({"source": SECRET, "include": [[0, 0, 2, 1]]}, "cameras.door.include.0.2: input should be less"),
        ({"source": [SECRET]}, "cameras.door.source: input should be a valid string"),
        ({"source": "gopher://admin:hunter2@h/"}, "cameras.door.source: "),
        ({"source": "rtsp://${NOT_THERE_AT_ALL}@h/"}, "cameras.door.source: "),
        ({"source": SECRET, "to": ["ftp://admin:hunter2@h/x"]}, "cameras.door.to: "),
    ],
)
def test_what_is_wrong_with_a_camera_is_said_by_its_key_in_one_line_without_credentials(data, words):
    with pytest.raises(ConfigError) as caught:
        parse_camera("door", data)
    text = str(caught.value)
    assert text.startswith(words)
    assert "\n" not in text and "hunter2" not in text


@pytest.mark.parametrize("name", ["", "../etc", "a b", "-x", "x" * 41, "tür"])
def test_a_camera_has_a_name_that_is_safe_as_a_folder(name):
    with pytest.raises(ConfigError, match="a name has up to 40 letters"):
        parse_camera(name, {"source": "test:"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cameras:\n  door: {source: 'test:', prset: fast}\n", "cameras.door.prset: unknown setting"),
        ("server: {prot: 80}\n", "server.prot: unknown setting; known there: host, port"),
        ("server: {webhook: {url: 'ftp://h'}}\n", "server.webhook.url: "),
        ("camera: {}\n", "camera: unknown setting; known there: server, cameras"),
        ("cameras:\n  door:\n", "cameras.door: "),
        ("cameras:\n  a b: {source: 'test:'}\n", "cameras.a b: a name has"),
        ("a: [\n", "broken YAML at line"),
        ("cameras:\n  a: {source: 'test:'}\n  a: {source: 'test:'}\n", "cameras.a: is there twice"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name_and_the_key(write, text, words):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_cameras(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_a_key_that_yaml_takes_for_a_truth_value_is_a_name(write, tmp_path):
    path = write("server: {jobs: {on: auto}}\ncameras: {yes: {source: 'test:', enabled: off}}\n")
    file = load_cameras(path)
    assert file.server.jobs.on == "auto" and not file.cameras["yes"].enabled
    save_cameras(path, file)
    assert load_cameras(path) == file


def test_a_file_is_written_back_whole_and_keeps_variables_unexpanded(write, monkeypatch):
    monkeypatch.setenv("DOOR_LOGIN", "admin:hunter2")
    path = write(
        "server: {port: 9000}\ncameras:\n  door:\n    source: rtsp://${DOOR_LOGIN}@192.0.2.7/a\n"
        "    set: {restore.strength: 0.5}\n    schedule: ['mon-fri 07:00-19:00']\n"
        "    include: [[0, 0, 1, 0.5]]\n"
    )
    path.chmod(0o640)
    file = load_cameras(path)
    save_cameras(path, file)
    assert load_cameras(path) == file
    assert "${DOOR_LOGIN}" in path.read_text() and "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_new_file_can_be_read_by_its_owner_only(tmp_path):
    path = tmp_path / "new.yaml"
    save_cameras(path, CamerasFile(cameras={"door": CameraSettings(source=SECRET)}))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        save_cameras(tmp_path / "missing" / "cameras.yaml", CamerasFile())


def test_settings_show_no_credentials_and_travel_whole():
    settings = parse_camera("door", {"source": SECRET, "to": ["rtmp://u:hunter2@h/app/key"]})
    assert "hunter2" not in repr(settings)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_what_is_shown_of_settings_holds_no_credentials():
    settings = parse_camera(
        "door", {"source": SECRET, "to": ["rtmp://u:hunter2@h/app/key"], "exclude": [[0.62, 0, 0.3, 1]]}
    )
    given = redacted(settings)
    assert "hunter2" not in given.model_dump_json()
    assert given.exclude == settings.exclude
    assert given.source == "rtsp://***@192.0.2.7/stream"


@pytest.mark.parametrize(
    ("schedule", "hours", "runs"),
    [
        ((), 0, True),
        (("mon-fri 07:00-19:00",), 0, True),
        (("mon-fri 07:00-19:00",), 7, False),
        (("mon-fri 07:00-19:00",), 72, False),
        (("sat,sun 00:00-24:00",), 0, False),
        (("sat,sun 00:00-24:00",), 72, True),
        (("wed 22:00-06:00",), 12, True),
        (("wed 22:00-06:00",), 17.9, True),
        (("wed 22:00-06:00",), 18, False),
        (("tue 22:00-06:00",), 12, False),
        (("fri-mon 10:00-14:00",), 0, False),
        (("fri-mon 10:00-14:00",), 24 * 5, True),
        (("12:00-12:01",), 0, True),
        (("12:00-12:01",), 1, False),
        (("mon 01:00-02:00", "11:00-13:00"), 0, True),
    ],
)
def test_a_schedule_says_when_a_camera_runs(schedule, hours, runs):
    assert is_open(schedule, WEDNESDAY + timedelta(hours=hours)) is runs


def test_a_schedule_says_when_a_camera_runs_next():
    assert next_opening(("mon-fri 07:00-19:00",), WEDNESDAY) == datetime(2026, 11, 26, 7)
    assert next_opening(("mon 07:00-08:00", "fri 10:00-11:00"), WEDNESDAY) == datetime(2026, 11, 27, 10)
    assert next_opening(("wed 07:00-08:00",), WEDNESDAY) == datetime(2026, 12, 2, 7)
