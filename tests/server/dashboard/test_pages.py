"""The dashboard's pages in a headless browser: what they show, what they change, who can use them."""

import base64
import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from dashboard import SECRET, dashboard
from playwright.sync_api import expect
from waiting import LIMIT_S

from stream.live.status import ConnectionState
from stream.server.supervisor.camera_status import NodeStatus

AUDIT = (ROOT / "tests" / "page_audit.js").read_text()
PAGES = {
    "wall": "/#/",
    "camera": "/#/camera/entrance",
    "add": "/#/add",
    "edit": "/#/camera/entrance/edit",
    "files": "/#/files",
    "result": "/#/files/{job}",
    "events": "/#/events",
    "api": "/#/api",
}
TOKEN = "open-sesame"
DESKTOP = {"width": 1440, "height": 900}
WINDOWS = {
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "dark",
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    },
}
EXPECTED_STATUS = re.compile("status of (401|409|422|404)")

expect.set_options(timeout=1000 * LIMIT_S)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with dashboard(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with dashboard(tmp_path_factory.mktemp("locked"), token=TOKEN) as running:
        yield running


@pytest.fixture
def opened(browser, served):
    """Open pages in a window. A page may log no error and send no request to another server."""
    contexts = []
    faults = []

    def open_page(path="/#/", window="dark", *, server=served, **options):
        context = browser.new_context(base_url=server.url, **(WINDOWS[window] | options))
        context.set_default_timeout(1000 * LIMIT_S)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: line.type == "error" and faults.append(line.text))
        page.on("request", lambda asked: elsewhere(asked.url, server.url) and faults.append(asked.url))
        page.goto(path.format(job=server.job), wait_until="domcontentloaded")  # not for videos
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [line for line in faults if not EXPECTED_STATUS.search(line)]


def elsewhere(address: str, server: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("blob", "data") and parts.netloc != urlsplit(server).netloc


def picture(page, canvas="canvas"):
    """Colours at the left and at the right edge of a live picture."""
    return page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector);
            const context = canvas.getContext("2d");
            return [0.02, 0.98].map((at) => [
                ...context.getImageData(Math.floor(canvas.width * at), canvas.height >> 1, 1, 1).data,
            ]);
        }""",
        canvas,
    )


def ready(page, name):
    """Wait until a page shows all that it is to show."""
    signs = {
        "wall": '.tile[data-camera="entrance"] .veil[hidden]',
        "camera": ".viewer .veil[hidden]",
        "add": "form.form option",
        "edit": "form.form option",
        "files": ".job",
        "result": ".player",
        "events": ".event",
        "api": ".operation",
        "login": "#token",
    }
    page.wait_for_selector(signs[name], state="attached")
    if name == "camera":
        page.wait_for_selector("path.curve")


def until(page, condition):
    """Wait for a condition in the page. Playwright's own wait evaluates text, which the pages forbid."""
    deadline = time.monotonic() + LIMIT_S
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_page_is_whole_named_legible_and_asks_nobody_else(opened, served, locked, tmp_path, window):
    folder = Path(os.environ.get("GPEN_STREAM_SCREENSHOTS", tmp_path))
    faults = {}

    def look(page, name):
        ready(page, name)
        faults[name] = page.evaluate(AUDIT)
        assert len(page.screenshot(path=folder / f"{name}-{window}.png")) > 10_000

    page = opened("/#/", window)
    for name, path in PAGES.items():
        page.goto(path.format(job=served.job))
        look(page, name)
    look(opened("/login", window, server=locked), "login")
    assert not {name: found for name, found in faults.items() if found}


def test_the_wall_tells_state_rate_delay_faces_and_drops_in_words(opened, served):
    page = opened()
    tile = page.locator('.tile[data-camera="entrance"]')
    expect(tile.locator(".pill")).to_have_text("Live")
    expect(tile.locator("dl")).to_contain_text("fps")
    expect(tile.locator("dd").nth(1)).to_have_text(re.compile(r"\d+ ms"))
    stalled = page.locator('.tile[data-camera="car-park"]')
    expect(stalled.locator(".veil")).to_contain_text("No frame for 12 s")
    expect(page.locator('.nav [data-section="cameras"] .count')).to_be_visible()


def test_the_machines_of_a_cluster_stand_in_a_row_above_the_wall(opened, served, tmp_path):
    served.cameras.machines = [
        NodeStatus("left", "up", "up", 8.0, 3.25, ("entrance", "lobby"), 0.4),
        NodeStatus("right", "silent", "silent for 5 s", 1.0, 0.5, ("car-park",), 5.0),
    ]
    try:
        page = opened()
        page.wait_for_selector(".node")
        left, right = page.locator(".node").all()
        expect(left).to_have_text("Upleft2 cameras · 3.3 of 8 cores")
        expect(right).to_have_text("Silentright1 camera · 0.5 of 1 coresilent for 5 s")
        assert not page.evaluate(AUDIT)
        served.cameras.machines = []
        expect(page.locator(".nodes")).to_be_hidden()
    finally:
        served.cameras.machines = []


def test_a_camera_that_changes_its_state_is_announced(opened, served):
    page = opened()
    expect(page.locator('.tile[data-camera="lobby"] .pill')).to_have_text("Live")
    served.report("lobby", state=ConnectionState.RETRYING, words="retrying in 3 s (connection refused)")
    expect(page.locator("[aria-live=polite].unseen")).to_contain_text("lobby: retrying in 3 s")
    expect(page.locator('.tile[data-camera="lobby"] .veil')).to_contain_text("Connection refused")
    served.report("lobby", state=ConnectionState.LIVE, words="live")
    expect(page.locator('.tile[data-camera="lobby"] .pill')).to_have_text("Live")


def test_the_wall_finds_cameras_and_keeps_its_size(opened):
    page = opened()
    page.get_by_label("Find a camera").fill("LOB")
    expect(page.locator(".tile")).to_have_count(1)
    page.get_by_label("Find a camera").fill("nobody")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".tile").first).to_be_visible()
    page.get_by_role("button", name="Small").click()
    page.reload()
    expect(page.locator('.wall[data-size="small"] .tile').first).to_be_visible()


def test_the_divider_shows_the_original_left_and_the_restored_right_of_it(opened):
    page = opened("/#/camera/entrance")
    ready(page, "camera")
    original, restored = picture(page, ".viewer canvas")
    assert original[0] > 150 > restored[0] and restored[1] > 150 > original[1]
    divider = page.get_by_role("slider", name="Divider between original and restored")
    divider.focus()
    page.keyboard.press("Home")
    expect(divider).to_have_attribute("aria-valuetext", "0 % original, 100 % restored")
    assert picture(page, ".viewer canvas")[0][1] > 150
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuenow", "12")
    frame = page.locator(".frame").bounding_box()
    page.mouse.move(frame["x"] + 30, frame["y"] + 30)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.75, frame["y"] + 40, steps=4)
    page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "75")


def test_strength_interval_model_and_preset_are_changed_live(opened, served):
    page = opened("/#/camera/entrance")
    ready(page, "camera")
    page.get_by_role("slider", name="Strength").focus()
    page.keyboard.press("Home")
    served.wait_for_change("entrance", strength=0.0)
    page.get_by_role("slider", name="Interval").focus()
    page.keyboard.press("End")
    served.wait_for_change("entrance", interval=30)
    page.get_by_label("Preset").select_option("quality")
    served.wait_for_change("entrance", preset="quality")
    page.get_by_role("switch", name="Pass through").check()
    served.wait_for_change("entrance", passing=True)
    expect(page.locator("[role=status]", has_text="Applied")).to_be_visible()


def test_regions_are_drawn_by_mouse_and_moved_by_keys(opened, served):
    page = opened("/#/camera/lobby")
    page.wait_for_selector(".viewer .veil[hidden]", state="attached")
    page.get_by_role("button", name="Regions").click()
    page.get_by_role("button", name="Leave alone").click()
    area = page.locator(".regions").bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.1, area["y"] + area["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.4, area["y"] + area["height"] * 0.6, steps=4)
    page.mouse.up()
    region = page.locator(".region")
    expect(region).to_have_count(1)
    region.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    expect(region).to_be_focused()
    page.get_by_role("button", name="Add one").click()
    page.keyboard.press("Delete")
    page.get_by_role("button", name="Save regions").click()
    expect(page.locator(".region-bar")).to_be_hidden()
    boxes = served.wait_for_change("lobby", include=())["exclude"]
    assert [list(box) for box in boxes] == [pytest.approx([0.11, 0.2, 0.3, 0.41], abs=0.01)]


def test_regions_of_the_settings_are_shown_where_they_are(opened):
    page = opened("/#/camera/entrance")
    ready(page, "camera")
    region = page.get_by_role("img", name="Region 1, left alone inside: from the left 62 %")
    frame, box = page.locator(".frame").bounding_box(), region.bounding_box()
    assert box["x"] - frame["x"] == pytest.approx(0.62 * frame["width"], abs=2)
    assert box["height"] == pytest.approx(0.4 * frame["height"], abs=2)


def test_the_plot_reads_its_values_out_by_keys(opened):
    page = opened("/#/camera/entrance")
    ready(page, "camera")
    page.locator("svg.plot").focus()
    page.keyboard.press("End")
    expect(page.locator(".plot-readout")).to_have_text(
        re.compile(r"\d\d:\d\d:\d\d: delay \d+ ms, load \d+ %")
    )


def test_recordings_are_played_back_and_downloaded(opened):
    page = opened("/#/camera/entrance")
    first = page.locator(".rows .row").first
    with page.expect_download() as download:
        first.get_by_role("link", name=re.compile("Download")).click()
    assert download.value.suggested_filename.endswith(".mp4")
    first.get_by_role("button", name=re.compile("Play")).click()
    until(page, "document.querySelector('dialog video').readyState >= 2")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_an_address_is_tested_before_it_is_kept(opened, served):
    page = opened("/#/add")
    page.get_by_label("Name").fill("gate")
    page.get_by_role("textbox", name="Address").fill(f"rtsp://user:{SECRET}@127.0.0.1:9/none")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator(".tested.bad")).to_contain_text("refused")
    assert SECRET not in page.locator(".tested").inner_text()
    page.get_by_role("button", name="Test picture").click()
    page.get_by_role("button", name="Test", exact=True).click()
    until(page, "document.querySelector('.tested img')?.naturalWidth > 0")
    page.get_by_role("button", name="Add an output").click()
    page.get_by_label("Target of output 1").fill("gate")
    page.get_by_role("button", name="Add a time").click()
    page.get_by_role("button", name="Add camera").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("gate")
    camera = served.settings("gate")
    assert camera.to == ("gate/",) and camera.schedule == ("mon-fri 07:00-19:00",)


def test_a_form_that_is_refused_says_why_and_keeps_what_was_typed(opened):
    page = opened("/#/add")
    page.get_by_label("Name").fill("entrance")
    page.get_by_role("textbox", name="Address").fill("test:")
    page.get_by_role("button", name="Add camera").click()
    expect(page.get_by_role("alert").filter(has_text="entrance")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_value("entrance")


def test_editing_never_shows_a_password_and_keeps_the_address(opened, served):
    page = opened("/#/camera/entrance/edit")
    ready(page, "edit")
    assert SECRET not in page.content()
    page.get_by_role("slider", name="Priority").focus()
    page.keyboard.press("End")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("entrance")
    assert SECRET not in page.content()
    assert served.settings("entrance").priority == 10
    assert SECRET in served.settings("entrance").source


def test_a_camera_is_removed_after_a_question(opened, served):
    served.add("spare")
    page = opened("/#/camera/spare")
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cameras")
    expect(page.locator('.tile[data-camera="spare"]')).to_have_count(0)
    page.goto("/#/camera/spare")
    expect(page.get_by_role("heading", level=2)).to_contain_text("There is no camera")


def test_events_are_filtered_by_camera_and_kind_and_come_live(opened, served):
    page = opened("/#/events")
    served.event("lobby", "disk_low", "0.3 GiB free")
    expect(page.locator(".event").first).to_contain_text("0.3 GiB free")
    page.get_by_label("Kind of event").select_option("disk_low")
    expect(page.locator(".event", has_text="Camera up")).to_have_count(0)
    page.get_by_role("combobox", name="Camera").select_option("entrance")
    page.reload()
    expect(page.get_by_role("combobox", name="Camera")).to_have_value("entrance")


def test_the_api_is_described_by_the_servers_own_files(opened):
    page = opened("/#/api")
    expect(page.locator(".operation code", has_text="/api/cameras").first).to_be_visible()
    page.get_by_label("Find a request").fill("/healthz")
    operation = page.locator(".operation:visible")
    expect(operation).to_have_count(1)
    operation.locator("summary").click()
    operation.get_by_role("button", name="Send").click()
    expect(operation.locator("pre").last).to_contain_text("200")


def test_the_theme_is_changed_and_kept(opened):
    page = opened()
    page.get_by_role("button", name="Change to light").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_the_keyboard_alone_reaches_a_camera(opened):
    page = opened()
    ready(page, "wall")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.locator('.tile[data-camera="entrance"] a').focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text("entrance")


def test_nothing_moves_where_less_motion_is_asked_for(opened):
    page = opened("/#/files", reduced_motion="reduce")
    ready(page, "files")
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert page.evaluate(moving) == 0


def test_a_file_is_uploaded_queued_cancelled_and_removed(opened, served, tmp_path):
    page = opened("/#/files")
    ready(page, "files")
    clip = tmp_path / "holiday in a place with a very long name, part one of many.mp4"
    clip.write_bytes((served.files / "portrait.mp4").read_bytes())
    page.locator("#picker").set_input_files(clip)
    picked = page.get_by_role("checkbox", name=re.compile("holiday"))
    expect(picked).to_be_checked()
    page.get_by_role("button", name="Restore", exact=True).click()
    row = page.locator(".job", has_text="holiday")
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    expect(row).to_contain_text("1 min 05 s left")
    row.get_by_role("button", name=re.compile("Cancel")).click()
    expect(row.locator(".pill")).to_have_text("Cancelled")
    row.get_by_role("button", name=re.compile("Remove")).click()
    expect(row).to_have_count(0)


def test_several_files_are_queued_at_once_put_in_order_by_keys_and_tried_again(opened, served, tmp_path):
    page = opened("/#/files")
    ready(page, "files")
    for name in ("one.mp4", "two.mp4", "three.mp4"):
        (tmp_path / name).write_bytes((served.files / "portrait.mp4").read_bytes())
    page.locator("#picker").set_input_files([tmp_path / f"{name}.mp4" for name in ("one", "two", "three")])
    expect(page.locator("[name=file]:checked")).to_have_count(3)
    expect(page.get_by_role("checkbox", name="All files")).not_to_be_checked()
    page.get_by_role("button", name="Restore 3 files").click()
    expect(page.locator("[name=file]:checked")).to_have_count(0)
    expect(page.locator(".panel-head", has_text="Queue and results")).to_contain_text("1 running, 2 waiting")
    rows = page.locator(".job")
    running, second, third = (row.split("\n")[0] for row in rows.all_inner_texts()[:3])
    expect(rows.first).to_contain_text("1 of 4 segments · 2 workers")
    expect(page.get_by_role("button", name=f"Move {second} up")).to_be_disabled()
    up = page.get_by_role("button", name=f"Move {third} up")
    up.focus()
    page.keyboard.press("Enter")
    expect(rows.nth(1)).to_contain_text(third)
    expect(page.get_by_role("button", name=f"Move {third} down")).to_be_focused()
    expect(page.locator("[aria-live=polite].unseen")).to_contain_text(f"{third} is next")
    page.keyboard.press("Enter")
    expect(rows.nth(2)).to_contain_text(third)
    page.get_by_role("button", name=f"Move {third} to the top").press("Enter")
    expect(rows.nth(1)).to_contain_text(third)
    page.get_by_role("button", name=f"Cancel {running}").click()
    expect(rows.first).to_contain_text(third)
    page.get_by_role("button", name=f"Try {running} again").click()
    expect(rows.nth(2)).to_contain_text(running)
    for name in (running, second, third):
        page.get_by_role("button", name=f"Cancel {name}").click()
        page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.locator(".job .pill", has_text="Cancelled")).to_have_count(0)
    for name in ("one", "two", "three"):
        (served.files / f"{name}.mp4").unlink()


def test_the_late_answer_to_a_new_job_does_not_replace_its_newer_state(opened, served):
    page = opened("/#/files")
    ready(page, "files")
    page.evaluate(
        """() => {
            const direct = window.fetch;
            window.fetch = async (path, options) => {
                const answer = await direct(path, options);
                const late = path === "/api/jobs" && options?.method === "POST";
                while (late && !document.querySelector('.job [aria-valuenow="25"]')) {
                    await new Promise((resolve) => setTimeout(resolve, 20));
                }
                return answer;
            };
        }"""
    )
    page.get_by_role("checkbox", name=re.compile("portrait")).check()
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("[aria-live=polite].unseen")).to_contain_text("is in the queue")
    row = page.locator(".job", has=page.locator(".pill", has_text="Running"))
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    row.get_by_role("button", name=re.compile("Cancel")).click()
    expect(page.locator(".job .pill", has_text="Cancelled")).to_be_visible()
    page.get_by_role("button", name=re.compile("Remove portrait")).first.click()
    expect(page.locator(".job .pill", has_text="Cancelled")).to_have_count(0)


def test_a_file_is_dropped_on_the_page_and_the_reason_is_told_where_it_is_no_video(opened, served):
    page = opened("/#/files")
    ready(page, "files")
    clip = base64.b64encode((served.files / "portrait.mp4").read_bytes()).decode()
    for name, content in (("dropped.mp4", clip), ("nothing.mp4", "AAAA")):
        data = page.evaluate_handle(
            """([name, content]) => {
                const data = new DataTransfer();
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                data.items.add(new File([bytes], name, { type: "video/mp4" }));
                return data;
            }""",
            [name, content],
        )
        page.locator(".drop").dispatch_event("drop", {"dataTransfer": data})
    expect(page.get_by_role("checkbox", name=re.compile("dropped.mp4"))).to_be_visible()
    expect(page.locator(".notice.bad")).to_contain_text("nothing.mp4")
    assert not (served.files / "nothing.mp4").exists()


def test_before_and_after_are_played_together_and_divided(opened, served):
    page = opened("/#/files/{job}")
    ready(page, "result")
    until(page, "[...document.querySelectorAll('video')].every((one) => one.readyState >= 2)")
    page.get_by_role("button", name="Play").click()
    until(page, "[...document.querySelectorAll('video')].every((one) => one.currentTime > 0.3)")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="One frame on").click()
    until(page, "[...document.querySelectorAll('video')].every((one) => !one.seeking)")
    times = page.evaluate("[...document.querySelectorAll('video')].map((one) => one.currentTime)")
    assert times[0] == pytest.approx(times[1], abs=0.001)
    page.get_by_role("slider", name="Divider between original and restored").focus()
    page.keyboard.press("Home")
    assert "100%" in page.locator(".layer").evaluate("one => one.style.clipPath")


def test_a_locked_server_asks_for_the_token_and_goes_back_to_the_page(opened, locked):
    page = opened("/login?next=%23%2Fevents", server=locked)
    page.get_by_label("Access token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The token is wrong")
    page.get_by_label("Access token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Events")
    page.goto("about:blank")  # else the page that is open goes to the log-in by itself, into the next step
    page.context.clear_cookies()
    page.goto("/login?next=https://elsewhere.example/")
    page.get_by_label("Access token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Cameras")


def test_a_lost_server_is_told_and_found_again(browser, tmp_path):
    first = dashboard(tmp_path)
    served = first.__enter__()
    page = browser.new_page(base_url=served.url)
    page.goto("/#/")
    expect(page.locator(".link-state")).to_have_text("Connected")
    first.__exit__(None, None, None)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator(".tile").first).to_be_visible()
    again = tmp_path / "again"
    again.mkdir()
    with dashboard(again, port=urlsplit(served.url).port):
        expect(page.locator(".link-state")).to_have_text("Connected")
        expect(page.get_by_role("alert")).to_be_hidden()
    page.close()


def test_without_a_camera_the_wall_says_what_to_do(browser, tmp_path):
    with dashboard(tmp_path) as served:
        served.cameras.settings.clear()
        page = browser.new_page(base_url=served.url)
        page.goto("/#/")
        page.get_by_role("link", name="Try the test picture").click()
        expect(page.get_by_role("textbox", name="Address")).to_have_value("test:")
        page.close()


def test_a_double_click_magnifies_and_a_click_moves_no_divider(opened):
    page = opened("/#/camera/entrance")
    ready(page, "camera")
    frame = page.locator(".frame").bounding_box()
    page.mouse.dblclick(frame["x"] + frame["width"] * 0.9, frame["y"] + frame["height"] / 2)
    expect(page.get_by_role("button", name="Magnification")).to_have_text("2×")
    divider = page.get_by_role("slider", name="Divider between original and restored")
    expect(divider).to_have_attribute("aria-valuenow", "50")
    page.get_by_role("button", name="Magnification").click()
    page.get_by_role("button", name="Magnification").click()
    expect(page.get_by_role("button", name="Magnification")).to_have_text("1×")
