"""`interp verify`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.cli.console import counted, graceful, print_json, print_table, progress, say
from interp.cli.results import AsJson, RunPath

if TYPE_CHECKING:
    from interp.store.traced_run import Run
    from interp.store.verification import Fault


AS_STORED = Loading("")


def verify(
    run: RunPath,
    repair: Annotated[bool, typer.Option("--repair", help="Trace faulty rows again, with the store's model.")] = False,
    loading: Loading = AS_STORED,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store's rows: checksums, shapes, row identity, impossible values; repair by tracing again.

    The loading options apply to --repair only; by default they are the store's.
    """
    from interp.base.errors import StoreError
    from interp.store.traced_run import open_run
    from interp.store.verification import verify as check

    opened = open_run(run)
    found, repaired = check(run), []
    if found and repair:
        repaired = _repair(opened, found, loading)
        found = check(run)
    if as_json:
        faults = [{"row": fault.row, "where": fault.where, "reason": fault.reason} for fault in found]
        print_json({"store": str(run), "rows": int(opened.rows_done), "faults": faults, "repaired": repaired})
    elif found:
        lines = [["-" if f.row is None else str(f.row), f.where, f.reason] for f in found[:50]]
        print_table(f"{len(found)} faults", ["row", "where", "what"], lines)
    if repaired:
        say(f"traced again: rows {', '.join(map(str, repaired))}")
    if found:
        raise StoreError(f"{run} has {len(found)} faults" + ("" if repair else "; --repair traces the rows again"))
    if not as_json:
        print(f"{run}: {counted(open_run(run).rows_done, 'row')}, no fault")


def _repair(opened: Run, faults: list[Fault], loading: Loading) -> list[int]:
    """Discard faulty rows and trace them again with the store's plan."""
    from interp import guidance as guidances
    from interp.base.errors import InputError
    from interp.base.plan import Record
    from interp.base.same_plan import check_same
    from interp.interventions.stored import from_json
    from interp.runs.run import execute
    from interp.store.create import writing_lock
    from interp.store.verification import forget
    from interp.tracing.model import load
    from interp.tracing.prepare import prepare

    plan: dict[str, Any] = opened.plan
    if any(fault.where == "plan" for fault in faults):
        raise InputError(f"{opened.path}: its prompts or seeds are not its plan's, so no row is reliable; trace it again")
    if plan["record"].get("recorders"):
        raise InputError(f"{opened.path} has custom recorders, which are functions; repeat the same interp.trace call")
    origin = opened.provenance
    own = {"dtype": plan["dtype"], "quantize": origin.get("quantize")}
    if not loading.model:
        own |= {"model": plan["model"], "revision": origin.get("revision")}
    loaded = load(**{**vars(loading), **{name: value for name, value in own.items() if not getattr(loading, name)}})
    repeats = int(plan["repeats"])
    guidance = None if plan["guidance"] is None else guidances.from_json(plan["guidance"], load)
    edits = [from_json(edit, model=loaded) for edit in plan["interventions"]]
    given = {field.name: plan[field.name] for field in dataclasses.fields(Sampling)}
    sampling = Sampling(**{**given, "guidance": guidance, "interventions": edits})
    texts = [str(text) for text in opened._reader.prompt_text][::repeats]
    prepared = prepare(loaded, texts, sampling, record=Record.from_json(plan["record"]))
    check_same(prepared.plan.to_json(), plan, str(opened.path))  # discard only rows that can be traced again
    with writing_lock(opened.path):
        rows = forget(opened.path, faults)
    batch = int(opened.provenance.get("batch_size", 1))
    with progress("prompts") as show, graceful() as stopped:
        execute(prepared, opened.path, Execution(batch, on_progress=show, stopped=stopped), only=rows)
    return rows
