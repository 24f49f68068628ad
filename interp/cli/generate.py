"""`interp generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.base.executor import Execution
from interp.base.options import Loading, Sampling
from interp.cli.console import say

ALONE = Execution()
BRANCHES = ("rows", "sequential")


def generate(
    loading: Loading,
    out: Annotated[Path, typer.Option(help="Folder for PNGs, sheet.png and recipe.json.")],
    sampling: Sampling,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; repeat for more.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A prompts file.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="A trace of the model: warn where dg edits channels that are not massive in this trace.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help='Seeds, such as "0-3" or "1,7". [default: --seed and --repeats]')] = None,
    branches: Annotated[
        str, typer.Option(help="rows: branches as rows of one batch; sequential: one by one, with less memory.")
    ] = "rows",
    execution: Execution = ALONE,
) -> None:
    """Draw pictures, with or without guidance; every PNG contains its recipe."""
    import xarray as xr

    from interp.base.errors import InputError
    from interp.base.sites import parse_indices
    from interp.experiments.generation import generate as drawn_by
    from interp.experiments.save import save
    from interp.runs.run import provenance
    from interp.store.locations import expanded
    from interp.tracing.model import load

    if (prompts is None) == (not prompt):
        raise InputError("prompts: give --prompt TEXT (once or more) or --prompts FILE")
    if branches not in BRANCHES:
        raise InputError(f"branches must be one of {', '.join(BRANCHES)}; got {branches!r}")
    chosen = [sampling.seed] if seeds is None else parse_indices(seeds, "seeds") or ()
    if not chosen or min(chosen) < 0:
        raise InputError(f'seeds must be integers of at least 0, such as "0-3"; got {seeds!r}')
    loaded = load(**vars(loading))
    if run is not None:
        from interp.guidance.presets import check_run
        from interp.store.traced_run import open_run
        from interp.tracing.prepare import as_guidance

        given = as_guidance(sampling.guidance, loaded)
        check_run(given.methods if given is not None else (), open_run(run))
    parts: list[Any] = []
    for seed in chosen:
        of_seed = {**vars(sampling), "seed": seed}
        texts = prompts if prompts is not None else prompt or []
        sequential = branches == "sequential"
        parts.append(drawn_by(loaded, texts, batch_size=execution.batch_size, sequential=sequential, **of_seed))
        say(f"seed {seed}: {parts[-1].sizes['prompt']} pictures")
    # the plan is the first seed's, with all seeds as its seed
    plan = {**parts[0].attrs["plan"], "seed": list(chosen) if len(chosen) > 1 else chosen[0]}
    together = xr.concat(parts, "prompt", combine_attrs="drop").assign_attrs(plan=plan)
    folder = expanded(out)
    paths = save(together, folder, provenance(loaded, execution.batch_size))
    for path in [*paths, folder / "sheet.png"]:
        print(path)
