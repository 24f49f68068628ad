"""An evaluation's results as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from interp.cli.results import interval
from interp.questions.of_causes import SCORES, TRIVIAL

if TYPE_CHECKING:
    import xarray as xr

Rows = list[dict[str, Any]]
SETS, PAPERS = ", of sets", ", the paper's numbers"


def sections_of(results: Mapping[str, xr.Dataset]) -> dict[str, tuple[xr.Dataset, Rows]]:
    """A table for every result, and for its measures of sets and the paper's numbers."""
    sections: dict[str, tuple[xr.Dataset, Rows]] = {}
    for key, found in results.items():
        name = key.replace("_", ": ", 1) if key.startswith("evaluation_") else key.replace("_", " ")
        for title, make in TABLES[str(found.attrs["analysis"])].items():
            if rows := make(found):
                sections[f"{name}{title}"] = (_of_table(found, title), rows)
    return sections


def _of_table(found: xr.Dataset, title: str) -> xr.Dataset:
    """The result with this table's interval, and without a note, in place of those of single pictures."""
    if title == SETS:
        return found.assign_attrs(interval=found.attrs.get("set_interval", ""), note="")
    return found.assign_attrs(interval="", note="") if title == PAPERS else found


def picture_rows(found: xr.Dataset) -> Rows:
    """A row for every measure and setting."""
    return [
        {
            "measure": str(measure),
            "setting": str(setting),
            "value": float(one["value"]),
            "interval": interval(one["low"], one["high"]),
            "less the baseline": float(one["over"]),
            "its interval": interval(one["over_low"], one["over_high"]),
            "wins": float(one["win"]),
            "wins, interval": interval(one["win_low"], one["win_high"]),
            "p, Holm": float(one["p_holm"]),
            "effect": float(one["effect"]),
            "verdict": str(one["verdict"].values),
        }
        for measure in found["measure"].to_numpy()
        for setting in found["setting"].to_numpy()
        for one in [found.sel(measure=measure, setting=setting)]
    ]


def set_rows(found: xr.Dataset) -> Rows:
    """A row for every setting, a column for every measure of sets."""
    lines: Rows = []
    if not found["set_value"].notnull().any():
        return lines
    for setting in found["setting"].to_numpy():
        line: dict[str, Any] = {"setting": str(setting)}
        for measure in found["set_measure"].to_numpy():
            one = found.sel(setting=setting, set_measure=measure)
            line |= {str(measure): float(one["set_value"]), f"{measure}, interval": interval(one["set_low"], one["set_high"])}
        lines.append(line)
    return lines


def paper_rows(found: xr.Dataset) -> Rows:
    """The paper's published numbers for each setting that has some; not measured here."""
    if "paper" not in found.coords:
        return []
    pairs = zip(found["setting"].to_numpy(), found["paper"].to_numpy(), strict=True)
    return [{"setting": str(setting), "the paper, on its own models and prompts": str(said)} for setting, said in pairs if said]


def collapse_rows(found: xr.Dataset) -> Rows:
    """A row for every measure, kind and number of channels."""
    return [
        {
            "measure": str(measure).replace("_", " "),
            "channels": f"{kind} {k}",
            "value": float(one["value"]),
            "interval": interval(one["low"], one["high"]),
            "less the lowest": float(one["over_lowest"]),
            "its interval": interval(one["over_lowest_low"], one["over_lowest_high"]),
            "energy changed": float(one["changed_energy"]),
        }
        for measure in found["measure"].to_numpy()
        for kind in found["kind"].to_numpy()
        for k in found["k"].to_numpy()
        for one in [found.sel(measure=measure, kind=kind, k=k)]
    ]


def study_rows(found: xr.Dataset) -> Rows:
    """A row for every question of a blind study."""
    return [
        {
            "question": str(question),
            f"{found.attrs['methods'][0]} wins": float(one["win"]),
            "interval": interval(one["win_low"], one["win_high"]),
            "agreement": float(one["agreement"]),
        }
        for question in found["question"].to_numpy()
        for one in [found.sel(question=question)]
    ]


TABLES: Mapping[str, Mapping[str, Callable[[Any], Rows]]] = {
    "evaluation": {"": picture_rows, SETS: set_rows, PAPERS: paper_rows},
    "segmentation_score": {"": (SCORES + TRIVIAL).rows},
    "collapse": {"": collapse_rows},
    "study": {"": study_rows},
}
