"""Every page in a real browser: clicks, links, downloads, themes, shown numbers; nothing but this machine is asked.

Needs playwright and a Chromium (apt-get install chromium). `make test-all` runs these; without a browser they are skipped, but
never in CI.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from dashboard_stores import MARKUP
from messages import names

import interp
from interp.analysis import glance
from interp.dashboard import frame
from interp.store.answers import read_answers

pytestmark = pytest.mark.browser
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
if BROWSER is None and not os.environ.get("CI"):
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-default-apps",
    "--disable-extensions",
]
WRONG = '[data-testid="stAlertContentError"], [data-testid="stException"]'  # boxes that say an error
HARMLESS = re.compile(r"404 \(Not Found\)")  # Streamlit's own probe of /PAGE/_stcore/health on a deep link
ROOT = Path(__file__).parent.parent
WAIT = 60_000
ASKED = {
    "runs": "",
    "study": "",
    "guidance": "",
    "causal": "?experiment=patch.zarr",
    "compare": "?run=demo.zarr&other=other.zarr",
}


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url, timeout=1).read()
        return True
    return False


@contextlib.contextmanager
def serving(*words: str, folder: Path) -> Iterator[str]:
    """A server started with these words and --PORT, until it answers; its address."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", *(port if word == "PORT" else word for word in words), str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT / 1000
        while not _answers(f"http://localhost:{port}/_stcore/health"):
            assert process.poll() is None, f"the server ended with exit code {process.returncode}"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def server(dashboard_stores: Path) -> Iterator[str]:
    """The dashboard as a user starts it."""
    with serving("interp", "dashboard", "--no-browser", "--port", "PORT", folder=dashboard_stores) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


QUIET = """() => {
    const quiet = document.querySelector('[data-test-script-state="notRunning"]')
        && !document.querySelector('[data-testid=stSkeleton]');
    window.quietSince = quiet ? window.quietSince ?? performance.now() : null;
    return quiet && performance.now() - window.quietSince > 500;
}"""


class Tab:
    """A session: a page, the errors in its console, and what it requested from other machines."""

    def __init__(self, browser: Any, server: str, theme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": 1366, "height": 2400}, color_scheme=theme, accept_downloads=True)
        self.page = self.context.new_page()
        self.server = server
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.outside.append(request.url) if self._far(request.url) else None)

    def _far(self, url: str) -> bool:
        return not url.startswith((self.server, self.server.replace("http", "ws"), "data:", "blob:"))

    def go(self, address: str) -> Any:
        self.page.goto(f"{self.server}/{address}")
        return self.settle()

    def settle(self) -> Any:
        """Wait until no script has run and nothing has been loading for half a second."""
        self.page.evaluate("window.quietSince = null")
        self.page.wait_for_function(QUIET, timeout=WAIT)
        return self.page

    def chart(self, key: str) -> Any:
        """The drawn plotly figure of a panel."""
        return self.page.locator(f".st-key-{key} .js-plotly-plot").first

    def click_cell(self, key: str, x: int, y: int, subplot: int = 0) -> None:
        """Click the mark with this place in the marks' data."""
        chart = self.chart(key)
        chart.scroll_into_view_if_needed()
        at = chart.evaluate(
            """(plot, [x, y, n]) => {
                const marks = plot._fullData.filter(trace => trace.name === "cells")[n], layout = plot._fullLayout;
                const across = layout[marks.xaxis.replace("x", "xaxis")], down = layout[marks.yaxis.replace("y", "yaxis")];
                const box = plot.getBoundingClientRect();
                const place = (axis, value) => axis._offset + axis.c2p(axis.d2c(value));
                return [box.left + place(across, marks.x[x]), box.top + place(down, marks.y[y])];
            }""",
            [x, y, subplot],
        )
        self.page.mouse.move(at[0] - 3, at[1] - 3)
        self.page.mouse.move(*at)
        self.page.mouse.click(*at)
        self.settle()

    def close(self) -> None:
        self.context.close()
        wrong = [error for error in self.errors if not HARMLESS.search(error)]
        assert not wrong, wrong
        assert not self.outside, self.outside


@pytest.fixture
def tab(chromium: Any, server: str) -> Iterator[Tab]:
    opened = Tab(chromium, server)
    yield opened
    opened.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", list(frame.TITLES))
def test_every_page_in_both_themes(name: str, theme: str, chromium: Any, server: str) -> None:
    tab = Tab(chromium, server, theme)
    asked = ASKED.get(name, "?run=demo.zarr")
    page = tab.go(f"{name if name != 'runs' else ''}{asked}")
    page.get_by_role("heading", name=frame.TITLES[name][0], exact=True).wait_for(timeout=WAIT)
    assert page.locator(WRONG).count() == 0, page.inner_text("body")
    dark = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert (sum(int(value) for value in re.findall(r"\d+", dark)[:3]) < 384) == (theme == "dark")
    if name not in ("runs", "study"):
        page.locator(".js-plotly-plot").first.wait_for(timeout=WAIT)
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot text')].filter(text => {
            const box = text.getBoundingClientRect(), plot = text.closest('.js-plotly-plot').getBoundingClientRect();
            return box.width && (box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1);
        }).map(text => text.textContent)"""
    )
    assert not cut, f"labels that stick out of their plot: {cut}"
    tab.close()


def test_a_link_to_a_page_is_the_first_thing_a_server_gets(dashboard_stores: Path, chromium: Any) -> None:
    """Streamlit would run the page's file alone."""
    words = ("streamlit", "run", "dashboards/app.py", "--server.headless", "true", "--server.port", "PORT", "--")
    with serving(*words, folder=dashboard_stores) as address:
        tab = Tab(chromium, address)
        page = tab.go("massive?run=demo.zarr&block=2&step=1")
        page.get_by_role("heading", name="Massive channels", exact=True).wait_for(timeout=WAIT)
        assert page.get_by_role("link", name="Who writes it").count() == 1, "the frame's own navigation"
        assert "block=2" in page.url
        tab.close()


def bars(tab: Tab) -> list[float]:
    """The heights of all bars of the plot of a state, by channel; massive ones are a trace of their own."""
    pairs = tab.chart("state").evaluate(
        "plot => plot._fullData.filter(t => t.type === 'bar').flatMap(t => Array.from(t.x).map((x, n) => [x, t.y[n]]))"
    )
    return [height for _, height in sorted(pairs)]


def test_a_click_drills_down_and_the_link_reopens_it(tab: Tab, chromium: Any, server: str, dashboard_stores: Path) -> None:
    page = tab.go("massive?run=demo.zarr&channel=29")
    tab.click_cell("ratio", 4 * 6 + 3, 4 * 6 + 3)  # four steps a block: block 6, step 3
    assert "block=6" in page.url
    assert "step=3" in page.url
    run = interp.open_run(dashboard_stores / "demo.zarr")
    expected = glance.channels(run, block=6, step=3).to_numpy()
    shown = bars(tab)
    assert shown == pytest.approx(expected.tolist(), rel=1e-6)
    own = run.stats["mean_abs"].sel(block=6, step=3, stream="image").mean("prompt").to_numpy()
    assert shown == pytest.approx(own.tolist(), rel=1e-5)
    again = Tab(chromium, server)
    again.go(page.url.removeprefix(server).lstrip("/"))
    assert bars(again) == shown
    again.close()


def test_pickers_keep_their_values_between_pages(tab: Tab) -> None:
    page = tab.go("massive?run=demo.zarr&block=2&channel=7")
    page.get_by_role("link", name="Timestep or text").click()
    tab.settle()
    assert "block=2" in page.url
    assert "channel=7" in page.url
    page.get_by_role("link", name="Who writes it").click()
    tab.settle()
    assert "channel=7" in page.url


def test_what_an_address_asks_for_in_vain_is_named(tab: Tab) -> None:
    page = tab.go("massive?run=demo.zarr&block=99")
    assert not names(page.inner_text("body"), "block", 99, "0, 1, 2, 3, 4, 5, 6, 7")


def test_a_click_on_a_gate_goes_to_its_block(tab: Tab) -> None:
    page = tab.go("timestep_or_text?run=demo.zarr")
    tab.click_cell("gates", 4 * 5 + 1, 4 * 5 + 1, 1)
    assert "block=5" in page.url


def test_curves_are_those_of_the_store(tab: Tab, dashboard_stores: Path) -> None:
    tab.go("timestep_or_text?run=demo.zarr&block=3&channel=29&prompt=2")
    run = interp.open_run(dashboard_stores / "demo.zarr")
    sizes = run.stats["mean_abs"].sel(block=3, channel=29, stream="image").to_numpy()
    lines = tab.chart("curves").evaluate("plot => plot._fullData.map(trace => [trace.name, Array.from(trace.y)])")
    named = dict(line for line in lines if line[0])
    mean = next(values for name, values in named.items() if name.startswith("mean of 8 rows"))
    one = next(values for name, values in named.items() if name.startswith("row 2"))
    assert mean == pytest.approx(sizes.mean(axis=0).tolist(), rel=1e-5)
    assert one == pytest.approx(sizes[2].tolist(), rel=1e-6)


def test_a_click_on_a_token_shows_its_channels(tab: Tab, dashboard_stores: Path) -> None:
    page = tab.go("where?run=demo.zarr&prompt=1&block=4&step=3")
    tab.click_cell("over", 8 * 2 + 5, 8 * 2 + 5)  # eight tokens a line: y 2, x 5
    assert "token=2%2C5" in page.url
    run = interp.open_run(dashboard_stores / "demo.zarr")
    state = run.hidden["image"]["hidden"].sel(prompt=1, block=4, step=3, token=2 * 8 + 5).to_numpy()
    shown = tab.chart("token").evaluate("plot => Array.from(plot._fullData[0].y)")
    assert sorted(map(abs, shown)) == pytest.approx(sorted(abs(state))[-24:], rel=1e-6)


def test_a_click_on_a_patch_shows_its_pictures(tab: Tab, dashboard_stores: Path) -> None:
    page = tab.go("causal?experiment=patch.zarr&metric=picture")
    tab.click_cell("patching", 1, 2 * 2 + 1, 1)
    experiment = interp.open_experiment(dashboard_stores / "patch.zarr")
    found = experiment.result("patching_picture")
    marks = tab.chart("patching").evaluate("plot => plot._fullData.filter(t => t.name === 'cells')[1].customdata[5]")
    column, block, what = marks
    assert f"patch_block={block}" in page.url
    assert f"patch_what={what}" in page.url
    value = float(found["recovered"].sel(what=what, block=int(block), column=column))
    assert f"{value:.3f}" in page.inner_text("body")
    assert page.locator("img").count() >= 4


def test_the_slider_between_two_pictures_moves(tab: Tab) -> None:
    page = tab.go("guidance?view=Two settings")
    over = page.locator("img.over").first
    page.locator("input[type=range][aria-label^=slide]").first.fill("20")
    assert "80%" in over.evaluate("image => image.style.clipPath")


def test_the_curves_of_a_sweep_are_its_result(tab: Tab, dashboard_stores: Path) -> None:
    tab.go("guidance?view=Sweep&measure=detail")
    found = interp.open_experiment(dashboard_stores / "sweep.zarr").result("sweep")
    drawn = tab.chart("sweep").evaluate("plot => plot._fullData.filter(t => t.mode).map(t => Array.from(t.y)).flat()")
    for value in found["value"].sel(measure="detail").to_numpy()[1:]:
        assert any(value == pytest.approx(y, rel=1e-6) for y in drawn)


@pytest.mark.parametrize("kind", ["CSV", "Parquet", "NetCDF", "HTML", "PNG", "SVG"])
def test_downloads_hold_the_data(kind: str, tab: Tab, dashboard_stores: Path, tmp_path: Path) -> None:
    page = tab.go("massive?run=demo.zarr&block=6&step=3")
    page.locator(".st-key-state").scroll_into_view_if_needed()
    page.locator('[class*="st-key-state-more"] button, [class*="st-key-state:more"] button').first.click()
    with page.expect_download(timeout=WAIT) as coming:
        page.get_by_role("button", name=kind, exact=True).last.click()
    path = tmp_path / coming.value.suggested_filename
    coming.value.save_as(path)
    run = interp.open_run(dashboard_stores / "demo.zarr")
    expected = glance.channels(run, block=6, step=3)
    if kind == "HTML":
        assert "every channel at block 6, step 3" in path.read_text()
        assert "cdn.plot.ly" not in path.read_text().split("<body>")[1][:2000]
        return
    if kind in ("PNG", "SVG"):
        assert path.read_bytes()[:4] == (b"\x89PNG" if kind == "PNG" else b"<svg")
        return
    if kind == "NetCDF":
        assert xr.open_dataset(path, engine="h5netcdf")["mean_abs"].to_numpy() == pytest.approx(expected.to_numpy())
        return
    table = pd.read_csv(path) if kind == "CSV" else pd.read_parquet(path)
    assert table["mean_abs"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-6)
    assert table["channel"].tolist() == expected["channel"].to_numpy().tolist()


def test_a_link_copied_from_the_address_has_what_is_shown(tab: Tab) -> None:
    page = tab.go("causal?experiment=patch.zarr")
    page.get_by_label("Experiment").click()
    page.get_by_role("option", name="disrupt.zarr").click()
    tab.settle()
    assert "patch_" not in page.url
    assert "experiment=disrupt.zarr" in page.url
    again = tab.go(page.url.removeprefix(tab.server).lstrip("/"))
    assert again.locator('[data-testid="stAlertContentWarning"]').count() == 0, "what no page asked for would be named"


def test_prompts_are_shown_as_text(tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page = tab.go("?store=demo.zarr")
    words = MARKUP.split("<")[0].strip()
    assert words in page.inner_text("body"), "the stars are there, so they were not taken for bold"
    page = tab.go("where?run=demo.zarr&prompt=6")
    assert not asked
    assert page.locator("img[src='x']").count() == 0


def test_a_study_from_set_up_to_results(tab: Tab, dashboard_stores: Path) -> None:
    page = tab.go("study?study_view=Set up&study_experiment=sweep.zarr&first=none")
    page.get_by_role("button", name="Make the study").click()
    tab.settle()
    file = dashboard_stores / "studies" / "study-1.json"
    definition = json.loads(file.read_text())
    assert definition["first_name"] == "none"
    page = tab.go("study?study_view=Rate&study=study-1")
    page.get_by_label("Your name or initials").fill("rater one")
    page.get_by_role("button", name="Begin").click()
    tab.settle()
    text = page.inner_text("body")
    assert definition["second_name"] not in text + page.url, "blind"
    for key in ("ArrowLeft", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        tab.settle()
    answers = read_answers(file.with_suffix(".jsonl"))
    assert len(answers) == 1
    assert answers[0]["rater"] == "rater one"
    left = answers[0]["left"]
    assert answers[0]["detail"] == left
    assert answers[0]["colour"] == "tie"
    assert answers[0]["prompt"] == ("second" if left == "first" else "first")
    assert not names(page.inner_text("body"), "1 of 4")
    page = tab.go("study?study_view=Results&study=study-1")
    win = tab.chart("win-rates").evaluate("plot => Array.from(plot._fullData[0].x)")
    assert win[1] == 0.5


def test_two_sessions_at_once(chromium: Any, server: str) -> None:
    one, other = Tab(chromium, server), Tab(chromium, server)
    one.page.goto(f"{server}/massive?run=demo.zarr&block=1")
    other.page.goto(f"{server}/massive?run=demo.zarr&block=6")
    assert "block=1" in one.settle().url
    assert "block=6" in other.settle().url
    titles = [tab.chart("spikes").evaluate("plot => plot._fullLayout.title.text") for tab in (one, other)]
    assert ["block 1" in titles[0], "block 6" in titles[1]] == [True, True]
    one.close()
    other.close()


def test_the_live_tab_draws_with_the_demo(tab: Tab) -> None:
    page = tab.go("guidance?view=Live")
    page.get_by_label("Against").fill("cfg:2")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_selector("img.over", timeout=180_000)
    tab.settle()
    assert page.locator(WRONG).count() == 0
    page.get_by_label("Against").fill("nonsense:9")
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("nonsense").last.wait_for(timeout=WAIT)
    tab.settle()
    assert page.locator(".stAlert").count() >= 1
