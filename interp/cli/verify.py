"""`interp verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful, print_json, print_table, say, trace_progress
from interp.cli.results import RunPath

if TYPE_CHECKING:
    from interp.store.opened import Run
    from interp.store.verify import Fault


def verify(
    run: RunPath,
    repair: Annotated[bool, typer.Option("--repair", help="Trace faulty rows again, with the model the store names.")] = False,
    model: Annotated[str | None, typer.Option(help="For --repair, where the model is now. [default: as in the store]")] = None,
    device: Annotated[str, typer.Option(help="For --repair: auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")] = False,
) -> None:
    """Read every byte of a store's rows: checksums, shapes, row identity, values that cannot be; repair by tracing again."""
    from interp.errors import StoreError
    from interp.store.opened import open_run
    from interp.store.verify import verify as check

    opened = open_run(run)
    found, repaired = check(run), []
    if found and repair:
        repaired = _repair(opened, found, model, device)
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
        print(f"{run}: {open_run(run).rows_done} rows, no fault")


def _repair(opened: Run, faults: list[Fault], model: str | None, device: str) -> list[int]:
    """Forget what is faulty and go on with the store's own plan."""
    from interp.errors import InputError
    from interp.guidance import combine
    from interp.interventions.stored import from_json
    from interp.plan import Record, check_same
    from interp.run import execute
    from interp.store.create import writing_lock
    from interp.store.verify import forget
    from interp.tracing.model import load
    from interp.tracing.prepare import prepare

    plan: dict[str, Any] = opened.plan
    if any(fault.where == "plan" for fault in faults):
        raise InputError(f"{opened.path}: its prompts or seeds are not its plan's, so no row can be trusted; trace it anew")
    if plan["record"].get("recorders"):
        raise InputError(f"{opened.path} has recorders of your own, which are functions; make the same interp.trace call again")
    origin = opened.provenance
    loaded = load(
        model or plan["model"],
        dtype=plan["dtype"],
        device=device,
        revision=origin.get("revision") if model is None else None,
        quantize=origin.get("quantize"),
    )
    repeats = int(plan["repeats"])
    prepared = prepare(
        loaded,
        [str(text) for text in opened._shelf.prompt_text][::repeats],
        steps=plan["steps"],
        seed=plan["seed"],
        repeats=repeats,
        height=plan["height"],
        width=plan["width"],
        guidance=None if plan["guidance"] is None else combine.from_json(plan["guidance"], load),
        negative_prompt=plan["negative_prompt"],
        interventions=[from_json(edit, model=loaded) for edit in plan["interventions"]],
        record=Record.from_json(plan["record"]),
        settings=plan["settings"],
    )
    check_same(prepared.plan.to_json(), plan, str(opened.path))  # nothing is forgotten that cannot be traced again
    with writing_lock(opened.path):
        rows = forget(opened.path, faults)
    batch = int(opened.provenance.get("batch_size", 1))
    with trace_progress() as show, graceful() as stopped:
        execute(prepared, opened.path, batch_size=batch, only=rows, on_progress=show, stopped=stopped)
    return rows
