"""The command of every experiment (`interp.experiments.kinds`); the cost that drawing commands print, and their workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.filesize import decimal
from typing_extensions import Doc

from interp.base.errors import InputError, counted
from interp.base.executor import HERE as IN_PROCESS
from interp.base.executor import Execution, Executor
from interp.base.options import Loading, Sampling
from interp.cli.console import graceful, progress, say
from interp.cli.flags import spread
from interp.cli.results import AsJson, Figures, Format, draw, papers_say, show
from interp.experiments.kind import BATCH_SIZE, Figure, Kind

if TYPE_CHECKING:
    from interp.experiments.design import Cost
    from interp.store.experiment import Experiment

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the cost and stop; channels are ranked first where needed.")]
Out = Annotated[
    Path | None,
    typer.Option(help="The experiment's store; the same command resumes it. [default: a store in cache/ for these options]"),
]
STRIP = (6, 10)  # rows and arms of a figure of pictures


@dataclasses.dataclass(frozen=True)
class Spread:
    """The workers to spread the work over."""

    workers: Annotated[int | None, Doc("Number of worker processes on this machine, one per GPU (dask.distributed).")] = None
    scheduler: Annotated[str | None, Doc("Use the workers of a dask scheduler, such as tcp://HOST:8786.")] = None

    def __bool__(self) -> bool:
        """Whether workers are used."""
        return self.workers is not None or self.scheduler is not None


TOGETHER, HERE = Execution(batch_size=BATCH_SIZE), Spread()


def command(kind: Kind) -> Callable[..., None]:
    """Make the command of an experiment, with its options and those of the model, the sampling and the execution."""

    def run(
        loading: Loading,
        options: Any,
        sampling: Sampling,
        execution: Execution = TOGETHER,
        over: Spread = HERE,
        out: Out = None,
        dry_run: DryRun = False,
        figures: Figures = None,
        format: Format = "html",
        as_json: AsJson = False,
    ) -> None:
        from interp.tracing.model import load

        asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        through, loading = spread_experiment(over, loading, asked.get("run", loading))
        design = kind.prepare(load(**vars(loading)), options, sampling, execution, out=out)
        print_cost(design.cost)
        if dry_run:
            if asked.get("run", loading) is None:
                say("the first prompts were traced to rank channels; --run STORE ranks them by a trace that you have")
            return
        with saying_rates(through), progress("cells") as on_progress, graceful() as stopped:
            made = design.run(through=through, on_progress=on_progress, stopped=stopped)
        show(kind.sections(made, asked), as_json)
        papers_say(kind.papers, as_json)
        say(f"kept in {made.path}: analysis/{', analysis/'.join(made.results)}")
        shown = {**kind.figures, **({"pictures": kind.strip(made, *STRIP)} if made.has_pictures else {})}
        each = [(one, file, chosen) for name, one in shown.items() for file, chosen in one.each(name, asked).items()]
        draw(figures, format, {file: functools.partial(_figure, one, made, chosen) for one, file, chosen in each})

    run.__name__, run.__doc__ = kind.name, kind.question
    kinds = {"loading": Loading, "options": kind.options, "sampling": Sampling, "execution": Execution, "over": Spread}
    return spread(run, kinds, get_type_hints(run, include_extras=True))


def _figure(figure: Figure, made: Experiment, chosen: dict[str, str]) -> Any:
    return figure.make(figure.of(made, chosen), chosen)


def print_cost(cost: Cost) -> None:
    """Print the cost of an experiment before it starts."""
    pictures = f"{counted(cost.pictures, 'picture')}, " if cost.pictures else ""
    say(f"{counted(cost.rows, 'sample')} x {counted(cost.arms, 'arm')}: {pictures}{cost.forwards:,.0f} forwards of one picture")
    if cost.held:
        say(f"states of the clean run held in memory: {decimal(int(cost.held))}")


def spread_work(spread: Spread, loading: Loading) -> tuple[Executor, Loading]:
    """The executor, and the loading options for this process: with workers, its model stays on the CPU."""
    if not spread:
        return IN_PROCESS, loading
    from interp.models.load import default_dtype
    from interp.runs.cluster import Workers

    made = Workers(spread.workers, scheduler=spread.scheduler, device=loading.device, offload=loading.offload)
    # the workers' default dtype, not this machine's
    dtype = loading.dtype if loading.dtype is not None else default_dtype(loading.model, made.provenance()["device"])
    return made, dataclasses.replace(loading, dtype=dtype, device="cpu", offload="none")


def spread_experiment(spread: Spread, loading: Loading, run: Any) -> tuple[Executor, Loading]:
    """The executor of an experiment. Its channels must come from a stored run where the workers have GPUs."""
    made, here = spread_work(spread, loading)
    if run is None and made.provenance().get("device", "cpu") != "cpu":
        raise InputError("workers with GPUs need --run, a traced store to choose the channels from (interp trace makes one)")
    return made, here


@contextlib.contextmanager
def saying_rates(executor: Executor) -> Iterator[None]:
    """Print each worker's rows and rate at the end, also after an error."""
    try:
        yield
    finally:
        done: dict[str, int] = getattr(executor, "done", {})
        for name, rate in executor.rates().items():
            say(f"worker {name}: {done[name]} done, {rate:.1f} a minute")
