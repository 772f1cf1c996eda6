"""Settings: what wins over what, and how each refusal reads."""

from __future__ import annotations

import annotated_types
import pytest
import yaml
from pydantic import BaseModel

from stream.config import PRESETS, Config, load_config, parse_config
from stream.errors import ConfigError


def settings(model=Config, path=""):
    """(path, field) of every setting."""
    for name, field in model.model_fields.items():
        here = f"{path}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{here}.")
        else:
            yield here, field


SETTINGS = dict(settings())


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads(preset):
    assert isinstance(load_config(preset), Config)


def test_presets_differ_from_the_default_where_they_say_so():
    assert load_config("default") == Config()
    assert load_config("surveillance").detect.tile > 0
    assert load_config("quality").detect.interval < load_config("default").detect.interval


def test_a_file_wins_over_the_preset_and_an_assignment_over_both(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("detect:\n  interval: 7\n  min_score: 0.6\n")
    config = load_config("surveillance", file, ["detect.min_score=0.7", "restore.strength=0.5"])
    assert config.detect.tile > 0  # the preset's
    assert config.detect.interval == 7  # the file's
    assert config.detect.min_score == 0.7 and config.restore.strength == 0.5  # the assignments'
    assert load_config("default", None, ["detect.interval=3", "detect.interval=4"]).detect.interval == 4


def test_an_empty_file_and_an_empty_section_change_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("")
    assert load_config("fast", file) == load_config("fast")
    file.write_text("track:\nselect:\n  # nothing yet\n")
    assert load_config("fast", file) == load_config("fast")


def test_what_a_report_says_of_the_settings_can_be_loaded_again(tmp_path):
    given = ["select.include=[[0, 0, 0.5, 1], [0.5, 0.25, 0.5, 0.5]]", "encode.crf=18", "compose.label=demo"]
    config = load_config("quality", None, given)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config("default", file) == config
    assert parse_config(config.model_dump(mode="json")) == config
    file.write_text(config.model_dump_json())  # as in the report
    assert load_config("default", file) == config


REFUSED = {
    "foo.bar=1": ("foo:", "known there: detect, track"),
    "detect.foo=1": ("detect.foo:", "known there: detector, weights, interval"),
    "detect..interval=1": ("detect.:", "known there"),
    "detect.interval=0": ("detect.interval:", "greater than or equal to 1, got 0"),
    "detect.interval=1000": ("detect.interval:", "less than or equal to 250, got 1000"),
    "detect.interval=often": ("detect.interval:", "valid integer, got 'often'"),
    "detect.interval=2.5": ("detect.interval:", "valid integer, got 2.5"),
    "detect.interval=true": ("detect.interval:", "valid integer, got True"),
    "detect.interval=": ("detect.interval:", "valid integer, got None"),
    "detect.interval.deep=1": ("detect.interval:", "valid integer"),
    "detect.refine=1": ("detect.refine:", "valid boolean"),
    "detect.detector=magic": ("detect.detector:", "'centerface', 'retinaface' or 'haar'"),
    "detect=5": ("detect:", "holds settings (detector, weights"),
    "restore.strength=.nan": ("restore.strength:", "less than or equal to 1"),
    "restore.model=5": ("restore.model:", "valid string"),
    "select.include=[[0, 0, 1]]": ("select.include.0", "x, y, width, height"),
    "select.include=[[0, 0, 2, 1]]": ("select.include.0.2:", "less than or equal to 1"),
    "select.exclude=0.5": ("select.exclude:", "tuple"),
    "encode.crf=-1": ("encode.crf:", "greater than or equal to 0"),
    "detect.interval": ("--set detect.interval:", "key.path=value"),
    "=5": ("--set =5:", "key.path=value"),
    "detect.interval=[": ("--set detect.interval=[:", "not valid YAML"),
}


@pytest.mark.parametrize("assignment", REFUSED)
def test_a_refusal_names_the_key_and_what_is_allowed_in_one_line(assignment):
    key, allowed = REFUSED[assignment]
    with pytest.raises(ConfigError) as caught:
        load_config("default", None, [assignment])
    message = str(caught.value)
    assert message.startswith(key) and allowed in message and "\n" not in message


BROKEN_FILES = {
    "broken": (b"detect:\n  interval: [1\n", "broken YAML at line"),
    "list": (b"- detect\n", "holds no settings"),
    "text": (b"just words\n", "holds no settings"),
    "binary": (b"\xff\xfe\x00\x01" * 9, "not a text file"),
    "control": (b"detect: \x07\n", "broken YAML"),
    "number": (b"7: 8\n", "7: unknown setting"),
    "tag": (b"detect: !!python/object/apply:os.getcwd []\n", "broken YAML"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_refused_by_name(name, tmp_path):
    content, expected = BROKEN_FILES[name]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config("default", file)
    message = str(caught.value)
    assert expected in message and "\n" not in message
    assert "mine.yaml" in message or "unknown setting" in message


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read"):
            load_config("default", path)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"--preset best: unknown; .*default, fast, quality, surveillance"):
        load_config("best")


@pytest.mark.parametrize("path", SETTINGS)
def test_every_setting_is_described_and_every_number_bounded(path):
    field = SETTINGS[path]
    assert field.description and field.description.strip()
    if field.annotation in (int, float, int | None, float | None):
        kinds = {type(item) for item in field.metadata}
        assert kinds & {annotated_types.Ge, annotated_types.Gt}, "no lower bound"
        assert kinds & {annotated_types.Le, annotated_types.Lt}, "no upper bound"


def test_the_numbers_of_a_region_are_bounded_too():
    for key in ("include", "exclude"):
        for region in ("[[-0.1, 0, 1, 1]]", "[[0, 0, 1, 1.1]]"):
            with pytest.raises(ConfigError, match=rf"select\.{key}\.0\.\d"):
                load_config("default", None, [f"select.{key}={region}"])


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load_config().detect.interval = 3
