"""The list of plugged-in cameras, and their addresses on each platform."""

import sys

import pytest

from stream.live.source import devices


def plug(folder, node, name, index):
    (folder / node).mkdir()
    (folder / node / "name").write_text(name + "\n")
    (folder / node / "index").write_text(index + "\n")


def test_cameras_are_listed_in_order_by_their_first_node(tmp_path):
    plug(tmp_path, "video10", "Desk camera", "0")
    plug(tmp_path, "video0", "Laptop camera", "0")
    plug(tmp_path, "video1", "Laptop camera", "1")  # sends metadata, no pictures
    (tmp_path / "video2").mkdir()  # unplugged meanwhile
    found = devices._video4linux(tmp_path)
    assert found == [
        devices.Device("webcam:0", "Laptop camera"),
        devices.Device("webcam:10", "Desk camera"),
    ]


def test_a_machine_without_cameras_lists_none(tmp_path):
    assert devices._video4linux(tmp_path / "nothing") == []
    assert all(device.address.startswith("webcam:") for device in devices.cameras())


@pytest.mark.parametrize(
    "platform, name, expected",
    [
        ("linux", "0", ("v4l2", "/dev/video0")),
        ("linux", "/dev/v4l/by-id/desk", ("v4l2", "/dev/v4l/by-id/desk")),
        ("darwin", "1", ("avfoundation", "1:none")),
        ("win32", "Desk camera", ("dshow", "video=Desk camera")),
    ],
)
def test_each_platform_has_its_own_way_to_name_a_camera(monkeypatch, platform, name, expected):
    monkeypatch.setattr(sys, "platform", platform)
    assert devices.device_url(name) == expected
