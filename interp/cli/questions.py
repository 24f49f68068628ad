"""The command of every analysis of a run (`interp.questions`), and `interp compare`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from interp.analysis.table import table
from interp.base.errors import StoreError
from interp.base.options import OneStream, text_of
from interp.cli.console import say
from interp.cli.flags import spread
from interp.cli.results import AsJson, Figures, Format, RunPath, Save, draw, papers_say, show
from interp.questions.question import Question


def command(question: Question) -> Callable[..., None]:
    """Make the command of an analysis, with its options and those for results and figures."""

    def ask(
        run: RunPath,
        asked: Any,
        save: Save = True,
        figures: Figures = None,
        format: Format = "html",
        as_json: AsJson = False,
    ) -> None:
        from interp.store.saved_results import write_result
        from interp.store.traced_run import open_run

        opened = open_run(run)
        if opened.bundled:
            say("this store holds only summaries: no intervals, stability, energy or outliers")
        asked = question.named(opened, asked)
        results = question.compute(opened, asked)
        show(question.shown(results, asked), as_json)
        papers_say(question.papers, as_json)
        if save:
            try:
                for name, result in results.items():
                    write_result(opened.path, name, result)
            except StoreError as error:
                raise StoreError(f"{error}. What is printed is complete: --no-save leaves the store alone") from None
            say(f"kept in {opened.path}: analysis/{', analysis/'.join(results)}")
        draw(figures, format, question.figures(opened, results, asked) if figures is not None else {})

    ask.__name__, ask.__doc__ = question.name, question.about
    return spread(ask, {"asked": question.options}, get_type_hints(ask, include_extras=True))


def _at_largest(found: Any) -> Any:
    """Every run at the block of its largest ratio."""
    return found.isel(block=found["ratio"].fillna(-1).argmax("block"))


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Stores to compare.")],
    labels: Annotated[str | None, typer.Option(help="Names of the runs, comma-separated. [default: their file names]")] = None,
    stream: Annotated[str, typer.Option(help=text_of(OneStream))] = "image",
    criterion: Annotated[str, typer.Option(help="As in `interp massive`.")] = "robust",
    figures: Figures = None,
    format: Format = "html",
    as_json: AsJson = False,
) -> None:
    """Compare the same analyses of several runs, such as checkpoints, sizes or models."""
    from interp.analysis import comparison
    from interp.figures import causes
    from interp.store.traced_run import open_run

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    found = comparison.runs([open_run(path) for path in runs], names, stream=stream, criterion=criterion)
    show({"comparison": (found, table("comparison", _at_largest).rows(found))}, as_json)
    papers_say(["comparison"], as_json)
    draw(figures, format, {"comparison": partial(causes.comparison, found)})
