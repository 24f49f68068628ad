"""The figures and tables of an experiment, as data."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp.analysis.table import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.store.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of an experiment: the dotted name of a function of `interp.figures`, and its arguments."""

    function: str
    """Such as "effects.disruption"."""
    result: str = ""
    """The result that it shows; "" for the experiment itself."""
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """Possible values of {NAME} in the result's name and the arguments; an option of that name selects one."""
    labels: tuple[str, ...] = ()
    """Of a heat map: the arm's labels that a cell stands for: its x, its y, the map's name."""

    def each(self, name: str, options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Values of the choices, by file name: those of the options, or all."""
        found = {name: dict[str, str]()}
        for choice, values in self.choices.items():
            if choice in options:
                found = {file: {**one, choice: str(options[choice])} for file, one in found.items()}
            else:
                found = {f"{file}-{v}": {**one, choice: v} for file, one in found.items() for v in values}
        return found

    def of(self, experiment: Experiment, chosen: Mapping[str, str]) -> Any:
        """The result or experiment that it shows."""
        return experiment.result(self.result.format(**chosen)) if self.result else experiment

    def make(self, of: Any, chosen: Mapping[str, str]) -> go.Figure:
        """Make the figure."""
        made: go.Figure = function_of(self.function)(of, **self._given(chosen))
        return made

    def code(self, chosen: Mapping[str, str]) -> list[str]:
        """Python code that makes the figure from an open `experiment`."""
        more = "".join(f", {name}={value!r}" for name, value in self._given(chosen).items())
        if not self.result:
            return [f"interp.figures.{self.function}(experiment{more})"]
        found = f"found = experiment.result({self.result.format(**chosen)!r})"
        return [found, f"interp.figures.{self.function}(found{more})"]

    def _given(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        return {n: value.format(**chosen) if isinstance(value, str) else value for n, value in self.arguments.items()}


def function_of(name: str) -> Callable[..., Any]:
    """A function of `interp.figures` by its dotted name."""
    module, _, attribute = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"interp.figures.{module}"), attribute)
    return found


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table of a result; with `per`, one table for every value along that axis, with the value as title."""

    result: str
    table: Table
    per: str = ""
