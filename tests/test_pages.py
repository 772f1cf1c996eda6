"""The dashboard's pages in a headless browser: what they show, what they change, who can use them."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.dashboard import Dashboard, dashboard

AUDIT = (Path(__file__).parent / "page_audit.js").read_text()
PAGES = {
    "wall": "/#/",
    "camera": "/#/camera/entrance",
    "add": "/#/add",
    "edit": "/#/camera/entrance/edit",
    "files": "/#/files",
    "result": "/#/files/{job}",
    "events": "/#/events",
    "api": "/#/api",
    "login": "/login",
}
WINDOWS = {
    "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "light": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "dark",
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    },
}
WAIT_MS = 20_000


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with dashboard(tmp_path_factory.mktemp("server")) as running:
        yield running
