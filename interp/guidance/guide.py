"""Guidance as rows of the batch: branches are appended where they first differ, and combined at the output.

Each step is one call of the transformer. The conditional rows come first, then the unconditional ones, then the degraded ones,
which join the batch at their first edited block. `sequential` runs one call per branch instead, to save memory.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from interp.guidance.attention import OwnTokens, check_done
from interp.guidance.method import COND, UNCOND, Branch, Combined, Context
from interp.guidance.methods import Amplify
from interp.interventions.forks import BEFORE_THE_BLOCKS, Place, around_calls, first_place
from interp.interventions.hooks import attached, put_rows
from interp.interventions.rows import JoiningRows
from interp.interventions.selection import resolved
from interp.models.anatomy import Anatomy, add_rows, in_place_of, take_rows

Levels = Callable[[int], tuple[float, float]]
"""step -> (sigma, sigma of the next step)."""


def place_of(branch: Branch) -> Place | None:
    """The place where a branch first differs from its source, at step 0; `None` for rows of the input or another model."""
    if branch.name == UNCOND or branch.model is not None:
        return None
    places = [first_place(branch.edits)] if branch.edits else []
    places += [(0, min(branch.skips), 1)] if branch.skips else []
    places += [(0, min(branch.identity), 0)] if branch.identity else []
    found = min(place for place in places if place is not None)
    return None if found[1] == BEFORE_THE_BLOCKS else found


class Guide(JoiningRows):
    """Guides every call of a transformer inside `guiding`."""

    def __init__(
        self,
        anatomy: Anatomy,
        guidance: Combined,
        unconditional: Mapping[str, Tensor],
        levels: Levels,
        *,
        velocity: bool = True,
        parts: int = 1,
        sequential: bool = False,
    ) -> None:
        super().__init__(anatomy, [])
        self.guidance, self.unconditional, self.levels = guidance, dict(unconditional), levels
        self.velocity, self.parts, self.sequential = velocity, parts, sequential
        self.remembered: dict[str, Tensor] = {}
        self.values: Tensor | None = None
        self.masking: Any = None
        self.states: dict[str, Tensor] = {}
        self.batch = 0
        self.waiting: list[Branch] = []
        self.rows: dict[str, slice] = {}
        self.here: list[Branch] = []

    @contextlib.contextmanager
    def guiding(self, transformer: Any) -> Iterator[Guide]:
        """Guide the pipeline's calls inside; removes all hooks afterwards."""
        handles = [*self.attach(transformer, first=True), *self._attach_attention(transformer)]
        with attached(handles), around_calls(transformer, self.call, self.anatomy):
            yield self

    def call(self, step: int, bound: dict[str, Any], run: Callable[[dict[str, Any]], Tensor]) -> Tensor:
        """One step: the guided prediction of the conditional rows."""
        self.step = step
        self.batch = len(bound[self.anatomy.row_inputs[0]])
        branches = self.guidance.branches(step)
        amplified = [m.edit_at(step) for m in self.guidance.acting(step) if isinstance(m, Amplify)]
        if not self.guidance.acting(step):
            self._begin({COND: slice(0, self.batch)})
            return run(bound)
        alone = self.anatomy.alone and any(UNCOND in (branch.name, branch.source) for branch in branches)
        predict = self._sequentially if self.sequential or alone else self._together
        predictions = {**predict(bound, run, branches, amplified), **self._others(bound, branches)}
        sigma, next_sigma = self.levels(step)
        context = Context(step, sigma, next_sigma, self.velocity, self.remembered)
        return self._combine(predictions, context)

    def _combine(self, predictions: dict[str, Tensor], context: Context) -> Tensor:
        """Guide only the first part of a prediction: DiT's variance stays the conditional one."""
        if self.parts == 1:
            return self.guidance.combine(predictions, context)
        split = {name: value.chunk(self.parts, dim=1) for name, value in predictions.items()}
        guided = self.guidance.combine({name: parts[0] for name, parts in split.items()}, context)
        return torch.cat([guided, *split[COND][1:]], dim=1)

    def _together(self, bound: dict[str, Any], run: Any, branches: list[Branch], amplified: list[Any]) -> dict[str, Tensor]:
        own = [branch for branch in branches if branch.model is None]
        waiting = [branch for branch in own if branch.name != UNCOND]
        rows, given = {COND: slice(0, self.batch)}, bound
        if len(waiting) < len(own):
            rows[UNCOND], given = slice(self.batch, 2 * self.batch), self._with_uncond(bound)
        self._begin(rows, waiting, amplified)
        output = run(self._widened(given))
        return {name: output[rows] for name, rows in self.rows.items()}

    def _sequentially(self, bound: dict[str, Any], run: Any, branches: list[Branch], amplified: list[Any]) -> dict[str, Tensor]:
        """Run one call per branch: nothing is shared, and only the predictions are kept."""
        predictions = {}
        for branch in [Branch(COND), *(one for one in branches if one.model is None)]:
            unconditional = UNCOND in (branch.name, branch.source)
            long = self.anatomy.as_long(bound, self.unconditional) if unconditional else bound
            given = {**long, **self._uncond_rows(long)} if unconditional else bound
            self._begin({COND: slice(0, self.batch)}, (), amplified)
            if branch.edits or branch.skips or branch.identity:  # the whole batch is one branch
                self._add(branch, slice(0, self.batch))
            predictions[branch.name] = run(given)
        return predictions

    def _others(self, bound: dict[str, Any], branches: list[Branch]) -> dict[str, Tensor]:
        found = {}
        for branch in (branch for branch in branches if branch.model is not None):
            with torch.no_grad():
                output = branch.model(**{**self.anatomy.as_called(bound), "return_dict": False})
                found[branch.name] = self.anatomy.prediction(output, bound)
        return found

    def _uncond_rows(self, bound: dict[str, Any]) -> dict[str, Tensor]:
        rows = {}
        for name, value in self.unconditional.items():
            old = torch.ones_like(value) if bound.get(name) is None else bound[name]  # a missing mask hides nothing
            rows[name] = in_place_of(value, old if len(old) == self.batch else old.expand(self.batch, *old.shape[1:]))
        return rows

    def _with_uncond(self, bound: dict[str, Any]) -> dict[str, Any]:
        bound = self.anatomy.as_long(bound, self.unconditional)
        theirs = self._uncond_rows(bound)
        names = [name for name in self.anatomy.row_inputs if name in theirs or bound.get(name) is not None]
        ours = {name: torch.ones_like(theirs[name]) if bound.get(name) is None else bound[name] for name in names}
        return {**bound, **{name: add_rows(ours[name], theirs.get(name, ours[name])) for name in names}}

    def _widened(self, bound: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments with the rows of all branches, for models in which rows cannot join at a block."""
        if self.anatomy.forks or not self.waiting:
            return bound
        index = self._add_all(list(self.waiting))
        self.given, self.source = len(index), list(range(len(index)))
        return {**bound, **{name: take_rows(bound.get(name), index) for name in self.anatomy.row_inputs}}

    def _begin(self, rows: dict[str, slice], waiting: Any = (), amplified: Any = (), count: int = 0) -> None:
        """Set the rows at the input (`count`; by default those named), the branches that join later, and edits of all rows."""
        self.memory.begin_call()
        self.rows, self.waiting, self.here = rows, list(waiting), []
        self.given = count or max(part.stop for part in rows.values())
        self.source = list(range(self.given))
        self.arms, self.touched = [[resolved(edit, self.anatomy) for edit in amplified]], [[0] * len(amplified)]
        self.pieces = [(slice(None), 0)] if amplified else []

    def _add(self, branch: Branch, rows: slice) -> None:
        self.here.append(branch)
        self.rows[branch.name] = rows
        if branch.edits:
            self.arms.append([resolved(edit, self.anatomy) for edit in branch.edits])
            self.touched.append([0] * len(branch.edits))
            self.pieces.append((rows, len(self.arms) - 1))

    def _add_all(self, joining: list[Branch]) -> list[int]:
        index = list(range(len(self.source)))
        for branch in joining:
            source = self.rows[branch.source]
            self._add(branch, slice(len(index), len(index) + self.batch))
            index += range(source.start, source.stop)
        self.waiting = [branch for branch in self.waiting if branch not in joining]
        return index

    def join(self, block: int, part: int) -> list[int] | None:
        """Append the rows of branches that first differ here; return the old index of each row now."""
        joining = [branch for branch in self.waiting if (place := place_of(branch)) is None or place[1:] == (block, part)]
        if not joining:
            return None
        index = self._add_all(joining)
        self.source = [self.source[row] for row in index]
        return index

    def wants_inputs(self, block: int) -> bool:
        """Whether a branch skips the block."""
        return any(block in branch.skips for branch in [*self.here, *self.waiting])

    def see_inputs(self, block: int, bound: dict[str, Any]) -> None:
        """Keep the states that enter a block."""
        self.states = self.anatomy.blocks[block].states_given(bound, self.lengths)

    def leaving(self, block: int, output: Any, moved: list[int] | None) -> Any:
        """Branches that skip the block get its input."""
        skipping = [self.rows[branch.name] for branch in self.here if block in branch.skips]
        if skipping:
            states = self.anatomy.blocks[block].states(output, self.lengths)
            for stream in states:
                given = self.states[stream] if moved is None else self.states[stream][moved]
                for rows in skipping:
                    states[stream] = put_rows(states[stream], rows, given[rows])
            output = self.anatomy.blocks[block].with_states(output, states, self.lengths)
        self.states = {}
        return output

    def _attach_attention(self, transformer: Any) -> list[Any]:
        """Hooks that keep image tokens from each other, for branches with `identity`."""
        wanted = {block for method in self.guidance.methods for branch in method.branches() for block in branch.identity}
        handles = []
        for index in sorted(wanted):
            block = self.anatomy.blocks[index]
            if block.attention is None:
                continue
            module = transformer.get_submodule(block.path)
            values, out = (module.get_submodule(path) for path in block.attention)
            attention = module.get_submodule(block.attention[0].rpartition(".")[0])
            handles.append(values.register_forward_hook(functools.partial(self._keep_values, index)))
            handles.append(attention.register_forward_hook(self._leave_attention, always_call=True))
            handles.append(out.register_forward_pre_hook(functools.partial(self._own_values, index)))
        return handles

    def _perturbed(self, index: int, keeps_text: bool) -> list[slice]:
        here = [branch for branch in self.here if index in branch.identity]
        joint = self.anatomy.blocks[index].is_joint
        return [self.rows[branch.name] for branch in here if (joint and branch.keeps_text) == keeps_text]

    def _keep_values(self, index: int, module: Any, arguments: Any, output: Tensor) -> None:
        self.values = output if self._perturbed(index, False) else None
        if pieces := self._perturbed(index, True):
            self.masking = OwnTokens(output, pieces)
            self.masking.__enter__()

    def _leave_attention(self, module: Any, arguments: Any, output: Any) -> None:
        if self.masking is not None:
            self.masking.__exit__(None, None, None)
            self.masking = None

    def _own_values(self, index: int, module: Any, arguments: Any) -> Any:
        if self.masking is not None:
            check_done(self.masking, index)
        if self.values is None:
            return None
        value = arguments[0]
        for rows in self._perturbed(index, False):
            value = put_rows(value, rows, self.values[rows])
        self.values = None
        return (value, *arguments[1:])
