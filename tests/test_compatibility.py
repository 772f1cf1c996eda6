"""This version gives the recorded results of the version before the packages were rearranged."""

from __future__ import annotations

import json

import compatibility
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(600)
RECORD = json.loads(compatibility.RECORD.read_text())


def missing(recorded, found, at=""):
    """Paths of what was recorded and is not there any more, or is another; new names may be added."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            path
            for key, value in recorded.items()
            for path in (missing(value, found[key], f"{at}/{key}") if key in found else [f"{at}/{key}"])
        ]
    if isinstance(recorded, list) and isinstance(found, list):
        if [type(value) for value in (*recorded, *found)] == [dict, dict]:  # the merged items of a list
            return missing(recorded[0], found[0], at)
        return [f"{at}/{value}" for value in recorded if value not in found]
    return [] if recorded == found else [f"{at}: {recorded} is {found}"]


def test_what_is_missing_is_found():
    assert missing({"a": ["b"], "c": 1}, {"a": ["b", "new"], "c": 1, "d": 2}) == []
    assert missing({"a": ["b"], "c": 1, "e": {"f": 1}}, {"a": [], "c": 2}) == ["/a/b", "/c: 1 is 2", "/e"]
    assert missing([{"a": None}], [{"a": None, "new": None}]) == []
    assert missing([{"a": None}], [{"new": None}]) == ["/a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compatibility")


@pytest.mark.parametrize("preset", compatibility.PRESETS)
@pytest.mark.parametrize("sample", compatibility.SAMPLES)
def test_restored_pictures_are_those_of_the_record(sample, preset, folder):
    """They agree to the bit on a machine of the record's kind, elsewhere within its arithmetic."""
    found = compatibility.restored(sample, preset, folder, compatibility.PART_S)
    name, exact = f"{sample} {preset}", RECORD["pictures"].get(compatibility.machine())
    if exact is not None:
        assert found["sha256"] == exact["part"][name]["sha256"]
    recorded = next(iter(RECORD["pictures"].values()))["part"][name]
    assert found["frames"] == recorded["frames"]
    apart = np.abs(np.array(found["luma"]) - np.array(recorded["luma"]))
    assert apart.max() < 1.0 and apart.mean() < 0.05, (apart.max(), apart.mean())


@pytest.mark.parametrize("part", ["report", "exit_codes", "server"])
def test_names_that_a_run_shows_are_those_of_the_record(part, folder):
    read = {
        "report": compatibility.report_keys,
        "exit_codes": compatibility.exit_codes,
        "server": compatibility.server,
    }
    assert missing(RECORD["names"][part], json.loads(json.dumps(read[part](folder)))) == []


@pytest.mark.parametrize("part", ["settings", "options"])
def test_names_in_the_code_are_those_of_the_record(part):
    read = {"settings": compatibility.setting_keys, "options": compatibility.options}
    assert missing(RECORD["names"][part], read[part]()) == []


def test_the_python_interface_still_has_every_name_of_the_record():
    assert set(RECORD["names"]["python"]) <= set(compatibility.python_api())
