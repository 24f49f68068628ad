"""Arms of one picture as rows of one batch: shared computation runs once.

1. Before its first edited step an arm equals the clean run: the transformer is not called, its stored predictions are used.
2. In that step its latents are still the clean ones: one row, the shared prefix, stands for all arms that begin there. An arm's
   row forks from it at the arm's first edited block.
3. In later steps the arm has its own row.

The pipeline sees one row per arm throughout. Rows are split and joined by argument name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.base.sites import Site
from interp.interventions import Intervention
from interp.interventions.conditioning import ReplaceLater, SwapConditioning
from interp.interventions.hooks import Driver
from interp.interventions.selection import Selection
from interp.models.anatomy import Anatomy, Reentry, as_output, bind_inputs, take_rows

Around = Callable[[int, dict[str, Any], Callable[[dict[str, Any]], Tensor]], Tensor]
"""(step, the call's arguments, the transformer itself) -> prediction, (row, ...)."""
Place = tuple[int, int, int]
"""First difference of an arm: (step, block, 0 inside the block or 1 at its output); block -1 is the call's arguments."""
BEFORE_THE_BLOCKS = -1


@dataclasses.dataclass
class Calls:
    """The transformer's calls of one clean picture, one per step."""

    arguments: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """By name, one row each."""
    predictions: list[Tensor] = dataclasses.field(default_factory=list)
    """(1, ...)."""


class Slot:
    """A transformer's forward with a replaceable wrapper. nnsight keeps it as the body of the module it wraps, so a trace sees
    the arguments and output outside the wrapper, and a guided call looks like a plain one.
    """

    name = "_interp_slot"

    def __init__(self, transformer: Any) -> None:
        self.inner = transformer.forward
        self.around: Callable[..., Any] | None = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call the forward through the wrapper, if one is set."""
        return self.inner(*given, **named) if self.around is None else self.around(*given, **named)


@contextlib.contextmanager
def around_calls(transformer: Any, around: Around, anatomy: Anatomy) -> Iterator[None]:
    """Pass every call of the transformer inside to `around`, which may change, replace or record it; rows are axis 0."""
    slot: Slot | None = transformer.__dict__.get(Slot.name)
    original = transformer.forward if slot is None else slot.inner
    steps = itertools.count()

    def forward(*given: Any, **named: Any) -> Any:
        bound = anatomy.rows_first(bind_inputs(transformer, given, named))

        def call(arguments: dict[str, Any]) -> Tensor:
            prediction: Tensor = original(**{**anatomy.as_called(arguments), "return_dict": False})[0]
            return prediction

        return as_output(around(next(steps), bound, call), bound["return_dict"])

    if slot is not None:
        before, slot.around = slot.around, forward
        try:
            yield
        finally:
            slot.around = before
        return
    shadowed = transformer.__dict__.get("forward")
    transformer.forward = forward
    try:
        yield
    finally:
        del transformer.__dict__["forward"]
        if shadowed is not None:
            transformer.forward = shadowed


def first_place(edits: Sequence[Intervention]) -> Place | None:
    """The first place that edits change; `None` without edits."""
    return min((_place(edit) for edit in edits), default=None)


def _place(edit: Intervention) -> Place:
    if isinstance(edit, Selection):
        return min(edit.steps or (0,)), min(edit.blocks or (0,)), int(edit.is_hidden)  # type: ignore[arg-type, return-value]
    if isinstance(edit, SwapConditioning):
        return min(edit.steps or (0,)), BEFORE_THE_BLOCKS, 0
    if isinstance(edit, ReplaceLater):
        return min(edit.steps or (0,)), edit.block, 1
    return 0, BEFORE_THE_BLOCKS, 0  # a user-defined edit may act anywhere


def _streams(edit: Intervention) -> tuple[str, ...]:
    stream = getattr(edit, "stream", "image")
    return ("image", "text") if stream == "both" else (stream,)


class Forks(Driver):
    """Draws the arms of a clean run."""

    def __init__(self, anatomy: Anatomy, arms: Sequence[Sequence[Intervention]], clean: Calls) -> None:
        super().__init__(anatomy, arms)
        self.clean = clean
        self.places = [first_place(edits) for edits in self.arms]
        self.energies: list[list[Tensor]] = [[] for _ in self.arms]
        self.owners: list[list[int]] = []
        self.source: list[int] = []
        self.trunk: list[int] = []
        self.block_rows = 0

    @contextlib.contextmanager
    def drawing(self, transformer: Any) -> Iterator[None]:
        """Draw with one row per arm in the pipeline's calls inside, all with the clean run's prompt and seed."""
        handles: list[Any] = []
        try:
            for index, block in enumerate(self.anatomy.blocks):
                hook = self.before_block(index)
                module = transformer.get_submodule(block.path)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            handles += self.attach(transformer)
            for reentry in self.anatomy.reentries:
                module = transformer.get_submodule(reentry.module)
                if reentry.argument is not None:
                    hook = self.before_reentry(reentry.module, reentry.argument)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self.on_reentry(reentry)))
            with around_calls(transformer, self.call, self.anatomy):
                yield
        finally:
            for handle in handles:
                handle.remove()
        self.check_touched()

    def call(self, step: int, bound: dict[str, Any], run: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """One step of every arm: (arm, ...)."""
        self.step, self.called = step, True
        self.memory.begin_call()
        begun = [arm for arm, place in enumerate(self.places) if place is not None and place[0] <= step]
        if not begun:
            return self.clean.predictions[step].expand(len(self.arms), *self.clean.predictions[step].shape[1:])
        joined = [arm for arm in begun if self.anatomy.forks and self._begins(arm, step)]
        apart = [arm for arm in begun if arm not in joined]
        self.trunk = joined
        self.owners = ([joined] if joined else []) + [[arm] for arm in apart]
        self.source = list(range(len(self.owners)))
        self._aim()
        rows = [owners[0] for owners in self.owners]
        every = list(range(len(self.arms)))
        narrow = {name: value if rows == every else take_rows(value, rows) for name, value in self._rows(bound)}
        arguments, _ = self.swap({**bound, **narrow})
        prediction = run(arguments)
        if begun == list(range(len(self.arms))) == [owners[0] for owners in self.owners]:
            return prediction
        row_of = {arm: row for row, owners in enumerate(self.owners) for arm in owners}
        kept = self.clean.predictions[step]
        return torch.cat([prediction[row_of[arm]][None] if arm in row_of else kept for arm in range(len(self.arms))])

    def _begins(self, arm: int, step: int) -> bool:
        """Whether an arm first differs inside the blocks of this step."""
        place = self.places[arm]
        return place is not None and place[0] == step and place[1] >= 0

    def _rows(self, bound: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name in self.anatomy.row_inputs:
            if bound.get(name) is not None:
                yield name, bound[name]

    def _aim(self) -> None:
        """Edits act on the rows of arms that have left the shared prefix."""
        whole = len(self.owners) == 1 and self.owners[0] != self.trunk
        self.pieces = [
            (slice(None) if whole else slice(row, row + 1), owners[0])
            for row, owners in enumerate(self.owners)
            if owners is not self.trunk
        ]

    def _leave(self, block: int, part: int) -> list[int] | None:
        """Give arms that begin here their own rows: the old index of each new row; `None` if no arm begins."""
        leaving = [arm for arm in self.trunk if self.places[arm] == (self.step, block, part)]
        if not leaving:
            return None
        staying = [arm for arm in self.trunk if arm not in leaving]
        before = list(range(len(self.owners)))
        if staying:
            new, kept = leaving, staying
            self.owners[0] = self.trunk = kept
        else:  # the shared prefix's own row becomes that of the first arm to leave
            new, self.trunk = leaving[1:], []
            self.owners[0] = leaving[:1]
        self.owners += [[arm] for arm in new]
        index = before + [0] * len(new)
        self.source = [self.source[row] for row in index]
        self._aim()
        return index

    def before_block(self, index: int) -> Any:
        """A hook before a block: fork arms that begin inside it, and reindex conditioning to the rows."""
        block = self.anatomy.blocks[index]
        states = set(block.state_inputs.values())

        def hook(module: Any, arguments: Any, named: Any) -> Any:
            moved = self._leave(index, 0)
            self.block_rows += len(self.owners)
            later = self._later(index)
            if moved is None and self.source == list(range(len(self.owners))) and not later:
                return None
            bound = bind_inputs(module, arguments, named)
            for name in block.row_inputs:
                rows = moved if name in states else self.source
                if rows is not None:
                    bound[name] = take_rows(bound.get(name), rows)
            for name in (name for name in block.row_inputs if name not in states and bound.get(name) is not None):
                bound[name] = self._replace(later, block.path, name, bound[name])
            return (), bound

        return hook

    def before_reentry(self, path: str, argument: str) -> Any:
        """A hook before a module after the blocks that receives conditioning."""

        def hook(module: Any, arguments: Any, named: Any) -> Any:
            later = self._later(len(self.anatomy.blocks))
            if self.source == list(range(len(self.owners))) and not later:
                return None
            bound = bind_inputs(module, arguments, named)
            return (), {**bound, argument: self._replace(later, path, argument, bound[argument][self.source])}

        return hook

    def on_reentry(self, reentry: Reentry) -> Any:
        """A hook on a module before the blocks, for the item of its output that is used after them."""

        def hook(module: Any, arguments: Any, output: Any) -> Any:
            later = self._later(len(self.anatomy.blocks))
            if not later:
                return None
            items = list(output)
            name = f"output.{reentry.item}"
            items[reentry.item or 0] = self._replace(later, reentry.module, name, items[reentry.item or 0])
            return tuple(items)

        return hook

    def _later(self, index: int) -> list[tuple[slice, int, int, ReplaceLater]]:
        """Rows of arms that replace the conditioning at a block, or (index past the last) after the blocks."""
        return [
            (rows, arm, number, edit)
            for rows, arm in self.pieces
            for number, edit in enumerate(self.arms[arm])
            if isinstance(edit, ReplaceLater) and edit.block < index
        ]

    def _replace(self, later: list[tuple[slice, int, int, ReplaceLater]], path: str, argument: str, value: Tensor) -> Tensor:
        for rows, arm, number, edit in later:
            new = edit.replaced(self.step, path, argument, value)
            if new is not None:
                value = value.clone()
                value[rows] = new
                self.touched[arm][number] += 1
        return value

    def on_states(self, index: int) -> Any:
        """A hook on a block's output: fork arms that begin there, then edit."""
        block, edit = self.anatomy.blocks[index], super().on_states(index)

        def hook(module: Any, arguments: Any, output: Any) -> Any:
            moved = self._leave(index, 1)
            if moved is not None:
                output = block.with_rows(output, moved)
            edited = edit(module, arguments, output)
            return output if edited is None else edited

        return hook

    @property
    def forwards(self) -> float:
        """Number of single-row forwards run, counted in fractions of blocks."""
        return self.block_rows / len(self.anatomy.blocks)

    def note(self, arm: int, site: Site, before: Tensor, after: Tensor) -> None:
        """Note the share of a state's energy that the edits have changed."""
        if site.kind == "hidden":
            self.energies[arm].append(self.memory.change(arm, site, before, after))

    def changed(self, arm: int) -> float:
        """Changed energy over the states' energy, mean over edited states; 0 for edits of gates and conditioning."""
        return float(torch.stack(self.energies[arm]).mean()) if self.energies[arm] else 0.0

    def dose(self, arm: int, steps: int) -> float:
        """Changed energy summed over edited states, over blocks x steps x edited streams; 1 is all energy of every state."""
        if not self.energies[arm]:
            return 0.0
        streams = len({stream for edit in self.arms[arm] for stream in _streams(edit)}) or 1
        return float(torch.stack(self.energies[arm]).sum()) / (len(self.anatomy.blocks) * steps * streams)
