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
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from interp.base.sites import Site
from interp.base.streams import ALL
from interp.interventions import Intervention
from interp.interventions.conditioning import ReplaceLater, SwapConditioning
from interp.interventions.hooks import attached, put_rows
from interp.interventions.rows import JoiningRows
from interp.interventions.selection import Selection
from interp.models.anatomy import Anatomy, Reentry, bind_inputs, take_rows

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
            return anatomy.prediction(original(**{**anatomy.as_called(arguments), "return_dict": False}), arguments)

        return anatomy.as_output(around(next(steps), bound, call), bound)

    with patch.object(slot or transformer, "forward" if slot is None else "around", forward):
        yield


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


class Forks(JoiningRows):
    """Draws the arms of a clean run."""

    def __init__(self, anatomy: Anatomy, arms: Sequence[Sequence[Intervention]], clean: Calls) -> None:
        super().__init__(anatomy, arms)
        self.clean = clean
        self.places = [first_place(edits) for edits in self.arms]
        self.energies: list[list[Tensor]] = [[] for _ in self.arms]
        self.owners: list[list[int]] = []
        self.shared: list[int] = []
        self.block_rows = 0

    @contextlib.contextmanager
    def drawing(self, transformer: Any) -> Iterator[None]:
        """Draw with one row per arm in the pipeline's calls inside, all with the clean run's prompt and seed."""
        with attached(self.attach(transformer)), around_calls(transformer, self.call, self.anatomy):
            yield
        self.check_touched()

    def attach(self, transformer: Any, *, first: bool = False) -> list[Any]:
        """Register the hooks; return their handles, which have `remove`."""
        handles = super().attach(transformer, first=first)
        for reentry in self.anatomy.reentries:
            if reentry.argument is None:
                hook = functools.partial(self.on_reentry, reentry)
                handles.append(transformer.get_submodule(reentry.module).register_forward_hook(hook))
        return handles

    def call(self, step: int, bound: dict[str, Any], run: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """One step of every arm: (arm, ...)."""
        self.step, self.called = step, True
        self.memory.begin_call()
        kept, every = self.clean.predictions[step], list(range(len(self.arms)))
        begun = {arm: place for arm, place in enumerate(self.places) if place is not None and place[0] <= step}
        if not begun:
            return kept.expand(len(every), *kept.shape[1:])
        # arms that first differ inside the blocks of this step share one row until then
        self.shared = [arm for arm, place in begun.items() if self.anatomy.forks and place[0] == step and place[1] >= 0]
        self.owners = ([self.shared] if self.shared else []) + [[arm] for arm in begun if arm not in self.shared]
        self.given, self.source = len(self.owners), list(range(len(self.owners)))
        self._aim()
        rows = [owners[0] for owners in self.owners]
        given = {} if rows == every else {name: take_rows(bound.get(name), rows) for name in self.anatomy.row_inputs}
        arguments, _ = self.swap({**bound, **given})
        prediction = run(arguments)
        if list(begun) == every == [owners[0] for owners in self.owners]:
            return prediction
        row_of = {arm: row for row, owners in enumerate(self.owners) for arm in owners}
        return torch.cat([prediction[row_of[arm]][None] if arm in row_of else kept for arm in every])

    def _aim(self) -> None:
        """Edits act on the rows of arms that have left the shared prefix."""
        whole = len(self.owners) == 1 and self.owners[0] != self.shared
        self.pieces = [
            (slice(None) if whole else slice(row, row + 1), owners[0])
            for row, owners in enumerate(self.owners)
            if owners is not self.shared
        ]

    def join(self, block: int, part: int) -> list[int] | None:
        """Give arms that begin here their own rows: the old index of each row now; `None` if no arm begins."""
        leaving = [arm for arm in self.shared if self.places[arm] == (self.step, block, part)]
        index = self._leave(leaving) if leaving else None
        self.block_rows += len(self.owners) if part == 0 else 0
        return index

    def _leave(self, leaving: list[int]) -> list[int]:
        staying = [arm for arm in self.shared if arm not in leaving]
        new = leaving if staying else leaving[1:]
        self.owners[0] = staying or leaving[:1]  # if none stays, the shared row becomes that of the first arm to leave
        self.shared = self.owners[0] if staying else []
        index = [*range(len(self.owners)), *[0] * len(new)]
        self.owners += [[arm] for arm in new]
        self.source = [self.source[row] for row in index]
        self._aim()
        return index

    def wants_inputs(self, block: int) -> bool:
        """Whether an arm replaces the conditioning there."""
        return any(isinstance(edit, ReplaceLater) and edit.block < block for _, arm in self.pieces for edit in self.arms[arm])

    def see_inputs(self, block: int, bound: dict[str, Any]) -> None:
        """Replace a block's conditioning."""
        here = self.anatomy.blocks[block]
        for name in here.row_inputs:
            if name not in here.state_inputs.values() and bound.get(name) is not None:
                bound[name] = self._replace(block, here.path, name, bound[name])

    def conditioned(self, path: str, argument: str, value: Tensor) -> Tensor:
        """The conditioning of a module after the blocks."""
        return self._replace(len(self.anatomy.blocks), path, argument, value)

    def on_reentry(self, reentry: Reentry, module: Any, arguments: Any, output: Any) -> Any:
        """A hook on a module before the blocks, for the item of its output that is used after them."""
        if not self.wants_inputs(len(self.anatomy.blocks)):
            return None
        items, item = list(output), reentry.item or 0
        items[item] = self.conditioned(reentry.module, f"output.{reentry.item}", items[item])
        return tuple(items)

    def _replace(self, index: int, path: str, argument: str, value: Tensor) -> Tensor:
        """The conditioning of a block, or (index past the last) of a module after the blocks, as the arms replace it."""
        for rows, arm in self.pieces:
            for number, edit in enumerate(self.arms[arm]):
                if not isinstance(edit, ReplaceLater) or edit.block >= index:
                    continue
                new = edit.replaced(self.step, path, argument, value)
                if new is not None:
                    value = put_rows(value, rows, new)
                    self.touched[arm][number] += 1
        return value

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
        named = {getattr(edit, "stream", None) for edit in self.arms[arm]}
        streams = len(self.anatomy.streams) if ALL in named else len(named) or 1
        return float(torch.stack(self.energies[arm]).sum()) / (len(self.anatomy.blocks) * steps * streams)
