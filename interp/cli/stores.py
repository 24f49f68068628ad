"""Commands on stores: `info`, `verify`, `merge`, `export`, `report`, `dashboard`."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from interp.base.errors import InputError, StoreError, counted
from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.cli.console import graceful, print_json, print_table, progress, say
from interp.cli.results import AsJson, RunPath

if TYPE_CHECKING:
    from interp.store.traced_run import Run
    from interp.store.verification import Fault

AS_STORED = Loading("")


def info(
    run: Annotated[Path, typer.Argument(help="A store that `interp trace` or an experiment wrote.")],
    as_json: AsJson = False,
) -> None:
    """Print a store's contents, provenance and progress."""
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.traced_run import open_run

    opened: Any = open_experiment(run) if is_experiment(run) else open_run(run)
    facts, plan = opened.facts(), {"plan": opened.plan, "provenance": opened.provenance}
    created = str(opened.provenance.get("created"))
    if is_experiment(run):
        document = {**facts, "parameters": opened.parameters, **plan}
        columns, most = ["arm", "drawn"], 20
        rows = zip(opened.axes["arm"].to_numpy(), opened.done.sum(axis=0), strict=True)
    else:
        document = {"rows_done": opened.rows_done, "rows_total": opened.rows_total, **facts, **plan}
        columns, most = ["prompt", "text"], 10
        rows = zip(opened.images["prompt"].to_numpy(), opened.prompts, strict=True)
        created += f", batch size {opened.provenance.get('batch_size')}"
    if as_json:
        print_json({"store": str(opened.path), **document})
        return
    print_table(str(opened.path), ["", ""], list({**facts, "created": created}.items()))
    lines = [[str(value) for value in row] for row in rows]
    print_table("", columns, lines[:most])
    if len(lines) > most:
        print(f"... and {len(lines) - most} more")


def verify(
    run: RunPath,
    repair: Annotated[bool, typer.Option("--repair", help="Trace faulty rows again, with the store's model.")] = False,
    loading: Loading = AS_STORED,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store's rows: checksums, shapes, row identity, impossible values; repair by tracing again.

    The loading options apply to --repair only; by default they are the store's.
    """
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
    from interp.base.plan import Record
    from interp.base.same_plan import check_same
    from interp.base.seeds import SHARED
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
    given = {field.name: plan[field.name] for field in dataclasses.fields(Sampling) if field.name != "seeds"}
    sampling = Sampling(**{**given, "guidance": guidance, "interventions": edits, "seeds": plan.get("seeds", SHARED)})
    texts = [str(text) for text in opened._reader.prompt_text][::repeats]
    prepared = prepare(loaded, texts, sampling, record=Record.from_json(plan["record"]))
    check_same(prepared.plan.to_json(), plan, str(opened.path))  # discard only rows that can be traced again
    with writing_lock(opened.path):
        rows = forget(opened.path, faults)
    batch = int(opened.provenance.get("batch_size", 1))
    with progress("prompts") as show, graceful() as stopped:
        execute(prepared, opened.path, Execution(batch, on_progress=show, stopped=stopped), only=rows)
    return rows


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Stores of the same plan, with different rows done.")],
    out: Annotated[Path, typer.Option(help="The store to create or extend.")],
    as_json: AsJson = False,
) -> None:
    """Join rows traced elsewhere into one store; their files are copied unchanged."""
    from interp.store.merging import merge as join
    from interp.store.traced_run import open_run

    copied = join(out, parts)
    run = open_run(out)
    if as_json:
        print_json({"store": str(out), "copied": copied, "rows_done": run.rows_done, "rows_total": run.rows_total})
        return
    print(out)
    say(f"{counted(copied, 'row')} copied; {run.rows_done} of {run.rows_total} done")


def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .nc (NetCDF).")],
    what: Annotated[
        str, typer.Option(help="stats, gates, branches or summary; or analysis/NAME, a result kept in the store.")
    ] = "stats",
    variables: Annotated[str | None, typer.Option(help='Such as "mean_abs,max_abs". [default: all]')] = None,
    stream: Annotated[str | None, typer.Option(help="image or text. [default: both]")] = None,
    prompts: Annotated[str | None, typer.Option(help='Rows, such as "0-9". [default: all]')] = None,
    steps: Annotated[str | None, typer.Option(help='Steps, such as "0,10,19". [default: all]')] = None,
    blocks: Annotated[str | None, typer.Option(help='Blocks, such as "3-5". [default: all]')] = None,
    channels: Annotated[str | None, typer.Option(help='Channels, such as "29". [default: all]')] = None,
    as_json: AsJson = False,
) -> None:
    """Write part of a store as CSV, Parquet or NetCDF, row by row: the store may be larger than memory."""
    from interp.analysis import sources
    from interp.store.tables import export as write
    from interp.store.traced_run import open_run

    opened = open_run(run)
    data = _part(opened, what)
    if variables is not None:
        wanted = [name.strip() for name in variables.split(",") if name.strip()]
        absent = [name for name in wanted if name not in data]
        if absent or not wanted:
            raise InputError(f"variables must be some of {', '.join(map(str, data.data_vars))}; got {variables!r}")
        data = data[wanted]
    if stream is not None:
        data = data.sel(stream=[sources.check_stream(data, stream)])
    for axis, chosen in (("prompt", prompts), ("step", steps), ("block", blocks), ("channel", channels)):
        if chosen is not None:
            if axis not in data.dims:
                raise InputError(f"{axis}s: {what} has no {axis} axis; it has {', '.join(map(str, data.dims))}")
            data = sources.choose(data, axis, chosen, f"{axis}s")
    path = write(data, out)
    size = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "bytes": size, "what": what, "axes": {str(axis): n for axis, n in data.sizes.items()}})
        return
    print(path)
    say(f"{decimal(size)}: {', '.join(f'{axis} {n}' for axis, n in data.sizes.items())}")


def _part(opened: Any, what: str) -> Any:
    if what.startswith("analysis/"):
        return opened.result(what.removeprefix("analysis/"))
    if what not in ("stats", "gates", "branches", "summary"):
        raise InputError(f"what must be one of stats, gates, branches, summary, or analysis/NAME; got {what!r}")
    data = getattr(opened, what)
    flags = [name for name in data.data_vars if str(name).endswith("present")]
    return data.drop_vars(flags)


def report(
    store: Annotated[Path, typer.Argument(help="A store that `interp evaluate` drew or scored.")],
    out: Annotated[Path | None, typer.Option(help="The page to write. [default: STORE.html]")] = None,
    static: Annotated[bool, typer.Option("--static", help="Static figures, no scripts (needs the extra `export`).")] = False,
) -> None:
    """Write a store's evaluation as one self-contained HTML page, and its numbers as JSON."""
    from interp.evaluation.gallery import opened
    from interp.report import report as write

    for path in write(opened(store), out or store.with_suffix(".html"), static=static):
        print(path)


def dashboard(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Stores, or folders of stores. [default: cache/, or here]")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    host: Annotated[str, typer.Option(help="Address to serve on; localhost allows this machine only.")] = "localhost",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Explore stores in a browser: runs, massive channels, experiments, guidance, a blind study. Loads no model."""
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the dashboard needs streamlit: pip install 'interp[dashboard]'")
    from interp.dashboard import roots
    from interp.dashboard.serve import serve

    where = roots.parse([str(run) for run in runs or []])
    if host not in ("localhost", "127.0.0.1", "::1"):
        say(f"anyone who can reach {host} can read these stores and add answers to studies: there is no password")
    options = {"server.address": host, "server.port": str(port), "server.headless": str(not browser).lower()}
    say(f"http://{host}:{port}   (Ctrl-C to stop)")
    serve(where, options)
