"""One page for people and one file for programs: what an evaluated store says, self-contained."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from interp.analysis.published import Finding, about
from interp.errors import InputError
from interp.figures import evaluation as figures
from interp.store.create import storage_errors
from interp.store.experiment import Experiment

PICTURES = 6  # prompts in the gallery
NOTHING = 1e-12  # shown as 0
SIDE = 128  # pixels of a picture in it
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}td,th{padding:.25em .7em;border-bottom:1px solid #ddd}
th{text-align:left}td{text-align:right}td:first-child,td.text{text-align:left}.better{color:#00634a;font-weight:600}
.worse{color:#a33a00;font-weight:600}.quiet{color:#666}figure{display:inline-block;margin:2px}figcaption{font-size:12px;color:#666}
img{image-rendering:pixelated}h2{margin-top:2em}
"""


def report(experiment: Experiment, out: str | Path, topics: tuple[str, ...] = ("guidance",)) -> tuple[Path, Path]:
    """Write OUT (.html), and the same numbers beside it as .json. The store must hold an evaluation (`interp evaluate`)."""
    names = [name for name in experiment.results if name.startswith("evaluation")]
    if not names:
        raise InputError(f"{experiment.path} holds no evaluation; run interp evaluate {experiment.path} first")
    results = {name: experiment.result(name) for name in names}
    path = Path(out)
    if path.suffix != ".html":
        raise InputError(f"out must end in .html; got {path.name!r}")
    published = [finding for topic in topics for finding in about(topic)]
    page = _page(experiment, results, published)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
        numbers = {
            "source": str(experiment.path),
            "plan": experiment.plan,
            "provenance": experiment.provenance,
            "results": {name: _numbers(found) for name, found in results.items()},
            "published": [dataclasses.asdict(finding) for finding in published],
        }
        beside = path.with_suffix(".json")
        beside.write_text(json.dumps(numbers, indent=1, ensure_ascii=False), encoding="utf-8")
    return path, beside


def _page(experiment: Experiment, results: dict[str, xr.Dataset], published: list[Finding]) -> str:
    plan = experiment.plan
    first = next(iter(results.values()))
    said = {name: html.escape(str(value)) for name, value in first.attrs.items()}
    size = f"{plan.get('steps')} steps, {plan.get('width')} x {plan.get('height')} pixels"
    parts = [
        f"<h1>{html.escape(str(plan.get('model')))}: {html.escape(experiment.path.name)}</h1>",
        f"<p class=quiet>{said['rows']}; {size}; baseline: {said['baseline']}. Intervals: {said['interval']}.",
        f"P values: {said['p']}. What holds here holds of this model, these prompts and these measures.</p>",
    ]
    scripts: bool | str = True  # plotly's own code once, in the page itself
    for name, found in results.items():
        parts.append(f"<h2>{html.escape(name.replace('_', ': '))}</h2>")
        for make in (figures.scores, *((figures.set_scores,) if found.sizes["set_measure"] else ())):
            parts.append(make(found).to_html(full_html=False, include_plotlyjs=scripts))
            scripts = False
        parts.append(_table(found))
        parts += [
            f"<p class=quiet>{html.escape(str(m.values))}: {html.escape(str(m['meaning'].values))}.</p>"
            for m in found["measure"]
        ]
    parts += ["<h2>Pictures</h2>", _gallery(experiment)]
    if published:
        lines = [(f.claim, f.model, f.value, f.source) for f in published]
        cells = ["".join(f"<td class=text>{html.escape(cell)}</td>" for cell in line) for line in lines]
        rows = "".join(f"<tr>{line}</tr>" for line in cells)
        head = "<tr><th>claim</th><th>model</th><th>value</th><th>source</th></tr>"
        parts += ["<h2>The papers say</h2><p class=quiet>Not measured here.</p>", f"<table>{head}{rows}</table>"]
    body = "\n".join(parts)
    head = f"<meta charset=utf-8><title>interp report</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en>{head}<body>{body}</body></html>"


def _table(found: xr.Dataset) -> str:
    """A row for every measure and setting."""
    head = ("measure", "setting", "value", "interval", "less the baseline", "interval", "wins", "p, Holm", "effect", "verdict")
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for measure in found["measure"].to_numpy():
        for setting in found["setting"].to_numpy():
            one = found.sel(measure=measure, setting=setting)
            verdict = str(one["verdict"].values)
            numbers = [
                _short(one["value"]),
                f"[{_short(one['low'])}, {_short(one['high'])}]",
                _short(one["over"]),
                f"[{_short(one['over_low'])}, {_short(one['over_high'])}]",
                *(_short(one[name]) for name in ("win", "p_holm", "effect")),
            ]
            words = "".join(f"<td class=text>{html.escape(str(text))}</td>" for text in (measure, setting))
            cells = words + "".join(f"<td>{number}</td>" for number in numbers)
            kind = verdict if verdict in ("better", "worse") else "quiet"
            lines.append(f"<tr>{cells}<td class='text {kind}'>{html.escape(verdict)}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _short(value: Any) -> str:
    number = float(value)
    return "-" if math.isnan(number) else "0" if abs(number) < NOTHING else f"{number:.3g}"


def _gallery(experiment: Experiment) -> str:
    """The first prompts under every setting."""
    axes, parts, seen = experiment.axes, list[str](), list[str]()
    for row, text in enumerate(axes["prompt_text"].to_numpy().astype(str)):
        if text in seen or len(seen) == PICTURES:
            continue
        seen.append(text)
        parts.append(f"<p>{html.escape(text)}</p>")
        for arm, setting in enumerate(axes["arm"].to_numpy()):
            if experiment.done[row, arm]:
                image = f"<img src='{_source(experiment.picture(row, arm))}' width={SIDE} alt=''>"
                parts.append(f"<figure>{image}<figcaption>{html.escape(str(setting))}</figcaption></figure>")
    return "\n".join(parts)


def _source(picture: Any) -> str:
    held = io.BytesIO()
    image = Image.fromarray(np.asarray(picture))
    image.thumbnail((4 * SIDE, 4 * SIDE))
    image.save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _numbers(found: xr.Dataset) -> dict[str, Any]:
    """A result as JSON: NaN as null."""
    plain = found.to_dict()

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): clean(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [clean(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return dict(clean(plain))
