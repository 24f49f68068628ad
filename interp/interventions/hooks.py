"""The second driver: the same edits as plain torch hooks on a pipeline, for calls of your own.

with edited(model, [Zero(channels=29, blocks=4)]):
    model.pipe("a red circle", num_inference_steps=20)

Steps are counted by the calls of the transformer, one a step. The pipeline's own guidance batches its branches: they are edited
alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from interp.errors import InputError
from interp.interventions import Intervention
from interp.interventions.conditioning import SwapConditioning
from interp.models.anatomy import Anatomy, bind_inputs
from interp.sites import Site


@contextlib.contextmanager
def edited(model: Any, edits: Sequence[Intervention]) -> Iterator[None]:
    """Edit every call of `model.pipe` inside; `model` has `.pipe` and `.anatomy`. An edit that touches nothing is an error."""
    driver = _Driver(model.anatomy, list(edits))
    transformer = model.pipe.transformer
    handles: list[Any] = [transformer.register_forward_hook(driver.end_call)]
    handles.append(transformer.register_forward_pre_hook(driver.on_arguments, with_kwargs=True))
    try:
        for index, block in enumerate(model.anatomy.blocks):
            module = transformer.get_submodule(block.path)
            handles.append(module.register_forward_hook(driver.on_states(index)))
            for modulation in block.modulations:
                hook = driver.on_chunks(index, modulation.module)
                handles.append(module.get_submodule(modulation.module).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
    driver.check_touched()


class _Driver:
    def __init__(self, anatomy: Anatomy, edits: list[Intervention]) -> None:
        self.anatomy, self.edits = anatomy, edits
        self.step = 0
        self.touched = [0] * len(edits)

    def end_call(self, module: Any, arguments: Any, output: Any) -> None:
        """One call of the transformer is over: the next step begins."""
        self.step += 1

    def on_arguments(self, module: Any, arguments: Any, named: Any) -> Any:
        """A hook before a call: replace what a `SwapConditioning` names."""
        bound = bind_inputs(module, arguments, named)
        changed = False
        for number, edit in enumerate(self.edits):
            if isinstance(edit, SwapConditioning) and edit.swaps(self.step):
                bound, changed = {**bound, **edit.swapped(bound)}, True
                self.touched[number] += 1
        return ((), bound) if changed else None

    def on_states(self, index: int) -> Any:
        """A hook on a block's output."""
        places = self.anatomy.blocks[index].hidden

        def hook(module: Any, arguments: Any, output: Any) -> Any:
            items = list(output) if isinstance(output, tuple) else [output]
            for stream, item in places.items():
                items[item or 0] = self._edit(Site(index, stream, "hidden"), items[item or 0])
            return tuple(items) if isinstance(output, tuple) else items[0]

        return hook

    def on_chunks(self, index: int, path: str) -> Any:
        """A hook on the output of an AdaLN projection: (batch, chunk * channel)."""
        block = self.anatomy.blocks[index]
        found = [(number, site, owner) for owner, number, site in block.chunk_sites(index) if owner.module == path]

        def hook(module: Any, arguments: Any, output: Any) -> Any:
            chunks = list(output.chunk(len(found[0][2].chunks), dim=-1))
            for number, site, owner in found:
                if site.stream == owner.stream:
                    chunks[number] = self._edit(site, chunks[number])
            return torch.cat(chunks, dim=-1)

        return hook

    def _edit(self, site: Site, value: Any) -> Any:
        for number, edit in enumerate(self.edits):
            if edit.touches(site, self.step):
                value, self.touched[number] = edit.apply(site, self.step, value), self.touched[number] + 1
        return value

    def check_touched(self) -> None:
        """Refuse silence: every edit must have acted."""
        for edit, count in zip(self.edits, self.touched, strict=True):
            if self.step and not count:
                raise InputError(
                    f"intervention {edit!r} touched nothing: no block, stream and step of these calls is like that"
                )
        if self.edits and not self.step:
            raise InputError("no call of the transformer was made inside edited(...); call model.pipe(...) in it")
