"""`Kind`: everything about one experiment, in one file of `interp/experiments/kinds/`. It imports nothing heavy before its use.

From a kind follow its command, its Python function, `--dry-run`, workers, resuming, its store, its page and its reference:

    made = interp.disrupt("demo", prompts, out="cache/disrupt.zarr", channels=[29]).run()
    made.result("disruption")
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.analysis.table import BY_ARM
from interp.base.executor import Execution
from interp.base.options import Sampling, parameters, split
from interp.base.plan import at_least
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.base.sites import Site
    from interp.experiments.design import Design, Drawing, Measuring
    from interp.experiments.draw import Arm, Bind
    from interp.experiments.ranking import Ranked
    from interp.store.experiment import Experiment
    from interp.store.traced_run import Run
    from interp.tracing.model import Model
    from interp.tracing.prepare import Prepared

BATCH_SIZE = 8  # arms drawn together


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a kind: its design is made from this."""

    kind: str
    model: Model
    options: Any
    """An instance of the kind's options."""
    sampling: Sampling
    out: Path
    execution: Execution

    def prepare(
        self, prompts: Sequence[str] | str | Path, *, keep: bool = False, guided: bool = False, **changes: Any
    ) -> Prepared:
        """A run of prompts that records nothing (`keep`: what a trace does); unguided and unedited, unless it is `guided`.
        `changes` are of the sampling.
        """
        from interp.base.plan import Record
        from interp.tracing.prepare import prepare

        changed = dataclasses.replace(self.sampling if guided else self.unguided(), **changes)
        return prepare(self.model, prompts, changed, record=Record(stats=keep, gates=keep))

    def unguided(self) -> Sampling:
        """The sampling, refused where it asks for guidance or edits."""
        refused = ("guidance", "negative_prompt", "interventions")
        return self.sampling.without(*refused, why=f"{self.kind} compares unguided runs with edits of its own")

    def traced(self, prompts: Sequence[str] | str | Path, out: Path, **changes: Any) -> tuple[Prepared, Run]:
        """A traced run of prompts, statistics and gates, in a store of its own; `changes` are of the sampling."""
        from interp.runs.run import execute
        from interp.tracing.prepare import prepare

        prepared = prepare(self.model, prompts, dataclasses.replace(self.sampling, **changes))
        return prepared, execute(prepared, out, Execution(self.execution.batch_size))

    def settings(self) -> dict[str, Any]:
        """The pipeline's further arguments, as they were given."""
        from interp.tracing.prepare import as_settings

        return as_settings(self.sampling.settings)

    def rank(self, prepared: Prepared, channels: Any = None, stream: str = "image") -> Ranked:
        """Channels by the traced run that is given as an option, or by the first prompts, which are traced."""
        from interp.experiments.ranking import rank

        how = {"run": self.options.run, "batch_size": self.execution.batch_size}
        return rank(prepared, self.out, channels=channels, stream=stream, **how)

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
        """A design of arms that fork off the clean run of their row; `given` are further fields of `Drawing`. Without `measure`
        every arm is compared with the first (`pairs.by_arm`).
        """
        from interp.analysis.pairs import by_arm
        from interp.experiments.design import Drawing
        from interp.experiments.draw import ByArms

        units = lambda size: ByArms(prepared, arms, size, bind, keep)  # noqa: E731
        own: dict[str, Any] = {"kind": self.kind, "out": self.out, "execution": self.execution, "units": units}
        own["measure"] = measure or (lambda made: {self.kind: by_arm(made)})
        return Drawing(prepared=prepared, arms=tuple(arms), parameters=parameters, **own, **given)

    def measuring(self, prepared: Prepared, parameters: Mapping[str, Any], **given: Any) -> Measuring:
        """A design that keeps numbers alone; `given` are further fields of `Measuring`."""
        from interp.experiments.design import Measuring

        own: dict[str, Any] = {"kind": self.kind, "out": self.out, "execution": self.execution}
        return Measuring(prepared=prepared, parameters=parameters, **own, **given)


@dataclasses.dataclass(frozen=True)
class Kind:
    """An experiment."""

    name: str
    question: str
    """What it measures: the command's help, and the page's."""
    options: type[Any]
    """A dataclass; its fields without defaults are what the experiment is about, such as prompts."""
    design: Callable[[Request], Design]
    tables: Mapping[str, Shown] = dataclasses.field(default_factory=dict)
    """By title; by default the measures of every arm, `pairs.by_arm`."""
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    """By file name; the default goes with that of the tables."""
    papers: tuple[str, ...] = ()
    """Topics of the papers' own numbers, shown under ours (`interp.analysis.published`)."""
    controls: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """A label of the arms, and its values that are controls: shown next to an arm whose other labels are the same."""
    ends: tuple[int, ...] = (0,)
    """Arms that every other one is shown next to."""
    page: str = "causal"
    """The dashboard's page that shows it."""

    def __post_init__(self) -> None:
        own = inspect.signature(self.__call__).parameters
        mine = parameters(self.options, Sampling, Execution)
        required = [one for one in mine if one.default is one.empty]
        order = [own["model"], *required, own["out"], *mine[len(required) :]]
        object.__setattr__(self, "__signature__", inspect.Signature(order))
        if not self.tables:
            object.__setattr__(self, "tables", {"measures": Shown(self.name, BY_ARM, per="measure")})
            object.__setattr__(self, "figures", self.figures or {self.name: Figure("effects.by_arm", self.name)})
        object.__setattr__(self, "__doc__", f"{self.question}\n\n`.cost()` says what it takes, `.run()` draws it.")

    def __call__(self, model: Model | str | Path, *inputs: Any, out: str | Path | None = None, **given: Any) -> Design:
        """Prepare the experiment: everything is checked, channels are chosen, nothing is drawn."""
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
        """The same, with the options as dataclasses."""
        from interp.store.locations import located
        from interp.tracing.model import as_model

        at_least("batch_size", execution.batch_size, 1)
        loaded = as_model(model)
        path = located(out if out is not None else self.default_out(loaded.name, (options, sampling)))
        with loaded.identified_once():
            return self.design(Request(self.name, loaded, options, sampling, path, execution))

    def default_out(self, model: str, asked: Any) -> Path:
        """Where its store is by default: another one for other options."""
        return Path("cache") / f"{self.name}-{Path(model).name}-{hashlib.sha256(repr(asked).encode()).hexdigest()[:8]}.zarr"

    def strip(self, experiment: Experiment, rows: int, arms: int) -> Figure:
        """A figure of the first pictures: rows of prompts, columns of arms."""
        prompts, columns = range(min(experiment.done.shape[0], rows)), range(min(experiment.done.shape[1], arms))
        return Figure("drawn.strip", "", {"prompts": list(prompts), "arms": list(columns)})

    def sections(self, experiment: Experiment, options: Mapping[str, Any]) -> dict[str, tuple[Any, list[dict[str, Any]]]]:
        """Every table with the result that it is of."""
        found: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
        for title, shown in self.tables.items():
            result = experiment.result(shown.result.format(**options))
            seen = shown.view(result)
            for part in [seen.isel({shown.per: n}) for n in range(seen.sizes[shown.per])] if shown.per else [seen]:
                found[str(part[shown.per].item()) if shown.per else title] = result, shown.table.rows(part)
        return found
