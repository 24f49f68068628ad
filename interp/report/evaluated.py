"""Report a store's evaluation as one page: settings, scores, the paper's numbers, and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis.table import Rows, about, clean, table
from interp.base.errors import InputError
from interp.evaluation.gallery import Gallery
from interp.figures import evaluation as figures
from interp.figures import maps
from interp.report.page import Page, write
from interp.store.experiment import Experiment
from interp.store.traced_run import Run

SHOWN = 6  # prompts in the gallery
TOPICS = {"segmentation_score": "segmentation", "collapse": "disruption", "evaluation": "guidance"}


def report(made: Experiment | Run, out: str | Path, *, static: bool = False) -> tuple[Path, Path]:
    """Write OUT (.html) and the same numbers as .json. The store must hold an evaluation (`interp evaluate`).
    `static` embeds the figures as drawings, so that the page is small and needs no scripts.
    """
    results = _evaluations(made)
    page = _page(made, results, static)
    topics = dict.fromkeys(TOPICS[kind] for kind in (str(one.attrs["analysis"]) for one in results.values()) if kind in TOPICS)
    published = [finding for topic in topics for finding in about(topic)]
    if published:
        page.heading("Published results")
        page.text("Not measured here.")
        page.table(("claim", "model", "value", "source"), [(f.claim, f.model, f.value, f.source) for f in published])
    numbers = {
        "source": made.path.name,
        "plan": made.plan,
        "provenance": made.provenance,
        "results": {name: clean(found.to_dict()) for name, found in results.items()},
        "published": [dataclasses.asdict(finding) for finding in published],
    }
    return write(page, numbers, out)


def report_pictures(gallery: Gallery, results: Mapping[str, xr.Dataset], out: str | Path) -> tuple[Path, Path]:
    """Write the same page for folders of pictures, which store no results: (OUT.html, OUT.json)."""
    page = Page(f"{gallery.source}: evaluation")
    page.text(f"{len(gallery.prompts)} pictures per setting. The results apply only to these pictures and measures.")
    for name, found in results.items():
        page.heading(name)
        SECTIONS[str(found.attrs["analysis"])](page, found)
    page.heading("Pictures")
    for number, setting in enumerate(gallery.settings):
        images = gallery.read(number)[:SHOWN]
        page.pictures((image, f"{setting}: {text}") for image, text in zip(images, gallery.prompts, strict=False))
    numbers = {"source": gallery.source, "results": {name: clean(found.to_dict()) for name, found in results.items()}}
    return write(page, numbers, out)


def _evaluations(made: Experiment | Run) -> dict[str, xr.Dataset]:
    """The results that a page shows."""
    kept = [
        name for name in made.results if name.startswith("evaluation") or name in ("segmentation_score", "collapse", "study")
    ]
    if not any(name.startswith("evaluation") or name == "segmentation_score" for name in kept):
        raise InputError(f"{made.path} holds no evaluation; run interp evaluate {made.path} first")
    return {name: made.result(name) for name in kept}


def _page(made: Experiment | Run, results: Mapping[str, xr.Dataset], static: bool) -> Page:
    plan, first = made.plan, next(iter(results.values()))
    asked = str(first.attrs.get("table") or made.path.name)
    page = Page(f"{plan.get('model')}: {asked}", static)
    page.text(f"{plan.get('steps')} steps, {plan.get('width')} x {plan.get('height')} pixels, {made.path.name}.")
    if first.attrs.get("prompts"):
        digest = str(first.attrs["prompts_sha256"])[:16]
        page.text(
            f"Prompts: {first.attrs['prompts']} (SHA-256 {digest}...); the paper's: {first.attrs.get('paper_prompts', '-')}."
        )
    page.text("The results apply only to this model, these prompts and these measures.")
    for name, found in results.items():
        page.heading(name.replace("_", ": ", 1) if name.startswith("evaluation_") else name.replace("_", " "))
        SECTIONS[str(found.attrs["analysis"])](page, found)
    if isinstance(made, Experiment):
        page.heading("Pictures")
        _gallery(page, made)
    return page


def _scores(page: Page, found: xr.Dataset) -> None:
    page.text(f"{found.attrs['rows']}; baseline: {found.attrs['baseline']}. Intervals: {found.attrs['interval']}.")
    if found.attrs.get("metric_weights"):
        page.text(f"Weights of the metrics: {found.attrs['metric_weights']}.")
    if found.sizes["measure"]:
        page.text(f"P values: {found.attrs['p']}.")
        if found.attrs.get("note"):
            page.text(f"{found.attrs['note']}.")
        page.figure(figures.scores(found))
    if found["set_value"].notnull().any():
        page.figure(figures.set_scores(found))
        _rows(page, table("evaluation_sets").rows(found))
    if found.sizes["measure"]:
        _rows(page, table("evaluation").rows(found))
    if papers := table("evaluation_papers").rows(found):
        page.text("The paper's numbers, for its models, prompts and metrics; not measured here:")
        _rows(page, papers, ("setting", "the paper"))
    for axis, meaning in (("measure", "meaning"), ("set_measure", "set_meaning")):
        for name, text in zip(found[axis].to_numpy(), found[meaning].to_numpy(), strict=True):
            page.text(f"{name}: {text}.")


def _rows(page: Page, rows: Rows, head: Sequence[str] = ()) -> None:
    """Add a table's rows, under their own headings or others."""
    page.table(head or list(rows[0]), [list(row.values()) for row in rows])


def _drawn(text: str, figure: Callable[[xr.Dataset], Any], page: Page, found: xr.Dataset) -> None:
    """A text about the result, and its figure."""
    page.text(text.format(**found.attrs))
    page.figure(figure(found))


SECTIONS: Mapping[str, Callable[[Page, xr.Dataset], None]] = {
    "evaluation": _scores,
    "collapse": partial(_drawn, "{rows}; channels ranked by {ranked}. Control: {control}.", figures.collapse),
    "segmentation_score": partial(_drawn, "k = {k} channels. Intervals: {interval}. Control: {control}.", maps.overlap),
    "study": partial(_drawn, "{raters} raters, {pairs} pairs. Intervals: {interval}.", figures.win_rates),
}


def _gallery(page: Page, made: Experiment) -> None:
    """The first prompts under every setting."""
    axes, seen = made.axes, list[str]()
    arms = [str(arm) for arm in axes["arm"].to_numpy()]
    for row, text in enumerate(axes["prompt_text"].to_numpy().astype(str)):
        if text in seen or len(seen) == SHOWN:
            continue
        seen.append(text)
        page.text(text, quiet=False)
        drawn = np.flatnonzero(made.done[row])
        page.pictures((made.picture(row, int(arm)), arms[int(arm)]) for arm in drawn)
