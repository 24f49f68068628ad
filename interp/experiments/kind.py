"""`Kind`: the definition of an experiment. Each is a file of `interp/experiments/kinds/`, which imports no heavy package.

A kind's command, Python function, `--dry-run`, workers, resuming, store, page and reference are all derived from it:

    interp.disrupt("demo", prompts, out="cache/disrupt.zarr", channels=[29]).run().result("disruption")
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.analysis.table import Table, table
from interp.base.executor import Execution
from interp.base.options import Sampling, as_settings, parameters, split
from interp.base.site_recorder import at_least
from interp.base.streams import GENERATED

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from interp.base.sites import Site
    from interp.experiments.design import Design, Drawing, Measuring
    from interp.experiments.draw import Arm, Bind
    from interp.experiments.ranking import Ranked
    from interp.store.experiment import Experiment
    from interp.store.traced_run import Run
    from interp.tracing.model import Model
    from interp.tracing.prepare import Prepared

BATCH_SIZE = 8  # arms per batch


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
        module, _, name = self.function.rpartition(".")
        made: go.Figure = getattr(importlib.import_module(f"interp.figures.{module}"), name)(of, **self._given(chosen))
        return made

    def code(self, chosen: Mapping[str, str]) -> list[str]:
        """Python code that makes the figure from an open `experiment`."""
        more = "".join(f", {name}={value!r}" for name, value in self._given(chosen).items())
        before = [f"found = experiment.result({self.result.format(**chosen)!r})"] if self.result else []
        return [*before, f"interp.figures.{self.function}({'found' if self.result else 'experiment'}{more})"]

    def _given(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        return {n: value.format(**chosen) if isinstance(value, str) else value for n, value in self.arguments.items()}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table of a result; with `per`, one table for every value along that axis, with the value as title."""

    result: str
    table: Table
    per: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of an experiment; a kind's `design` makes a design of them."""

    kind: str
    model: Model
    options: Any
    """Of the kind's options."""
    sampling: Sampling
    out: Path
    execution: Execution

    def prepare(self, prompts: Any, *, keep: bool = False, guided: bool = False, **changes: Any) -> Prepared:
        """Prepare a run of prompts; `changes` are fields of `Sampling`.

        It records nothing, or statistics and gates with `keep`. Guidance and edits raise InputError unless it is `guided`.
        """
        from interp.base.plan import Record
        from interp.tracing.prepare import prepare

        changed = dataclasses.replace(self.sampling if guided else self.unguided(), **changes)
        return prepare(self.model, prompts, changed, record=Record(stats=keep, gates=keep, padding=True))

    def unguided(self) -> Sampling:
        """The sampling options; guidance and edits raise InputError."""
        refused = ("guidance", "negative_prompt", "interventions")
        return self.sampling.without(*refused, why=f"{self.kind} compares unguided runs with edits of its own")

    def traced(self, prompts: Any, out: Path, *, branches: bool = False, **changes: Any) -> tuple[Prepared, Run]:
        """Trace statistics, gates and if asked branches into a separate store; `changes` are fields of `Sampling`."""
        from interp.base.plan import Record
        from interp.runs.run import execute
        from interp.tracing.prepare import prepare

        record = Record(branches=branches)
        prepared = prepare(self.model, prompts, dataclasses.replace(self.sampling, **changes), record=record)
        return prepared, execute(prepared, out, Execution(self.execution.batch_size))

    def settings(self) -> dict[str, Any]:
        """The further arguments of the pipeline, as given by the user."""
        return as_settings(self.sampling.settings)

    def rank(self, prepared: Prepared, channels: Any = None, stream: str = GENERATED) -> Ranked:
        """Rank channels by the traced run in the options, or by a trace of the first prompts."""
        from interp.experiments.ranking import rank

        batch_size = self.execution.batch_size
        return rank(prepared, self.out, channels=channels, stream=stream, run=self.options.run, batch_size=batch_size)

    def drawing(
        self,
        prepared: Prepared,
        arms: Sequence[Arm],
        parameters: Mapping[str, Any],
        measure: Callable[[Experiment], Mapping[str, xr.Dataset]] | None = None,
        *,
        bind: Bind | None = None,
        keep: Sequence[tuple[int, Site]] = (),
        **given: Any,
    ) -> Drawing:
        """A design that draws arms; `given` are further fields of `Drawing`.

        By default arms fork off the clean run of their sample, and every arm is compared with the first (`pairs.by_arm`).
        """
        from interp.analysis.pairs import by_arm
        from interp.experiments.design import Drawing
        from interp.experiments.draw import ByArms, with_names

        named = with_names(arms, prepared.model.anatomy)
        units = lambda size: ByArms(prepared, named, size, bind, keep)  # noqa: E731
        own: dict[str, Any] = {"kind": self.kind, "out": self.out, "execution": self.execution, "units": units, **given}
        own |= {"measure": measure or (lambda made: {self.kind: by_arm(made)}), "arms": tuple(named)}
        return Drawing(prepared=prepared, parameters=parameters, **own)

    def measuring(self, prepared: Prepared, parameters: Mapping[str, Any], **given: Any) -> Measuring:
        """A design that stores numbers only; `given` are further fields of `Measuring`."""
        from interp.experiments.design import Measuring

        own: dict[str, Any] = {"kind": self.kind, "out": self.out, "execution": self.execution}
        return Measuring(prepared=prepared, parameters=parameters, **own, **given)


@dataclasses.dataclass(frozen=True)
class Kind:
    """An experiment."""

    name: str
    question: str
    """What it measures; the help text of the command and the page."""
    options: type[Any]
    """A dataclass; its fields without defaults are positional arguments, such as prompts."""
    design: Callable[[Request], Design]
    tables: Mapping[str, Shown] = dataclasses.field(default_factory=dict)
    """By title; by default the measures of every arm (`pairs.by_arm`)."""
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    """By file name; by default the figure of the default table."""
    papers: tuple[str, ...] = ()
    """Topics of published numbers that are shown below the results (`interp.analysis.table`)."""
    controls: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Values of an arm label that mark controls; a control is shown next to the arm with otherwise equal labels."""
    ends: tuple[int, ...] = (0,)
    """Arms that are shown next to every other arm."""
    page: str = "causal"
    """The dashboard's page that shows it."""

    def __post_init__(self) -> None:
        own = inspect.signature(self.__call__).parameters
        mine = parameters(self.options, Sampling, Execution)
        required = [one for one in mine if one.default is one.empty]
        order = [own["model"], *required, own["out"], *mine[len(required) :]]
        object.__setattr__(self, "__signature__", inspect.Signature(order))
        if not self.tables:
            object.__setattr__(self, "tables", {"measures": Shown(self.name, table("by_arm"), per="measure")})
            object.__setattr__(self, "figures", self.figures or {self.name: Figure("effects.by_arm", self.name)})
        object.__setattr__(self, "__doc__", f"{self.question}\n\n`.cost` is its size, `.run()` draws it.")

    def __call__(self, model: Model | str | Path, *inputs: Any, out: str | Path | None = None, **given: Any) -> Design:
        """Prepare the experiment: check all arguments and choose channels, without drawing."""
        names = [field.name for field in dataclasses.fields(self.options)]
        given = {"batch_size": BATCH_SIZE, **dict(zip(names, inputs, strict=False)), **given}
        own = {name: given.pop(name) for name in names if name in given}
        sampling, execution = split(given, Sampling, Execution, of=self.name)
        return self.prepare(model, self.options(**own), sampling, execution, out=out)

    def prepare(
        self,
        model: Model | str | Path,
        options: Any,
        sampling: Sampling,
        execution: Execution,
        *,
        out: str | Path | None = None,
    ) -> Design:
        """Prepare the experiment from options as dataclasses."""
        from interp.store.locations import located
        from interp.tracing.model import as_model

        at_least("batch_size", execution.batch_size, 1)
        loaded = as_model(model)
        digest = hashlib.sha256(repr((options, sampling)).encode()).hexdigest()[:8]
        path = located(out if out is not None else Path("cache") / f"{self.name}-{Path(loaded.name).name}-{digest}.zarr")
        with loaded.identified_once():
            return self.design(Request(self.name, loaded, options, sampling, path, execution))

    def strip(self, experiment: Experiment, rows: int, arms: int) -> Figure:
        """A figure of the first pictures, prompts x arms."""
        prompts, columns = range(min(experiment.done.shape[0], rows)), range(min(experiment.done.shape[1], arms))
        return Figure("drawn.strip", "", {"prompts": list(prompts), "arms": list(columns)})

    def sections(self, experiment: Experiment, options: Mapping[str, Any]) -> dict[str, tuple[Any, list[dict[str, Any]]]]:
        """Every table's rows, with the result that they show, by title."""
        found: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
        for title, shown in self.tables.items():
            result = experiment.result(shown.result.format(**options))
            for part in [result.isel({shown.per: n}) for n in range(result.sizes[shown.per])] if shown.per else [result]:
                found[str(part[shown.per].item()) if shown.per else title] = result, shown.table.rows(part)
        return found
