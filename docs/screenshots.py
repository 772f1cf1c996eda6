"""Take pictures of the dashboard for README and docs: screenshots.py URL FOLDER [CAMERA] [TOKEN].

`gpen-stream serve` must run at URL. Headless Chromium takes the pictures.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


def main(url: str, folder: str, camera: str = "entrance", token: str = "") -> None:
    """Write wall, camera, files and phone into `folder`."""
    shots = [
        ("wall", "/#/", DESKTOP, "dark"),
        ("wall-light", "/#/", DESKTOP, "light"),
        ("camera", f"/#/camera/{camera}", DESKTOP, "dark"),
        ("files", "/#/files", DESKTOP, "dark"),
        ("phone", f"/#/camera/{camera}", PHONE, "dark"),
    ]
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        for name, path, window, scheme in shots:
            context = browser.new_context(base_url=url, color_scheme=scheme, **window)
            page = context.new_page()
            if token:
                page.goto("/login")
                page.get_by_label("Access token").fill(token)
                page.get_by_role("button", name="Log in").click()
                page.wait_for_url("**/")
            page.goto(path)
            page.wait_for_timeout(5000)  # pictures of all cameras, and a report or two
            page.screenshot(path=Path(folder) / f"{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
