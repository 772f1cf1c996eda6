"""The page that `compare` writes, opened from a file in a headless browser."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from comparison import CHANGE, COUNT, LEFT, RIGHT, changed, film, number_in, pictures
from conftest import ROOT
from PIL import Image
from playwright.sync_api import expect
from waiting import LIMIT_S

from stream.lab.compare.comparison import ComparisonOutputs, compare

AUDIT = (ROOT / "tests" / "page_audit.js").read_text()
WINDOWS = {
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "light",
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    },
}
PEAK = 8
expect.set_options(timeout=1000 * LIMIT_S)


@pytest.fixture(scope="module")
def films(portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    frames = pictures(portrait)
    others = [changed(rgb, CHANGE if n == PEAK else CHANGE // 2) for n, rgb in enumerate(frames)]
    return film(folder / "before & after.mp4", frames), film(folder / "<b>restored.mp4", others), frames


@pytest.fixture(scope="module")
def page_file(films, tmp_path_factory):
    """A page of two videos whose names would break a page that does not escape them."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    compare(films[0], films[1], outputs=ComparisonOutputs(page=path))
    return path


@pytest.fixture(scope="module")
def still_file(films, tmp_path_factory):
    """A page of two pictures and a reference."""
    folder = tmp_path_factory.mktemp("stills")
    rgb = films[2][0]
    for name, image in {"a": rgb, "b": changed(rgb), "r": changed(rgb, 12)}.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    page = folder / "page.html"
    compare(folder / "a.png", folder / "b.png", folder / "r.png", ComparisonOutputs(page=page))
    return page


@pytest.fixture
def opened(browser):
    """Opens a page in a window. At the end it checks that there was no request and no error."""
    contexts, faults = [], []

    def open_page(path, window="dark"):
        context = browser.new_context(**WINDOWS[window], offline=True)
        context.set_default_timeout(1000 * LIMIT_S)
        contexts.append(context)
        page = context.new_page()
        address = path.as_uri()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text))
        page.on("request", lambda asked: asked.url.startswith(("data:", address)) or faults.append(asked.url))
        page.goto(address)
        settled(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def shot(page):
    """A screenshot of the picture, scaled to A's size: RGB f64[480,640,3]."""
    image = Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("RGB")
    return np.asarray(image.resize((640, 480), Image.Resampling.BOX), np.float64)


def level(image, box):
    """The mean of the middle of a box (x, y, width, height)."""
    x, y, width, height = box
    return image[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4].mean()


def sides(page):
    """The video, a or b, that each patch shows, by its darkness."""
    image, truth = shot(page), page.a
    return "".join("b" if level(truth, box) - level(image, box) > 18 else "a" for box in (LEFT, RIGHT))


def frame_of(page):
    """The number of the frame on the screen, by its grey square."""
    return number_in(shot(page)[44:60, 8:56].mean())


def settled(page):
    """Wait until the canvas shows the present state."""
    page.wait_for_selector("html[data-shown]")


def show_frame(page, number):
    page.locator("#position").fill(str(number))
    page.wait_for_selector(f"html[data-shown='{number}']")


@pytest.fixture
def page(opened, page_file, films):
    page = opened(page_file)
    page.a = films[2][PEAK].astype(np.float64)
    return page


def test_it_opens_where_most_differs_with_a_left_and_b_right(page):
    assert frame_of(page) == PEAK
    assert sides(page) == "ab"
    expect(page.locator("h1")).to_contain_text("before & after.mp4")
    expect(page.locator("h1")).to_contain_text("<b>restored.mp4")


def test_the_divider_dragged_over_the_picture_uncovers_a_or_b(page):
    box = page.locator("#frame").bounding_box()
    middle = box["y"] + box["height"] / 2

    def drag(start, end):
        page.mouse.move(box["x"] + start * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], middle, steps=4)
        page.mouse.up()

    drag(0.5, 0.99)
    assert sides(page) == "aa"
    drag(0.7, 0.02)  # a press beside the divider moves it there
    assert sides(page) == "bb"
    drag(0.02, 0.5)
    assert sides(page) == "ab"
    page.mouse.move(box["x"] + 5, middle)
    assert sides(page) == "ab"


def test_the_divider_moves_by_keys_and_says_where_it_is(page):
    divider = page.get_by_role("slider", name="Divider")
    divider.focus()
    for key, expected, now in (("End", "aa", "100"), ("Home", "bb", "0"), ("PageUp", "bb", "10")):
        page.keyboard.press(key)
        assert sides(page) == expected
        expect(divider).to_have_attribute("aria-valuenow", now)
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuetext", "50 % A, 50 % B")
    assert sides(page) == "ab"


def test_the_scrubber_its_keys_and_the_full_stop_change_the_frame(page):
    show_frame(page, 3)
    assert frame_of(page) == 3
    page.locator("#position").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("html[data-shown='4']")
    assert frame_of(page) == 4
    page.get_by_role("slider", name="Divider").focus()
    page.keyboard.press(".")
    page.wait_for_selector("html[data-shown='5']")
    page.keyboard.press(",")
    page.wait_for_selector("html[data-shown='4']")
    assert frame_of(page) == 4
    expect(page.locator("#now")).to_contain_text("frame 5 · 0:00.160 · difference")
    expect(page.locator("#position")).to_have_attribute("aria-valuetext", re.compile("frame 5, 0:00.160"))


def test_playing_shows_frame_after_frame_begins_again_and_pauses(page):
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const { shown } = document.documentElement.dataset;
                if (shown === undefined) return;
                window.seen.push(Number(shown));
                if (window.seen.length === 12 + 4) document.getElementById("play").click();
            }).observe(document.documentElement, { attributeFilter: ["data-shown"] });
        }"""
    )
    show_frame(page, COUNT - 1)
    page.evaluate("window.seen.length = 0")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert page.evaluate("window.seen") == list(range(COUNT))
    assert frame_of(page) == COUNT - 1
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    settled(page)
    assert page.evaluate("shown.playing") == 0, "no timer is left that would show another frame"
    assert page.evaluate("window.seen.slice(-4)") == [0, 1, 2, 3]


def test_the_heat_map_is_hot_where_the_known_difference_is_and_nowhere_else(page):
    page.get_by_role("button", name="Difference").click()
    expect(page.locator("#legend")).to_be_visible()
    image = shot(page)
    for box in (LEFT, RIGHT):
        assert level(image[..., 0], box) > 180
    assert level(image[..., 0], (240, 350, 96, 96)) < 100
    reds = image[..., 0] > 170
    inside = np.zeros_like(reds)
    for x, y, width, height in (LEFT, RIGHT):
        inside[y - 3 : y + height + 3, x - 3 : x + width + 3] = True
    assert (reds & ~inside).sum() < 0.002 * reds.size
    assert reds[inside].mean() > 0.8


def test_the_gain_changes_colours_and_legend(page):
    page.get_by_role("button", name="Difference").click()
    gain = page.get_by_label("Gain of the difference")
    gain.fill("0")
    expect(page.locator("#gain-words")).to_have_text("1×: full colour at 255 of 255 levels")
    settled(page)
    faint = level(shot(page)[..., 0], LEFT)
    gain.fill("5")
    expect(page.locator("#ticks")).to_have_text("048")
    settled(page)
    assert level(shot(page)[..., 0], LEFT) > faint + 100


def test_zooming_on_the_face_and_on_the_difference_shows_them_large(page, films):
    page.keyboard.press("2")  # A alone
    page.select_option("#zoom", label="Face")
    settled(page)
    image = shot(page)
    face = films[2][PEAK][60:300].astype(np.float64)
    skin = [face[100:180, 270:350].mean(axis=(0, 1)), image[200:330, 260:380].mean(axis=(0, 1))]
    assert np.abs(skin[0] - skin[1]).max() < 25
    flag = films[2][PEAK][100:300, :80].astype(np.float64).mean(axis=(0, 1))
    assert np.abs(image[100:300, :80].mean(axis=(0, 1)) - flag).max() > 25
    page.keyboard.press("4")
    page.select_option("#zoom", label="Largest difference")
    settled(page)
    assert (shot(page)[..., 0] > 150).mean() > 0.4


def test_the_plot_follows_the_scrubber_and_a_click_seeks(page):
    def cursor():
        return float(page.locator("#cursor").get_attribute("x1"))

    show_frame(page, 0)
    first = cursor()
    show_frame(page, COUNT - 1)
    assert cursor() > first + 500
    page.locator("#plot").click(position={"x": first, "y": 60})
    page.wait_for_selector("html[data-shown='0']")
    assert cursor() == pytest.approx(first, abs=1)
    page.select_option("#curve", label="PSNR, dB")
    expect(page.locator("#plot")).to_have_attribute("aria-label", re.compile("PSNR of every frame, between"))


def test_the_figures_stand_in_a_table_without_scripts_too(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    expect(page.get_by_role("row", name="SSIM")).to_be_visible()
    expect(page.get_by_role("row", name="Warping error")).to_be_visible()
    context.close()


@pytest.mark.parametrize("window", WINDOWS)
def test_the_page_is_legible_named_and_fits_every_window(opened, page_file, still_file, tmp_path, window):
    folder = Path(os.environ.get("GPEN_STREAM_SCREENSHOTS", tmp_path))
    for name, path in {"videos": page_file, "pictures": still_file}.items():
        page = opened(path, window)
        assert page.evaluate(AUDIT) == []
        page.get_by_role("button", name="Difference").click()
        settled(page)
        assert page.evaluate(AUDIT) == []  # before the screenshots, which add empty style elements
        page.screenshot(path=folder / f"compare-{name}-{window}.png", full_page=True)
        page.get_by_role("button", name="Divider").click()
        settled(page)
        page.screenshot(path=folder / f"compare-{name}-{window}-divider.png", full_page=True)


def test_on_a_phone_a_finger_moves_the_divider(opened, page_file, films):
    page = opened(page_file, "phone")
    page.a = films[2][PEAK].astype(np.float64)
    box = page.locator("#frame").bounding_box()
    page.touchscreen.tap(box["x"] + 0.98 * box["width"], box["y"] + 0.7 * box["height"])
    expect(page.get_by_role("slider", name="Divider")).to_have_attribute("aria-valuenow", "98")
    assert sides(page) == "aa"


def test_two_pictures_are_kept_without_loss_and_any_two_of_three_divided(opened, still_file, films):
    page = opened(still_file)
    page.a = films[2][0].astype(np.float64)
    expect(page.locator("#scrub")).to_be_hidden()
    stored = page.evaluate(
        """async () => {
            const picture = new Image();
            picture.src = `data:${data.picture_type};base64,${MOMENTS[0].pictures.b}`;
            await picture.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [picture.width, picture.height];
            canvas.getContext("2d").drawImage(picture, 0, 0);
            return [...canvas.getContext("2d").getImageData(0, 0, picture.width, picture.height).data];
        }"""
    )
    assert np.array_equal(np.reshape(stored, (480, 640, 4))[..., :3], changed(films[2][0]))
    page.select_option("#left", label="B")
    page.select_option("#right", label="A")
    settled(page)
    assert sides(page) == "ba"
    page.get_by_role("button", name="Reference").click()
    settled(page)
    assert sides(page) == "aa"  # the reference has a quarter of the change
    page.get_by_role("button", name="Difference").click()
    page.select_option("#what", label="B and Reference")
    settled(page)
    expect(page.locator("#tag-left")).to_have_text("Difference between B and Reference")


def test_a_page_keeps_to_its_size_and_says_what_it_left_out(films, tmp_path):
    page = tmp_path / "small.html"
    compare(films[0], films[1], outputs=ComparisonOutputs(page=page, budget_bytes=600_000), duration_s=0.2)
    assert page.stat().st_size < 700_000
    text = page.read_text()
    assert re.search(r"all 5 frames, made smaller to \d+x\d+", text)
    assert "http" not in text.replace('"http://www.w3.org/2000/svg"', "").replace("http-equiv", "")
