"""Draws docs/pictures/dashboard/ from a running dashboard: `python docs/make_screenshots.py http://localhost:8501`.

Needs playwright and a Chromium; run `interp dashboard cache` on stores of the demo first.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent / "pictures" / "dashboard"
SHOTS = {  # picture -> (address, theme, height)
    "massive": ("massive?run=demo.zarr&block=3&step=2", "light", 1330),
    "where": ("where?run=demo.zarr&prompt=4&block=4&step=19", "dark", 900),
    "causal": ("causal?experiment=patch.zarr&metric=picture&patch_block=6&patch_column=12-15", "light", 1330),
}


def main(server: str) -> None:
    """One picture a page, of laptop width."""
    HERE.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=["--no-sandbox", "--disable-gpu"])
        for name, (address, theme, height) in SHOTS.items():
            context = browser.new_context(viewport={"width": 1366, "height": height}, color_scheme=theme)
            page = context.new_page()
            page.goto(f"{server}/{address}")
            page.locator(".js-plotly-plot").first.wait_for(timeout=60_000)
            page.wait_for_selector('[data-test-script-state="notRunning"]')
            page.wait_for_timeout(3000)
            page.screenshot(path=HERE / f"{name}.png")
            context.close()


if __name__ == "__main__":
    main(sys.argv[1])
