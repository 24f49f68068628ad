"""The table of stores on the first page, from their attributes and the files that mark finished rows, without opening them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import zarr

from interp.dashboard.roots import Found, finished
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
        what = "done" if store.kind == "trace" else "planned"
        planned = zarr.open_array(store.path / what, mode="r")
        total = planned.shape[0] if store.kind == "trace" else int(np.asarray(planned[...]).sum())
        done = finished(store.path)
        results = ", ".join(result_names(store.path))
    except Exception as error:  # a damaged store stays a line of the table, whatever error it raises
        return {**line, "problem": f"{type(error).__name__}: {error}"}
    made = str(store.attributes.get("provenance", {}).get("created", ""))[:16].replace("T", " ")
    rows = f"{done} of {total}" + ("" if done == total else " (unfinished)")
    share = done / total if total else 1.0
    model = str(store.attributes.get("plan", {}).get("model"))
    return {**line, "model": model, "rows": rows, "done": share, "results": results, "created": made, "problem": ""}
