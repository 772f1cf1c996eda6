"""The settings that may change while a camera runs, and the messages that carry them."""

import pickle
import threading

import pytest
from dashboard import report
from pydantic import ValidationError
from waiting import LIMIT_S

from stream.config import Config, load_config
from stream.live.packets import JpegPicture
from stream.live.session.live_settings import _SETTINGS, LiveSettings
from stream.server.camera_config import CameraSettings
from stream.server.camera_messages import ChangeAnswer, Preview, SessionEvent
from stream.server.camera_process import _Outbox

REGIONS = ((0.0, 0.0, 0.5, 1.0),)
ALL = LiveSettings(
    strength=0.5, interval=4, stabilise=0.25, model="gpen-bfr-256", preset="fast", include=REGIONS,
    exclude=(), passing=True,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name, setting in _SETTINGS.items() if setting.section])
def test_a_setting_takes_the_same_values_as_its_place_in_the_settings_of_a_run(name):
    section = Config.model_fields[_SETTINGS[name].section].annotation
    there = section.model_json_schema()["properties"][_SETTINGS[name].key]
    here = LiveSettings.model_json_schema()["properties"][name]["anyOf"][0]
    assert here == {key: value for key, value in there.items() if key in here}
    assert not {"minimum", "maximum", "enum", "pattern"} & (set(there) - set(here))


def test_what_holds_now_can_be_applied_to_other_settings():
    changed, preset = ALL.applied(load_config(), "default")
    assert (preset, LiveSettings.of(changed, preset, passing=True)) == ("fast", ALL)
    assert changed.detect.max_side == load_config("fast").detect.max_side


def test_only_a_model_and_a_preset_have_to_be_loaded():
    assert ALL.loads and not ALL.without_loading().loads
    assert set(ALL.given()) - set(ALL.without_loading().given()) == {"model", "preset"}
    assert LiveSettings(model="x").loads and LiveSettings(preset="fast").loads


def test_a_change_stays_in_the_camera_s_settings_for_its_next_start():
    camera = CameraSettings(source="test:", set={"restore.strength": 0.1, "source.rate": 5.0})
    changed = camera.changed(ALL)
    assert changed.set == {
        "restore.strength": 0.5, "source.rate": 5.0, "restore.interval": 4, "stabilise.strength": 0.25,
        "restore.model": "gpen-bfr-256",
    }  # fmt: skip
    assert (changed.preset, changed.include, changed.exclude) == ("fast", REGIONS, ())
    assert LiveSettings.of(changed.config(), changed.preset, passing=True) == ALL
    assert camera.changed(LiveSettings()) == camera


@pytest.mark.parametrize("wrong", [{"strength": 1.1}, {"interval": 0}, {"include": [[0, 0, 2, 1]]}, {"a": 1}])
def test_values_out_of_range_and_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        LiveSettings.model_validate(wrong)


def test_they_cross_a_pipe():
    assert pickle.loads(pickle.dumps(ALL)) == ALL


class Pipe:
    """Takes the first message and then holds the sender until it is opened."""

    def __init__(self):
        self.sent, self.holds, self.opened = [], threading.Event(), threading.Event()

    def send(self, message):
        self.sent.append(message)
        self.holds.set()
        assert self.opened.wait(LIMIT_S)


def test_only_the_newest_report_and_preview_of_a_kind_wait_and_answers_are_all_sent():
    pipe = Pipe()
    outbox = _Outbox(pipe)
    outbox.put(SessionEvent("camera_up", "live"))
    assert pipe.holds.wait(LIMIT_S)
    for number in range(3):
        for kind in ("pair", "restored"):
            outbox.put(Preview(kind, JpegPicture(b"", 0.0, number)))
        outbox.put(ChangeAnswer(number, None))
        outbox.put(report(frames_out=number))
    pipe.opened.set()
    outbox.close()
    assert pipe.sent[1:4] == [ChangeAnswer(number, None) for number in range(3)]
    assert [(one.kind, one.picture.pts) for one in pipe.sent[4:6]] == [("pair", 2), ("restored", 2)]
    assert pipe.sent[6:] == [report(frames_out=2)]
