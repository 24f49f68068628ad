"""Shared by the pages: skeleton, tables, figures and pictures, all in one file."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from interp.analysis.table import as_text, clean
from interp.base.errors import InputError
from interp.figures import style
from interp.store.create import storage_errors

SIDE = 128  # pixels of a picture
GOOD, BAD = ("better", "holds"), ("worse", "does not hold")  # qualified verdicts are neither
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;
vertical-align:top}
th{text-align:left}td{text-align:right}td:first-child,td.text{text-align:left}.good{color:#00634a;font-weight:600}
.bad{color:#a33a00;font-weight:600}.quiet{color:#666}figure{display:inline-block;margin:2px;max-width:140px;vertical-align:top}
figcaption{font-size:12px;color:#666;overflow-wrap:anywhere}img{image-rendering:pixelated}h2{margin-top:2em}
"""


class Link(NamedTuple):
    """A cell that leads to a heading of the page."""

    text: str
    heading: str


class Page:
    """Builds a page from text, tables, figures and pictures."""

    def __init__(self, title: str, static: bool = False) -> None:
        self.title, self.static = title, static
        self.parts = [f"<h1>{html.escape(title)}</h1>"]
        self._scripts: bool | str = True  # embed plotly's code in the page once

    def heading(self, text: str) -> None:
        """Add a heading."""
        self.parts.append(f"<h2 id='{_anchor(text)}'>{html.escape(text)}</h2>")

    def text(self, text: str, quiet: bool = True) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p{' class=quiet' if quiet else ''}>{html.escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]], verdicts: Sequence[str] = ("verdict",)) -> None:
        """Add a table: numbers right-aligned, texts left-aligned, verdicts in colour."""
        lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
        for row in rows:
            cells = [_cell(value, name in verdicts) for name, value in zip(head, row, strict=True)]
            lines.append(f"<tr>{''.join(cells)}</tr>")
        self.parts.append(f"<table>{''.join(lines)}</table>")

    def figure(self, made: Any) -> None:
        """Add a plotly figure, interactive or, on a static page, as SVG."""
        if self.static:
            self.parts.append(f"<div>{style.svg(made)}</div>")
            return
        self.parts.append(made.to_html(full_html=False, include_plotlyjs=self._scripts))
        self._scripts = False

    def pictures(self, pictures: Iterable[tuple[Any, str]]) -> None:
        """Add pictures, (y, x, rgb) uint8, each with a caption."""
        for picture, said in pictures:
            image = f"<img src='{style.source(picture, 4 * SIDE)}' width={SIDE} alt=''>"
            self.parts.append(f"<figure>{image}<figcaption>{html.escape(said)}</figcaption></figure>")

    def html(self) -> str:
        """Return the page's HTML."""
        head = f"<meta charset=utf-8><title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        body = "\n".join(self.parts)
        return f"<!doctype html><html lang=en>{head}<body>{body}</body></html>"


def write(page: Page, numbers: Any, out: str | Path) -> tuple[Path, Path]:
    """Write OUT (.html) and the numbers as .json."""
    path = Path(out)
    if path.suffix != ".html":
        raise InputError(f"out must end in .html; got {path.name!r}")
    beside = path.with_suffix(".json")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole(path, page.html())
        whole(beside, json.dumps(clean(numbers), indent=1, ensure_ascii=False))
    return path, beside


def whole(path: Path, text: str) -> None:
    """Write a file atomically."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _anchor(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def _cell(value: Any, verdict: bool) -> str:
    if isinstance(value, Link):
        return f"<td class=text><a href='#{_anchor(value.heading)}'>{html.escape(value.text)}</a></td>"
    if not isinstance(value, str):
        return f"<td>{as_text(value)}</td>"
    kind = (" good" if value in GOOD else " bad" if value in BAD else " quiet") if verdict else ""
    return f"<td class='text{kind}'>{html.escape(value)}</td>"
