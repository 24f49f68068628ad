"""Tables, JSON and progress, shared by the commands."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from interp.base.errors import InputError

if TYPE_CHECKING:
    import typer

    from interp.base.executor import Progress


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table on stdout, as wide as its content when stdout is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=250)
    console.print(table)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[Progress], None]]:
    """Show bars on stderr with rate and time left, of these units and of sampling steps where they are known.

    Where stderr is not a terminal, print a line per 10%.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield tenths(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bars(*columns, console=console) as bars:
        units = bars.add_task(what, total=None, rate="")
        steps = bars.add_task("steps", total=None, rate="", visible=False)

        def show(state: Any) -> None:
            bars.update(units, completed=state.done, total=state.total, rate=rate_text(state, what))
            bars.update(steps, completed=min(state.step + 1, state.steps), total=state.steps, visible=state.steps > 0)

        yield show


def tenths(what: str) -> Callable[[Progress], None]:
    """Print a line per 10% of the units, for job logs."""
    said = [0]

    def show(state: Progress) -> None:
        tenth = 10 * state.done // max(state.total, 1)
        if state.made and tenth > said[0]:
            said[0] = tenth
            say(f"{state.done}/{state.total} {what}, {rate_text(state, what)}")

    return show


@contextlib.contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """Stop after the current row on the first Ctrl-C or SIGTERM, and immediately on the second."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("stopping after the current row; repeat to stop immediately")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            say("stopped; finished rows are kept, the same command resumes")


def rate_text(state: Progress, what: str) -> str:
    """Units per minute and time left, once one is done."""
    if not state.made or not state.seconds:
        return ""
    rate = state.made / state.seconds
    left = (state.total - state.done) / rate
    minutes, seconds = divmod(round(left), 60)
    each = ", ".join(f"worker {name}: {value:.1f}" for name, value in state.rates.items())
    return f"{60 * rate:.1f} {what}/min{f' ({each})' if each else ''}, {minutes}:{seconds:02d} left"


def refuse_given(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raise an error for the first of these options that was given, where they have no effect."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"{name.replace('_', '-')} {why}")


def say(message: str) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr)
