"""What the experiments' commands share: their options, the cost before and the progress while drawing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import say

if TYPE_CHECKING:
    from interp.experiments.draw import Progress

ModelName = Annotated[str, typer.Option("--model", help="Alias (see `interp models`), diffusers folder, or hub id.")]
Prompts = Annotated[Path, typer.Option(help="A prompts file.")]
Out = Annotated[Path, typer.Option(help="The experiment's store; the same command goes on where it stopped.")]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="A traced store that the channels are chosen by. [default: the first prompts are traced]"),
]
Steps = Annotated[int | None, typer.Option(help="Sampling steps. [default: the model's]")]
Seed = Annotated[int, typer.Option(help="Seed of every prompt's first repeat.")]
Repeats = Annotated[int, typer.Option(help="Pictures per prompt, with seeds SEED, SEED+1, ...")]
BatchSize = Annotated[int, typer.Option(help="Arms drawn together.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it takes and stop (without --run, channels are still chosen by a trace).")
]
Reference = Annotated[
    Path | None, typer.Option(help="Folder of real pictures that detail is measured by. [default: the originals]")
]


def say_cost(cost: dict[str, float], rows: int, arms: int) -> None:
    """What an experiment takes, before it starts."""
    say(f"{rows} prompts x {arms} arms: {cost['pictures']:,.0f} pictures, {cost['forwards']:,.0f} forwards of one picture")


def parse_numbers(text: str, field: str) -> list[float]:
    """Numbers between commas."""
    from interp.errors import InputError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{field} must be numbers between commas, such as 0.5,1; got {text!r}") from None


@contextlib.contextmanager
def drawing_progress() -> Iterator[Callable[[Progress], None]]:
    """A progress bar on stderr with the time left; every tenth in a line where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    with Progress(TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task("pictures", total=None)
        yield lambda state: bars.update(task, completed=state.done, total=state.total)


def _lines() -> Callable[[Any], None]:
    said = [-1]

    def show(state: Any) -> None:
        tenth = 10 * state.done // max(state.total, 1)
        if tenth > said[0]:
            said[0] = tenth
            left = (state.total - state.done) * state.seconds / max(state.drawn, 1)
            say(f"{state.done}/{state.total} pictures, about {left:.0f} s left")

    return show
