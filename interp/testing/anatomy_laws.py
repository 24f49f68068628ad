"""Laws of an anatomy, tested on a model with plain hooks: the residual identity, gates, the batch axis, conditioning, sites."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.models.anatomy import Anatomy, Modulation, add_rows, bind_inputs, take_rows
from interp.models.quiet import quiet
from interp.testing.block_records import Record, error_of_records, gate_pairs, recording, swapped_chunks
from interp.testing.family import FamilyFixtures
from interp.tracing.group import pipeline_arguments
from interp.tracing.model import Model
from interp.tracing.prepare import prepare


class AnatomyLaws(FamilyFixtures):
    """What an anatomy states holds for the transformer."""

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls, model: Model) -> dict[str, Any]:
        """The transformer's arguments for two prompts, at the first step with a timestep above 0."""
        calls: list[dict[str, Any]] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            bound = bind_inputs(module, args, kwargs)
            calls.append({name: value for name, value in bound.items() if value is not None and carries(value)})

        prepared = prepare(model, list(cls.prompts[:2]), steps=2, **cls().given_size(model))
        with model.pipe.transformer.register_forward_pre_hook(before, with_kwargs=True), quiet():
            model.pipe(**pipeline_arguments(model, prepared.plan, prepared.plan.rows()))
        return next(call for call in calls if (model.anatomy.rows_first(call)[model.anatomy.timestep.name] > 0).all())

    @pytest.fixture(scope="class")
    @classmethod
    def lengths(cls, model: Model) -> Mapping[str, int]:
        """Number of tokens of each stream."""
        return prepare(model, list(cls.prompts[:2]), steps=2, **cls().given_size(model)).layout.lengths

    @pytest.fixture(scope="class")
    @classmethod
    def records(cls, model: Model, inputs: dict[str, Any]) -> list[Record]:
        """What plain hooks recorded from every block."""
        transformer = model.pipe.transformer
        with torch.no_grad(), recording(transformer, model.anatomy, branches=True) as (_, found):
            transformer(**inputs)
        return found

    def test_the_residual_identity_holds(self, model: Model, records: list[Record], lengths: Mapping[str, int]) -> None:
        """Hidden = input + sum of alpha x branch, relative to the largest update."""
        assert error_of_records(model.anatomy, records, lengths) < 1e-5

    def test_the_text_tokens_of_a_call_are_those_planned(self, model: Model, inputs: dict[str, Any], lengths: Any) -> None:
        """The state is split at this number where blocks hold both streams in one state."""
        if model.anatomy.joint:
            found = model.anatomy.lengths(model.anatomy.rows_first(inputs))
            assert {stream: lengths[stream] for stream in found if stream in model.anatomy.stream_names} == {
                stream: count for stream, count in found.items() if stream in model.anatomy.stream_names
            }

    def test_swapping_two_gates_breaks_the_identity(self, model: Model, records: list[Record], lengths: Any) -> None:
        """Each pair of gates of one projection, and a gate with a shift."""
        swapped = [swapped_chunks(model.anatomy, a, b) for a, b in gate_pairs(model.anatomy)]
        assert bool(swapped) == any(len(one.chunks) > 3 for block in model.anatomy.blocks for one in block.modulations)
        for anatomy in swapped:
            assert error_of_records(anatomy, records, lengths) > 0.01

    def test_gates_computed_without_running_the_block_are_the_ones_it_uses(self, model: Model, records: list[Record]) -> None:
        """Bit for bit: the same modules on the same inputs."""
        with torch.no_grad():
            for block, record in zip(model.anatomy.blocks, records, strict=True):
                for modulation in block.modulations:
                    module = model.pipe.transformer.get_submodule(block.path)
                    computed = modulation.compute(module, record["inputs"])
                    assert torch.equal(computed, record[modulation.name])
                    assert computed.shape[-1] == len(modulation.chunks) * model.anatomy.stream(modulation.stream).width

    def test_row_inputs_are_all_that_carries_the_batch(
        self, model: Model, records: list[Record], inputs: dict[str, Any]
    ) -> None:
        """Appending a row by argument name alone makes a valid call and leaves the earlier rows unchanged."""
        transformer, anatomy = model.pipe.transformer, model.anatomy
        carried = {name for name, value in anatomy.rows_first(inputs).items() if rows_of(value) == 2}
        carried -= {name for name in inputs if name.endswith("_ids")} - {*anatomy.row_inputs}  # positions, the same in all rows
        assert {name for name in anatomy.row_inputs if name in inputs} == carried
        rows = {name: value for name, value in anatomy.rows_first(inputs).items() if name in anatomy.row_inputs}
        one_more = {name: add_rows(value, take_rows(value, slice(1))) for name, value in rows.items()}
        with torch.no_grad():
            short = anatomy.prediction(transformer(**{**inputs, "return_dict": True}), inputs)
            long = anatomy.prediction(transformer(**{**inputs, **anatomy.as_called(one_more), "return_dict": True}), inputs)
        near: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5 * float(short.abs().max().clamp_min(1.0))}
        torch.testing.assert_close(long[:2], short, **near)
        torch.testing.assert_close(long[2], short[0], **near)
        for block, record in zip(anatomy.blocks, records, strict=True):
            tensors = {name for name, value in record["inputs"].items() if isinstance(value, Tensor)}
            assert tensors - {*self.rowless} == {name for name in block.row_inputs if record["inputs"].get(name) is not None}

    def test_conditioning_enters_again_where_the_anatomy_says(self, model: Model, inputs: dict[str, Any]) -> None:
        """Another timestep changes the output with the blocks' inputs fixed, but not with the re-entries fixed too."""
        anatomy, one = model.anatomy, one_row(model.anatomy, inputs)
        given = one[anatomy.timestep.name]
        other = {**one, anatomy.timestep.name: (given * 0.4).to(given.dtype)}
        replay = Replay(model)
        blocks = [block.path for block in anatomy.blocks]
        again = [reentry.module for reentry in anatomy.reentries]
        original = replay.run(one, blocks + again, replayed=False)
        assert torch.equal(replay.run(other, blocks, replayed=True), original) == (not again)
        assert torch.equal(replay.run(other, blocks + again, replayed=True), original)

    def test_every_site_matters(self, model: Model, inputs: dict[str, Any]) -> None:
        """Another value at any site changes the transformer's output."""
        transformer, anatomy, one = model.pipe.transformer, model.anatomy, one_row(model.anatomy, inputs)
        with torch.no_grad():
            before = anatomy.prediction(transformer(**one), one)
            for index, block in enumerate(anatomy.blocks):
                module = transformer.get_submodule(block.path)
                for modulation, number, site in block.chunk_sites(index):
                    if site.stream in modulation.shared_with or str(site) in self.unread:
                        continue  # the same chunk under another name, or declared unused
                    with raise_chunk(module, modulation, number):
                        assert not torch.equal(anatomy.prediction(transformer(**one), one), before), site


def carries(value: Any) -> bool:
    """False for a mapping without tensors (options of a call), else True."""
    return not isinstance(value, Mapping) or any(isinstance(item, Tensor) for item in value.values())


def rows_of(value: Any) -> int:
    """Number of rows of a tensor, a list, or the first tensor of a mapping; 0 for anything else."""
    if isinstance(value, Mapping):
        return next((rows_of(item) for item in value.values() if item is not None), 0)
    if isinstance(value, Tensor):
        return value.shape[0] if value.ndim else 0
    return len(value) if isinstance(value, list) else 0


def one_row(anatomy: Anatomy, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The first row of a call, as the transformer takes it."""
    rows = {name: value for name, value in anatomy.rows_first(inputs).items() if name in anatomy.row_inputs}
    first = {name: take_rows(value, slice(1)) for name, value in rows.items()}
    return {**inputs, **anatomy.as_called(first), "return_dict": True}


class Replay:
    """Run a transformer with the inputs of some modules fixed to their values in its first run."""

    def __init__(self, model: Model) -> None:
        self.transformer, self.anatomy = model.pipe.transformer, model.anatomy
        self.of_output = {reentry.module for reentry in model.anatomy.reentries if reentry.argument is None}
        self.kept: dict[str, Any] = {}

    def run(self, inputs: Mapping[str, Any], paths: list[str], *, replayed: bool) -> Tensor:
        """Return the output. Record the inputs (or output) of the modules at `paths`; with `replayed`, restore them."""

        def on_input(module: nn.Module, args: Any, kwargs: Any, *, path: str) -> Any:
            if not replayed:
                self.kept[path] = (args, dict(kwargs))
            return self.kept[path] if replayed else None

        def on_output(module: nn.Module, args: Any, output: Any, *, path: str) -> Any:
            return self.kept.setdefault(path, output)

        with contextlib.ExitStack() as hooks, torch.no_grad():
            for path in paths:
                module = self.transformer.get_submodule(path)
                if path in self.of_output:
                    hooks.enter_context(module.register_forward_hook(partial(on_output, path=path)))
                else:
                    hooks.enter_context(module.register_forward_pre_hook(partial(on_input, path=path), with_kwargs=True))
            return self.anatomy.prediction(self.transformer(**inputs), inputs)


def raise_chunk(module: nn.Module, modulation: Modulation, number: int) -> Any:
    """Inside a `with` block, a hook that adds to one chunk of an AdaLN projection."""
    count = len(modulation.chunks)

    def raised(values: Tensor) -> Tensor:
        chunks = list(values.chunk(count, dim=-1))
        chunks[number] = chunks[number] + torch.linspace(0.5, 1.5, chunks[number].shape[-1])
        return torch.cat(chunks, dim=-1)

    def on_input(m: nn.Module, args: Any, kwargs: Any) -> Any:
        bound = bind_inputs(m, args, kwargs)
        values = modulation.compute(m, bound)
        return (), modulation.write(m, bound, values, raised(values))

    if modulation.module is None:
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.get_submodule(modulation.module).register_forward_hook(lambda m, args, output: raised(output))
