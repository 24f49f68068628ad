"""The table of stores on the first page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from interp.dashboard import opened
from interp.dashboard.roots import Found
from interp.errors import InterpError


def overview(stores: Sequence[Found]) -> pd.DataFrame:
    """A line for every store: name, kind, model, rows, share done, results, created; or why it cannot be opened."""
    return pd.DataFrame([_line(store) for store in stores])


def _line(store: Found) -> dict[str, Any]:
    empty = {"model": "", "rows": "", "done": None, "results": "", "created": ""}
    line = {"store": store.name, "kind": store.kind, **empty, "problem": store.problem}
    if store.problem:
        return line
    try:
        if store.kind == "trace":
            run = opened.run(store.path)
            model, results, origin = run.plan.get("model"), run.results, run.provenance
            finished, total = run.rows_done, run.rows_total
        else:
            experiment = opened.experiment(store.path)
            model, results, origin = experiment.plan.get("model"), experiment.results, experiment.provenance
            finished, total = int(experiment.done.sum()), int(experiment.planned.sum())
    except InterpError as error:
        return {**line, "problem": str(error)}
    except Exception as error:  # a damaged store is a line of the table, whatever reading it raised
        return {**line, "problem": f"{type(error).__name__}: {error}"}
    made = str(origin.get("created", ""))[:16].replace("T", " ")
    share = finished / total if total else 1.0
    rows = f"{finished} of {total}" + ("" if finished == total else " (unfinished)")
    return {**line, "model": str(model), "rows": rows, "done": share, "results": ", ".join(results), "created": made}
