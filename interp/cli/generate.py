"""`interp generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.base.executor import Execution
from interp.base.options import Loading, Sampling

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
    branches: Annotated[
        str, typer.Option(help="rows: branches as rows of one batch; sequential: one by one, with less memory.")
    ] = "rows",
    execution: Execution = ALONE,
) -> None:
    """Draw pictures, with or without guidance; every PNG contains its recipe."""
    from interp.base.errors import InputError
    from interp.experiments.generation import generate as drawn_by
    from interp.experiments.save import save
    from interp.runs.run import provenance
    from interp.store.locations import expanded
    from interp.tracing.model import load

    if (prompts is None) == (not prompt):
        raise InputError("prompts: give --prompt TEXT (once or more) or --prompts FILE")
    if branches not in BRANCHES:
        raise InputError(f"branches must be one of {', '.join(BRANCHES)}; got {branches!r}")
    loaded = load(**vars(loading))
    if run is not None:
        from interp.guidance.presets import check_run
        from interp.store.traced_run import open_run
        from interp.tracing.prepare import as_guidance

        given = as_guidance(sampling.guidance, loaded)
        check_run(given.methods if given is not None else (), open_run(run))
    texts = prompts if prompts is not None else prompt or []
    drawn = drawn_by(loaded, texts, batch_size=execution.batch_size, sequential=branches == "sequential", **vars(sampling))
    folder = expanded(out)
    paths = save(drawn, folder, provenance(loaded, execution.batch_size))
    for path in [*paths, folder / "sheet.png"]:
        print(path)
