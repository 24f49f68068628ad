"""The dashboard on the store above, in a real browser: seconds from asking to the page drawn, or from a click to the new
plot, and the server's memory. A first look is a page's first on a fresh server, with nothing cached; a later one is a new
session's.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyses import build
from common import Options, table

from interp.store.summary import write_summary

TITLE = "The dashboard"
PAGES = ("", "massive", "timestep_or_text", "compare")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"]
SETTLED = """() => document.querySelector('[data-test-script-state="notRunning"]')
    && !document.querySelector('[data-testid=stSkeleton]')"""


def memory(process: int) -> float:
    """Largest resident memory so far of a process and its children, GB."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(fields["PPid"]) == process or fields["Pid"].strip() == str(process):
                total = max(total, int(fields.get("VmHWM", "0 kB").split()[0]) / 1e6)
    return total


def measure(options: Options) -> dict[str, Any]:
    """Seconds and GB."""
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = folder / f"flux-{options.prompts}.zarr"
        if not store.exists():
            build(store, options.prompts)
        write_summary(store)
        return {"prompts": options.prompts, "measured": _measure(store, min(options.rounds, 5))}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    targets = {"first look: runs, s": 3, "drill-down by a click (block x step), median s": 1, "server's memory, GB": 1.5}
    rows = []
    for name, value in report["measured"].items():
        target = targets.get(name)
        verdict = "" if target is None else f"{target}: {'met' if value <= target else '**not met**'}"
        rows.append([name, f"{value:.2f}", verdict])
    return f"The store of {report['prompts']} prompts above.\n\n" + table(["", "measured", "target"], rows)


def _measure(store: Path, rounds: int) -> dict[str, float]:
    """Seconds and GB."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "interp", "dashboard", str(store), "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, found = f"http://localhost:{port}", {}
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).read()
                break
            time.sleep(0.2)
        with sync_playwright() as playwright:
            executable = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1366, "height": 2400})

            def seconds(act: Callable[[], Any], shown: str) -> float:
                start = time.perf_counter()
                act()
                page.wait_for_selector(shown, timeout=120_000)
                page.wait_for_function(SETTLED, timeout=120_000)
                return time.perf_counter() - start

            first = {"": "table, [data-testid=stDataFrame]"}
            for name in PAGES:
                shown = first.get(name, ".js-plotly-plot")
                found[f"first look: {name or 'runs'}, s"] = seconds(lambda name=name: page.goto(f"{address}/{name}"), shown)
            for name in PAGES:
                shown = first.get(name, ".js-plotly-plot")
                times = [seconds(lambda name=name: page.goto(f"{address}/{name}"), shown) for _ in range(rounds)]
                found[f"later looks: {name or 'runs'}, median s"] = statistics.median(times)
            page.goto(f"{address}/massive")
            page.wait_for_selector(".st-key-ratio .js-plotly-plot", timeout=120_000)
            page.wait_for_function(SETTLED)
            page.wait_for_timeout(2000)
            drills = [drill(page, cell) for cell in (500, 1500, 2500, 700, 1700)]
            found["drill-down by a click (block x step), median s"] = statistics.median(drills)
            found["drill-down by a click (block x step), worst s"] = max(drills)
        found["server's memory, GB"] = memory(server.pid)
    finally:
        server.terminate()
        server.wait(10)
    return found


def drill(page: Any, cell: int) -> float:
    """From a click on a cell of the heat map to the plot of its channels."""
    before = page.locator(".st-key-state .js-plotly-plot").first.evaluate("plot => plot._fullLayout.title.text")
    at = page.locator(".st-key-ratio .js-plotly-plot").first.evaluate(
        """(plot, cell) => {
            const marks = plot._fullData.filter(trace => trace.name === "cells")[0], layout = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.left + layout.xaxis._offset + layout.xaxis.d2p(marks.x[cell]),
                    box.top + layout.yaxis._offset + layout.yaxis.d2p(marks.y[cell])];
        }""",
        cell,
    )
    page.mouse.move(at[0] - 2, at[1] - 2)
    page.mouse.move(*at)
    start = time.perf_counter()
    page.mouse.click(*at)
    page.wait_for_function(
        """before => {
            const layout = document.querySelector('.st-key-state .js-plotly-plot')?._fullLayout;
            return layout && layout.title.text !== before;
        }""",
        arg=before,
        timeout=60_000,
    )
    taken = time.perf_counter() - start
    page.wait_for_function(SETTLED)
    page.wait_for_timeout(1000)
    return taken
