"""`interp info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.console import print_json, print_table


def info(
    run: Annotated[Path, typer.Argument(help="A store that `interp trace` or an experiment wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")] = False,
) -> None:
    """Print a store's contents, provenance and progress."""
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.traced_run import open_run

    if is_experiment(run):
        experiment = open_experiment(run)
        if as_json:
            details = {"parameters": experiment.parameters, "plan": experiment.plan, "provenance": experiment.provenance}
            print_json({"store": str(experiment.path), **experiment.facts(), **details})
            return
        facts = {**experiment.facts(), "created": str(experiment.provenance.get("created"))}
        print_table(str(experiment.path), ["", ""], [[name, value] for name, value in facts.items()])
        arms = [str(arm) for arm in experiment.axes["arm"].to_numpy()]
        print_table(
            "", ["arm", "drawn"], [[arm, f"{int(n)}"] for arm, n in zip(arms[:20], experiment.done.sum(axis=0), strict=False)]
        )
        if len(arms) > 20:
            print(f"... and {len(arms) - 20} more")
        return
    opened = open_run(run)
    if as_json:
        print_json(
            {
                "store": str(opened.path),
                "rows_done": opened.rows_done,
                "rows_total": opened.rows_total,
                **opened.facts(),
                "plan": opened.plan,
                "provenance": opened.provenance,
            }
        )
        return
    origin = opened.provenance
    facts = {**opened.facts(), "created": f"{origin.get('created')}, batch size {origin.get('batch_size')}"}
    print_table(str(opened.path), ["", ""], [[name, value] for name, value in facts.items()])
    rows = opened.images["prompt"].to_numpy()[:10]
    texts = [[str(row), text] for row, text in zip(rows, opened.prompts, strict=False)]
    print_table("", ["prompt", "text"], texts)
    if len(opened.prompts) > len(texts):
        print(f"... and {len(opened.prompts) - len(texts)} more")
