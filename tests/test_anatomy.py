"""An anatomy is proved on a model: the residual identity holds, and breaks when two gates or streams are swapped."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from conftest import ALL, MODELS, PROMPTS
from torch import Tensor, nn

import interp
from interp.models.anatomy import Anatomy, Modulation, add_rows, bind_inputs, take_rows
from interp.models.families import ANATOMIES
from interp.testing import untraced
from interp.tracing.prepare import prepare


def cross_inputs(config: Any, noise: Any, times: Tensor) -> dict[str, Any]:
    """Of PixArt and SANA."""
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]])[: len(times)]
    text: dict[str, Any] = {"encoder_hidden_states": noise(7, config.caption_channels), "encoder_attention_mask": mask}
    if config.sample_size == 128:  # PixArt-alpha's weights that are told the picture's size
        text["added_cond_kwargs"] = {"resolution": noise(2), "aspect_ratio": noise(1)}
    return {"hidden_states": noise(config.in_channels, 16, 16), **text, "timestep": times}


def wan_inputs(config: Any, noise: Any, times: Tensor) -> dict[str, Tensor]:
    text = {"encoder_hidden_states": noise(7, config.text_dim)}
    return {"hidden_states": noise(config.in_channels, 3, 16, 16), **text, "timestep": times}


def flux2_inputs(config: Any, noise: Any, times: Tensor) -> dict[str, Tensor]:
    image_ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(5.0), torch.zeros(1))
    text_ids = torch.cartesian_prod(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.arange(9.0))
    text = {"encoder_hidden_states": noise(9, config.joint_attention_dim), "txt_ids": text_ids}
    return {"hidden_states": noise(20, config.in_channels), **text, "timestep": times / 1000, "img_ids": image_ids}


def auraflow_inputs(config: Any, noise: Any, times: Tensor) -> dict[str, Tensor]:
    text = {"encoder_hidden_states": noise(1, config.joint_attention_dim)}  # after eight register tokens
    return {"hidden_states": noise(config.in_channels, 16, 16), **text, "timestep": times / 1000}


def qwenimage_inputs(config: Any, noise: Any, times: Tensor) -> dict[str, Any]:
    mask = torch.tensor([[1] * 6 + [0] * 3, [1] * 4 + [0] * 5])[: len(times)]
    text = {"encoder_hidden_states": noise(9, config.joint_attention_dim), "encoder_hidden_states_mask": mask}
    shapes = {"img_shapes": [[(1, 4, 5)]] * len(times)}
    return {"hidden_states": noise(20, config.in_channels), **text, "timestep": times / 1000, **shapes}


OTHERS = {
    "pixart": cross_inputs,
    "sana": cross_inputs,
    "wan": wan_inputs,
    "flux2": flux2_inputs,
    "qwenimage": qwenimage_inputs,
    "auraflow": auraflow_inputs,
}


LENGTHS = {"text": 9}
UNREAD = {
    name: [f"block.2/text/{kind}" for kind in ("alpha.attn", "alpha.mlp", "shift.mlp", "scale.mlp")]
    for name in ("qwenimage_model", "cogvideox_model")
}


def pipelines_inputs(model: interp.Model, batch: int) -> dict[str, Any]:
    """What the pipeline itself gives its transformer in a step that is not at time 0, for two prompts."""
    calls: list[dict[str, Any]] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        bound = bind_inputs(module, args, kwargs)
        calls.append({name: value for name, value in bound.items() if value is not None and not name.endswith("kwargs")})

    handle = model.pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    untraced(model, prepare(model, PROMPTS[:2], steps=2))
    handle.remove()
    call = next(model.anatomy.rows_first(call) for call in calls if (call[model.anatomy.timestep] > 0).all())
    rows = {name: take_rows(call[name], slice(batch)) for name in model.anatomy.row_inputs if name in call}
    return {**model.anatomy.as_called({**call, **rows}), "return_dict": True}


def inputs_for(model: interp.Model, batch: int = 2) -> dict[str, Tensor]:
    """Random arguments for the transformer, from its config."""
    config, family = model.pipe.transformer.config, model.anatomy.family
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=draw)

    times = torch.tensor([700.0, 200.0])[:batch]
    if family == "dit":
        latents = noise(config.in_channels, config.sample_size, config.sample_size)
        return {"hidden_states": latents, "timestep": times.long(), "class_labels": torch.tensor([3, 8])[:batch]}
    if family in OTHERS:
        return OTHERS[family](config, noise, times)
    if family not in ("sd3", "flux"):
        return pipelines_inputs(model, batch)
    text = {
        "encoder_hidden_states": noise(9, config.joint_attention_dim),
        "pooled_projections": noise(config.pooled_projection_dim),
    }
    if family == "sd3":
        return {"hidden_states": noise(config.in_channels, 16, 16), **text, "timestep": times}
    ids = {"txt_ids": torch.zeros(9, 3), "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(5.0))}
    guidance = {"guidance": torch.full((batch,), 3.5)} if config.guidance_embeds else {}
    return {"hidden_states": noise(20, config.in_channels), **text, "timestep": times / 1000, **ids, **guidance}


@torch.no_grad()
def block_records(transformer: nn.Module, anatomy: Anatomy, inputs: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Per block: its bound inputs, its output, and the output of each submodule the anatomy names."""
    records: list[dict[str, Any]] = [{} for _ in anatomy.blocks]
    handles = []
    for block, record in zip(anatomy.blocks, records, strict=True):
        module = transformer.get_submodule(block.path)

        def on_input(module: nn.Module, args: Any, kwargs: Any, record: dict[str, Any] = record) -> None:
            record["inputs"] = bind_inputs(module, args, kwargs)

        def on_output(module: nn.Module, args: Any, output: Any, record: dict[str, Any] = record, name: str = "output") -> None:
            record[name] = output

        handles.append(module.register_forward_pre_hook(on_input, with_kwargs=True))
        handles.append(module.register_forward_hook(on_output))
        for name in {b.module for b in block.branches} | {m.module for m in block.modulations if m.module is not None}:
            hook = lambda m, a, o, record=record, name=name: on_output(m, a, o, record, name)  # noqa: E731
            handles.append(module.get_submodule(name).register_forward_hook(hook))
    transformer(**inputs)
    for handle in handles:
        handle.remove()
    for block, record in zip(anatomy.blocks, records, strict=True):
        module = transformer.get_submodule(block.path)
        for modulation in (m for m in block.modulations if m.module is None):
            record[modulation.name] = modulation.compute(module, record["inputs"])
    return records


def residual_error(anatomy: Anatomy, records: list[dict[str, Any]]) -> float:
    """Largest |z[k+1] - z[k] - sum_j alpha_j D_j| over blocks and streams, relative to the largest update."""
    errors = []
    for index, (block, record) in enumerate(zip(anatomy.blocks, records, strict=True)):
        alpha = {}
        for modulation, number, site in block.chunk_sites(index):
            if site.kind == "alpha":
                alpha[site.stream, site.gate] = modulation.split(record[modulation.name])[number]
        given, after_all = (block.states_given(record["inputs"], LENGTHS), block.states(record["output"], LENGTHS))
        for stream in block.hidden:
            before, after = given[stream], after_all[stream]
            update = torch.zeros_like(before)
            for branch in (b for b in block.branches if b.stream == stream):
                value = record[branch.module]
                value = value if branch.item is None or not isinstance(value, tuple) else value[branch.item]
                value = value.flatten(2).transpose(1, 2) if branch.spatial else value
                if branch.joint:
                    first = LENGTHS["text"] if branch.joint[0] == "text" else value.shape[1] - LENGTHS["text"]
                    value = value[:, :first] if branch.joint[0] == stream else value[:, first:]
                update = update + (alpha[stream, branch.gate].unsqueeze(1) if branch.gated else 1.0) * value
            errors.append(((after - before - update).abs().max() / (after - before).abs().max()).item())
    return max(errors)


@pytest.mark.parametrize("name", MODELS)
def test_the_residual_identity_holds(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    records = block_records(model.pipe.transformer, model.anatomy, inputs_for(model))
    assert residual_error(model.anatomy, records) < 1e-5


def swapped_chunks(anatomy: Anatomy, a: str, b: str) -> Anatomy:
    names = {a: b, b: a}
    blocks = [
        dataclasses.replace(
            block,
            reads=tuple(
                dataclasses.replace(read, chunks=tuple(names.get(chunk, chunk) for chunk in read.chunks))
                if isinstance(read, Modulation) and {a, b} <= set(read.chunks)
                else read
                for read in block.reads
            ),
        )
        for block in anatomy.blocks
    ]
    return dataclasses.replace(anatomy, blocks=tuple(blocks))


def swapped_streams(anatomy: Anatomy) -> Anatomy:
    blocks = [
        dataclasses.replace(block, hidden={"text": 1, "image": 0} if len(block.hidden) == 2 else block.hidden)
        for block in anatomy.blocks
    ]
    return dataclasses.replace(anatomy, blocks=tuple(blocks))


def test_swapping_two_gates_breaks_it(dual_model: interp.Model) -> None:
    records = block_records(dual_model.pipe.transformer, dual_model.anatomy, inputs_for(dual_model))
    for a, b in (("alpha.attn", "alpha.mlp"), ("alpha.attn", "alpha.attn2"), ("alpha.mlp", "shift.mlp")):
        assert residual_error(swapped_chunks(dual_model.anatomy, a, b), records) > 0.05


def test_swapping_the_streams_breaks_it(tiny_model: interp.Model) -> None:
    records = block_records(tiny_model.pipe.transformer, tiny_model.anatomy, inputs_for(tiny_model))
    with pytest.raises(RuntimeError):  # the streams differ in length
        residual_error(swapped_streams(tiny_model.anatomy), records)


@pytest.mark.parametrize("name", ALL)
def test_gates_computed_without_running_the_block_are_the_ones_it_uses(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    transformer = model.pipe.transformer
    records = block_records(transformer, model.anatomy, inputs_for(model))
    with torch.no_grad():
        for block, record in zip(model.anatomy.blocks, records, strict=True):
            for modulation in block.modulations:
                computed = modulation.compute(transformer.get_submodule(block.path), record["inputs"])
                assert torch.equal(computed, record[modulation.name])
                assert computed.shape[-1] == len(modulation.chunks) * model.anatomy.channels


@pytest.mark.parametrize("name", ALL)
def test_row_inputs_are_all_that_carries_the_batch(name: str, request: pytest.FixtureRequest) -> None:
    """Appending rows by argument name alone gives a valid call, whose first rows are unchanged."""
    model = request.getfixturevalue(name)
    transformer, anatomy = model.pipe.transformer, model.anatomy
    two = inputs_for(model)
    shared = {key for key in two if key.endswith("_ids") or not isinstance(two[key], Tensor | list | dict)}
    shared |= {key for key in two if isinstance(two[key], Tensor) and 1 in two[key].shape[:1]}  # one for all rows
    assert {key for key in anatomy.row_inputs if key in two} == set(two) - shared
    rows = {key: value for key, value in anatomy.rows_first(two).items() if key in anatomy.row_inputs}
    three = {**two, **anatomy.as_called({key: add_rows(value, take_rows(value, slice(1))) for key, value in rows.items()})}
    with torch.no_grad():
        short, long = transformer(**two).sample, transformer(**three).sample
    assert torch.allclose(long[:2], short, atol=1e-5)
    assert torch.allclose(long[2], short[0], atol=1e-5)
    for block, record in zip(anatomy.blocks, block_records(transformer, anatomy, two), strict=True):
        tensors = {key for key, value in record["inputs"].items() if isinstance(value, Tensor)}
        assert tensors == {key for key in block.row_inputs if record["inputs"].get(key) is not None}


@pytest.mark.parametrize("name", ALL)
def test_conditioning_enters_again_where_it_is_said_to(name: str, request: pytest.FixtureRequest) -> None:
    """With what the blocks are given held, another timestep moves the output; with the re-entries held too, it does not."""
    model = request.getfixturevalue(name)
    transformer, anatomy = model.pipe.transformer, model.anatomy
    of_output = {reentry.module for reentry in anatomy.reentries if reentry.argument is None}
    one = inputs_for(model, batch=1)
    told = one[anatomy.timestep]
    other = {**one, anatomy.timestep: (told * 0.4).to(told.dtype)}
    kept: dict[str, Any] = {}

    def run(inputs: dict[str, Tensor], paths: list[str], replay: bool) -> Tensor:
        def hook(module: nn.Module, args: Any, kwargs: Any, path: str) -> Any:
            if replay:
                return kept[path]
            kept[path] = (args, dict(kwargs))
            return None

        def on_output(module: nn.Module, args: Any, output: Any, path: str) -> Any:
            return kept.setdefault(path, output)

        handles = [
            transformer.get_submodule(path).register_forward_hook(partial(on_output, path=path))
            if path in of_output
            else transformer.get_submodule(path).register_forward_pre_hook(partial(hook, path=path), with_kwargs=True)
            for path in paths
        ]
        with torch.no_grad():
            result: Tensor = transformer(**inputs).sample
        for handle in handles:
            handle.remove()
        return result

    blocks = [block.path for block in anatomy.blocks]
    again = [reentry.module for reentry in anatomy.reentries]
    original = run(one, blocks + again, replay=False)
    assert torch.equal(run(other, blocks, replay=True), original) == (not again)
    assert torch.equal(run(other, blocks + again, replay=True), original)


@pytest.mark.parametrize("name", ALL)
def test_every_site_matters(name: str, request: pytest.FixtureRequest) -> None:
    """Changing the value at any site changes the transformer's output: no site is a place nobody reads."""
    model = request.getfixturevalue(name)
    transformer, anatomy, inputs = model.pipe.transformer, model.anatomy, inputs_for(model, batch=1)
    with torch.no_grad():
        before = transformer(**inputs).sample
        for index, block in enumerate(anatomy.blocks):
            module = transformer.get_submodule(block.path)
            for modulation, number, site in block.chunk_sites(index):
                if site.stream in modulation.shared_with or str(site) in UNREAD.get(name, ()):
                    continue  # the same chunk under another name; or of a last text state, which nobody reads

                def edit(m: nn.Module, a: Any, output: Tensor, n: int = number, c: int = len(modulation.chunks)) -> Tensor:
                    chunks = list(output.chunk(c, dim=-1))
                    chunks[n] = chunks[n] + torch.linspace(0.5, 1.5, chunks[n].shape[-1])
                    return torch.cat(chunks, dim=-1)

                def edit_given(m: nn.Module, a: Any, kw: Any, name: str = str(modulation.argument), edit: Any = edit) -> Any:
                    bound = bind_inputs(m, a, kw)
                    flat = bound[name].reshape(len(bound[name]), -1)
                    return (), {**bound, name: edit(m, a, flat).reshape(bound[name].shape)}

                if modulation.module is None:
                    handle = module.register_forward_pre_hook(edit_given, with_kwargs=True)
                else:
                    handle = module.get_submodule(modulation.module).register_forward_hook(edit)
                after = transformer(**inputs).sample
                handle.remove()
                assert not torch.equal(after, before), site


def test_sd3_counts(tiny_model: interp.Model, dual_model: interp.Model) -> None:
    anatomy = tiny_model.anatomy
    assert (len(anatomy.blocks), anatomy.channels, anatomy.streams, anatomy.gates) == (
        4,
        32,
        ("image", "text"),
        ("attn", "mlp"),
    )
    assert dual_model.anatomy.gates == ("attn", "attn2", "mlp")
    names = [str(site) for site in anatomy.sites()]
    assert len(names) == len(set(names))
    assert "block.3/text/hidden" not in names
    assert "block.3/text/alpha.attn" not in names
    assert "block.2/text/alpha.mlp" in names


def test_an_unknown_transformer_says_how_to_add_it(tiny_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.models.anatomy import describe

    class MyDiT(nn.Module):
        pass

    with pytest.raises(interp.ModelError, match=r"MyDiT has no anatomy; supported: .*SD3Transformer2DModel.*register_anatomy"):
        describe(MyDiT(), ANATOMIES)
    monkeypatch.setattr("interp.models.families.ANATOMIES", dict(ANATOMIES))
    from interp.models import families

    families.register_anatomy("MyDiT", lambda transformer: tiny_model.anatomy)
    assert describe(MyDiT(), families.ANATOMIES) is tiny_model.anatomy
