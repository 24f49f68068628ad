"""The table of stores on the first page, from their attributes and the files that mark finished rows, without opening them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from interp.dashboard.roots import Found
from interp.store.saved_results import result_names


def overview(stores: Sequence[Found]) -> pd.DataFrame:
    """One line per store: name, kind, model, rows, share done, results, created; or why it cannot be opened."""
    lines = [_line(store) for store in stores]
    table = pd.DataFrame(lines)
    return table if any(line["problem"] for line in lines) else table.drop(columns="problem")


def _line(store: Found) -> dict[str, Any]:
    line = {"store": store.name, "kind": store.kind, "model": "", "rows": "", "done": None, "results": "", "created": ""}
    if store.problem:
        return {**line, "problem": store.problem}
    try:
        attributes = json.loads((store.path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        total, finished = _planned(store), _done(store.path)
        origin, results = attributes.get("provenance", {}), ", ".join(result_names(store.path))
    except Exception as error:  # a damaged store stays a line of the table, whatever error it raises
        return {**line, "problem": f"{type(error).__name__}: {error}"}
    made = str(origin.get("created", ""))[:16].replace("T", " ")
    rows = f"{finished} of {total}" + ("" if finished == total else " (unfinished)")
    share = finished / total if total else 1.0
    model = str(attributes.get("plan", {}).get("model"))
    return {**line, "model": model, "rows": rows, "done": share, "results": results, "created": made, "problem": ""}


def _planned(store: Found) -> int:
    """Number of rows of a trace, or of planned cells of an experiment."""
    if store.kind == "trace":
        return int(json.loads((store.path / "done" / "zarr.json").read_text(encoding="utf-8"))["shape"][0])
    return int(np.asarray(zarr.open_array(store.path / "planned", mode="r")[...]).sum())


def _done(path: Path) -> int:
    """Number of finished rows or cells: one file each."""
    return sum(len(files) for _, _, files in os.walk(path / "done" / "c"))
