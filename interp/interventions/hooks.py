"""The edits as plain torch hooks on a pipeline, for your own calls.

with edited(model, [Zero(channels=29, blocks=4)]):
    model.pipe("a red circle", num_inference_steps=20)

One call of the transformer counts as one step. If the pipeline's own guidance batches its branches, all of them are edited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from interp.base.errors import InputError, ModelError
from interp.base.sites import Site
from interp.interventions import Intervention
from interp.interventions.conditioning import SwapConditioning
from interp.interventions.controls import Memory, NormEdit, Remembering
from interp.interventions.in_use import using
from interp.interventions.selection import resolved
from interp.models.anatomy import Anatomy, Block, Lengths, Modulation, Norm, bind_inputs

Piece = tuple[slice, int]
"""Rows of the batch, and the index of the arm that edits them."""


@contextlib.contextmanager
def edited(model: Any, edits: Sequence[Intervention]) -> Iterator[None]:
    """Edit every call of `model.pipe` inside; `model` has `.pipe` and `.anatomy`. An edit without effect raises InputError."""
    if not hasattr(model, "anatomy"):
        raise InputError(f"edited needs an interp.Model, such as interp.wrap(pipe); got {type(model).__name__}")
    driver = Driver(model.anatomy, [as_list(edits)])
    transformer = model.pipe.transformer
    handles = [transformer.register_forward_hook(driver.end_call)]
    handles.append(transformer.register_forward_pre_hook(driver.on_arguments, with_kwargs=True))
    with using(transformer, "edited"), attached([*handles, *driver.attach(transformer)]):
        yield
    driver.check_touched()


def as_list(edits: Any) -> list[Intervention]:
    """The edits as a list; InputError for anything else."""
    if isinstance(edits, str) or not isinstance(edits, Sequence):
        raise InputError(f"interventions must be a list of edits, such as [Zero(channels=[29])]; got {edits!r}")
    return list(edits)


@contextlib.contextmanager
def attached(handles: Iterable[Any]) -> Iterator[None]:
    """Remove hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Driver:
    """Applies each arm's edits to that arm's rows, by default a single arm's to all rows; `attach` does so through hooks."""

    def __init__(self, anatomy: Anatomy, arms: Sequence[Sequence[Intervention]]) -> None:
        self.anatomy, self.arms = anatomy, [[resolved(edit, anatomy) for edit in edits] for edits in arms]
        self.pieces: list[Piece] = [(slice(None), 0)] if self.arms else []
        self.step, self.called = 0, False
        self.touched = [[0] * len(edits) for edits in self.arms]
        self.memory = Memory()
        self.lengths: Lengths = {}

    def __deepcopy__(self, memo: Any) -> Any:
        raise InputError("model: its pipeline is copied inside `edited` or `guided`; copy it before or after the with block")

    def attach(self, transformer: Any, *, first: bool = False) -> list[Any]:
        """Register the hooks that these edits need; return their handles, which have `remove`."""
        handles = self.attach_norms(transformer, first=first)
        if self.anatomy.joint:
            handles.append(transformer.register_forward_pre_hook(self.note_lengths, with_kwargs=True))
        handles += self.attach_counts(transformer)
        for index, block in enumerate(self.anatomy.blocks):
            module = transformer.get_submodule(block.path)
            handles.append(module.register_forward_hook(partial(self.on_states, index), prepend=first))
            for modulation in block.modulations:
                sites = self._own_sites(index, modulation)
                if modulation.module is None:
                    hook = partial(self.before_chunks, modulation, sites)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True, prepend=first))
                else:
                    hook = partial(self.on_chunks, modulation, sites)
                    handles.append(module.get_submodule(modulation.module).register_forward_hook(hook, prepend=first))
        return handles

    def note_lengths(self, module: Any, arguments: Any, named: Any) -> None:
        """A hook before a call: note the number of tokens of each stream."""
        self.lengths = self.anatomy.lengths(bind_inputs(module, arguments, named))

    def attach_counts(self, transformer: Any) -> list[Any]:
        """Register the hooks that count each row's tokens, in the blocks where rows differ in them."""
        counted = [block for block in self.anatomy.blocks if type(block).in_rows is not Block.in_rows]
        modules = [(transformer.get_submodule(block.path), partial(self.count, block)) for block in counted]
        return [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in modules]

    def count(self, block: Block, module: Any, arguments: Any, named: Any) -> None:
        """A hook before a block: note each row's number of tokens."""
        self.lengths = block.in_rows(bind_inputs(module, arguments, named), self.lengths)

    def attach_norms(self, transformer: Any, *, first: bool = False) -> list[Any]:
        """Register the hooks on LayerNorms, where an edit needs them."""
        if not any(isinstance(edit, NormEdit) for edits in self.arms for edit in edits):
            return []
        if not self.anatomy.has_norms:
            raise ModelError(
                f"edits of LayerNorms: the blocks of {self.anatomy.model_class} have no LayerNorm without weights; leave out "
                "ZeroNormsKept and NormsAsIfZero"
            )
        modules = [(f"{block.path}.{norm.module}", norm) for block in self.anatomy.blocks for norm in block.norms]
        last = self.anatomy.last_norm
        modules += [(last.module, last)] if last is not None else []
        hooks = [(transformer.get_submodule(path), partial(self.on_norm, norm)) for path, norm in modules]
        return [module.register_forward_hook(hook, prepend=first) for module, hook in hooks]

    def end_call(self, module: Any, arguments: Any, output: Any) -> None:
        """A hook after a call of the transformer: start the next step."""
        self.step, self.called = self.step + 1, True
        self.memory.begin_call()

    def on_arguments(self, module: Any, arguments: Any, named: Any) -> Any:
        """A hook before a call: apply every `SwapConditioning`."""
        bound, changed = self.swap(self.anatomy.rows_first(bind_inputs(module, arguments, named)))
        return ((), self.anatomy.as_called(bound)) if changed else None

    def swap(self, bound: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The call's arguments with every arm's swaps in its rows, and whether any changed."""
        changed = False
        for rows, arm in self.pieces:
            for number, edit in enumerate(self.arms[arm]):
                if isinstance(edit, SwapConditioning) and edit.swaps(self.step):
                    bound = self.anatomy.as_long(bound, edit.arguments)
                    swapped = edit.swapped({name: bound[name][rows] for name in edit.arguments})
                    bound, changed = {**bound, **{name: put_rows(bound[name], rows, swapped[name]) for name in swapped}}, True
                    self.touched[arm][number] += 1
        return bound, changed

    def on_states(self, index: int, module: Any, arguments: Any, output: Any) -> Any:
        """A hook on a block's output."""
        block = self.anatomy.blocks[index]
        before = block.states(output, self.lengths)
        after = {stream: self.edit(Site(index, stream, "hidden"), state) for stream, state in before.items()}
        return (
            None if all(after[stream] is before[stream] for stream in after) else block.with_states(output, after, self.lengths)
        )

    def on_chunks(self, modulation: Modulation, sites: Mapping[int, Site], module: Any, arguments: Any, output: Any) -> Any:
        """A hook on the output of an AdaLN projection: (batch, chunk * channel)."""
        return self.edit_chunks(modulation, sites, output)

    def before_chunks(self, modulation: Modulation, sites: Mapping[int, Site], module: Any, arguments: Any, named: Any) -> Any:
        """A hook before a block that receives its AdaLN values as an argument."""
        if not any(self.concerns(site) for site in sites.values()):
            return None
        bound = bind_inputs(module, arguments, named)
        before = modulation.compute(module, bound)
        after = self.edit_chunks(modulation, sites, before)
        return None if after is None else ((), modulation.write(module, bound, before, after))

    def _own_sites(self, index: int, modulation: Modulation) -> dict[int, Site]:
        found = self.anatomy.blocks[index].chunk_sites(index)
        return {
            number: site for owner, number, site in found if owner is modulation and site.stream not in modulation.shared_with
        }

    def edit_chunks(self, modulation: Modulation, sites: Mapping[int, Site], values: Tensor) -> Tensor | None:
        """The values with edited chunks, by their numbers; `None` if no edit applies."""
        if not any(self.concerns(site) for site in sites.values()):
            return None
        before = modulation.split(values)
        after = list(before)
        for number, site in sites.items():
            after[number] = self.edit(site, after[number])
        changed = any(new is not old for new, old in zip(after, before, strict=True))
        return modulation.join(values, after) if changed else None

    def on_norm(self, norm: Norm, module: Any, arguments: Any, output: Tensor) -> Tensor | None:
        """A hook on a LayerNorm: norm edits change its statistics."""
        normed = output
        for rows, arm in self.pieces:
            for number, edit in enumerate(self.arms[arm]):
                if isinstance(edit, NormEdit):
                    state, part = arguments[0][rows], normed[rows]
                    new = self.memory.normed((arm, number), edit, norm, module, state, part, self.lengths)
                    normed = normed if new is part else put_rows(normed, rows, new)
        return None if normed is output else normed

    @property
    def swaps(self) -> bool:
        """Whether any arm swaps arguments of the call at this step."""
        every = [edit for _, arm in self.pieces for edit in self.arms[arm]]
        return any(isinstance(edit, SwapConditioning) and edit.swaps(self.step) for edit in every)

    def concerns(self, site: Site) -> bool:
        """Whether any arm touches a site at this step."""
        return any(edit.touches(site, self.step) for _, arm in self.pieces for edit in self.arms[arm])

    def edit(self, site: Site, value: Tensor) -> Tensor:
        """A site's value with every arm's edits in its rows."""
        for rows, arm in self.pieces:
            before = part = value[rows]
            for number, edit in enumerate(self.arms[arm]):
                if not edit.touches(site, self.step):
                    continue
                if isinstance(edit, Remembering):
                    part = edit.apply_with(self.memory, (arm, number), site, self.step, part)
                else:
                    part = edit.apply(site, self.step, part)
                self.touched[arm][number] += 1
            if part is not before:
                self.note(arm, site, before, part)
                value = put_rows(value, rows, part)
        return value

    def note(self, arm: int, site: Site, before: Tensor, after: Tensor) -> None:
        """Called with every edited part."""

    def check_touched(self) -> None:
        """Raise InputError if an edit had no effect."""
        for edits, counts in zip(self.arms, self.touched, strict=True):
            for edit, count in zip(edits, counts, strict=True):
                if self.called and not count:
                    raise InputError(
                        f"intervention {edit!r} touched nothing: no call has this block, stream and step; change the edit"
                    )
        if any(self.arms) and not self.called:
            raise InputError("the transformer was not called inside edited(...); call model.pipe(...) in it")


def put_rows(value: Any, rows: slice, part: Any) -> Any:
    """A copy of the value, a tensor or a list with one item per row, with some rows replaced."""
    if isinstance(value, list):
        every = list(value)
        every[rows] = part
        return every
    if part.shape[0] == value.shape[0]:
        return part
    whole = value.clone()
    whole[rows] = part
    return whole
