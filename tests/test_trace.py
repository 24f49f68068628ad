"""A trace against the plain pipeline and plain torch hooks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import FAMILIES, PROMPTS, full, prompts_for
from messages import refused

import interp
from interp.testing import check_anatomy, untraced
from interp.testing.reference import hooked, last_latents
from interp.tracing.prepare import prepare


def drawn_plain(pipe: Any, rows: xr.Dataset, steps: int = 4) -> tuple[Any, Any]:
    """Pictures and last latents of a plain SD3 pipeline, its guidance off, of these rows' prompts and seeds."""
    noise = [torch.Generator().manual_seed(int(seed)) for seed in rows["seed"]]
    more = {"num_inference_steps": steps, "height": 64, "width": 64, "generator": noise, "output_type": "np"}
    family = FAMILIES["sd3"]
    with last_latents(pipe) as last:
        output = family.draw(pipe, rows["prompt_text"].to_numpy().tolist(), {"max_sequence_length": 8}, 1.0, **more)
    return family.pictures(output), last[0].float().numpy()


def test_absent_states_are_stated(tiny_run: interp.Run) -> None:
    last = tiny_run.stats.isel(block=-1)
    assert not bool(last["present"].sel(stream="text"))
    assert np.isnan(last["mean"].sel(stream="text")).all()
    assert bool(last["present"].sel(stream="image"))
    assert list(tiny_run.hidden["text"]["block"].values) == [0, 1, 2]
    others = tiny_run.stats["mean_abs"].sel(stream="image")
    assert np.isfinite(others).all()


def test_modulation_is_what_the_norms_apply(tiny_model: interp.Model, tiny_run: interp.Run) -> None:
    """shift and scale of the first block, from temb through diffusers' own projection."""
    transformer = tiny_model.pipe.transformer
    prompt = PROMPTS[0]
    with torch.no_grad():
        _, _, pooled, _ = tiny_model.pipe.encode_prompt(
            prompt, prompt, prompt, do_classifier_free_guidance=False, max_sequence_length=8
        )
        for step, timestep in enumerate(tiny_run.gates["timestep"].values):
            temb = transformer.time_text_embed(torch.tensor([timestep], dtype=torch.float32), pooled)
            norm = transformer.transformer_blocks[0].norm1
            chunks = norm.linear(norm.silu(temb)).chunk(6, dim=1)
            for number, (name, gate) in enumerate(
                [("shift", "attn"), ("scale", "attn"), ("alpha", "attn"), ("shift", "mlp"), ("scale", "mlp"), ("alpha", "mlp")]
            ):
                stored = tiny_run.gates[name].sel(prompt=0, step=step, block=0, stream="image", gate=gate)
                assert np.allclose(stored, chunks[number][0].numpy(), rtol=1e-5, atol=1e-6)


def test_latents_of_every_step_end_in_the_last(tiny_run: interp.Run, tiny_model: interp.Model, tmp_path: Path) -> None:
    last = interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "last.zarr")
    every = tiny_run.images["latents"]
    assert every.dims == ("prompt", "step", "latent_channel", "latent_y", "latent_x")
    assert np.array_equal(every.isel(prompt=0, step=-1), last.images["latents"].isel(prompt=0))


def test_selection_keeps_the_named_part(tiny_model: interp.Model, tiny_run: interp.Run, tmp_path: Path) -> None:
    select = interp.Select(blocks="0,-1", steps=(1, 3), streams="image", tokens=(0, 9, 63), channels="4-7")
    run = interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "part.zarr", record=interp.Record(hidden=select))
    kept = run.hidden["image"]["hidden"]
    whole = tiny_run.hidden["image"]["hidden"].sel(prompt=[0])
    expected = whole.sel(step=[1, 3], block=[0, 3], token=[0, 9, 63], channel=[4, 5, 6, 7])
    assert np.array_equal(kept, expected)
    for axis in ("step", "block", "token", "channel", "token_y", "token_x", "timestep"):
        assert list(kept[axis].values) == list(expected[axis].values)
    assert list(run.hidden.children) == ["image"]


def test_every_prompt_and_repeat_has_a_seed_of_its_own(tiny_run: interp.Run) -> None:
    assert list(tiny_run.stats["seed"].values) == [stated_seed(0, repeat, text) for text in PROMPTS for repeat in range(2)]
    assert len(set(tiny_run.stats["seed"].values)) == 2 * len(PROMPTS)
    assert list(tiny_run.stats["prompt_text"].values) == [text for text in PROMPTS for _ in range(2)]
    first = tiny_run.images["image"].to_numpy()
    assert not np.array_equal(first[0], first[1])


def stated_seed(base: int, repeat: int, text: str) -> int:
    """The documented rule: the first four bytes, big-endian, of a SHA-256."""
    digest = hashlib.sha256(f"{base}/{repeat}/{' '.join(text.lower().split())}".encode()).digest()
    return int(digest[:4].hex(), 16)


def test_seeds_follow_their_rule(tiny_model: interp.Model) -> None:
    def seeds(prompts: list[str], **given: Any) -> list[int]:
        return [row.seed for row in prepare(tiny_model, prompts, steps=1, **given).plan.rows()]

    texts = ["a red cat", "two dog", ""]
    own = seeds(texts, repeats=3, seed=5)
    assert own == [stated_seed(5, repeat, text) for text in texts for repeat in range(3)]
    assert len(set(own)) == 9
    assert not set(own) & set(seeds(texts, repeats=3, seed=6))
    assert seeds(["two dog", "a red cat"]) == [stated_seed(0, 0, "two dog"), stated_seed(0, 0, "a red cat")], "in any order"
    # case and spaces make no other prompt: the count of repeats goes on
    assert seeds(["A red  cat", "a Red cat"]) == [stated_seed(0, repeat, "a red cat") for repeat in range(2)]
    assert seeds(texts, repeats=2, seed=5, seeds="shared") == [5, 6] * 3
    assert seeds(["two dog", "two dog"], seeds="shared") == [0, 1]
    assert seeds(texts, seeds=[3]) == [3] * 3
    assert seeds(texts, seeds="0-2") == seeds(texts, seeds=[0, 1, 2]) == [0, 1, 2] * 3
    for given, words in (
        ({"seeds": []}, ("seeds", "own", "shared")),
        ({"seeds": [1, 1]}, ("seeds", "different", "[1, 1]")),
        ({"seeds": [-1]}, ("seeds", "-1", 0)),
        ({"seeds": [0, 1], "repeats": 3}, ("repeats", "seeds", 2, 3)),
    ):
        with refused(interp.InputError, *words):
            seeds(texts, **given)
    with refused(interp.InputError, "seeds", "two dog", "once"):
        seeds(["two dog", "two dog"], seeds=[3])


def test_unknown_seeds_name_the_known_ones(tiny_model: interp.Model) -> None:
    with refused(interp.InputError, "seeds", "own", "shared", "each"):
        prepare(tiny_model, PROMPTS, steps=1, seeds="each")


class ScaleAlpha:
    """A user's own intervention: image alpha of one block times a factor, at one step."""

    def __init__(self, block: int, step: int, factor: float) -> None:
        self.block, self.step, self.factor = block, step, factor

    def touches(self, site: interp.Site, step: int) -> bool:
        return step == self.step and (site.block, site.stream, site.kind, site.gate) == (self.block, "image", "alpha", "mlp")

    def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
        return value * self.factor

    def to_json(self) -> dict[str, Any]:
        return {"edit": "scale-alpha", "block": self.block, "step": self.step, "factor": self.factor}


class ZeroChannels:
    """Another: zero two channels of a block's image output, at every step."""

    def touches(self, site: interp.Site, step: int) -> bool:
        return (site.block, site.stream, site.kind) == (1, "image", "hidden")

    def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[..., [3, 8]] = 0
        return value

    def to_json(self) -> dict[str, Any]:
        return {"edit": "zero", "block": 1, "channels": [3, 8]}


def test_edited_alpha_moves_the_picture_and_is_what_is_recorded(
    tiny_model: interp.Model, tiny_run: interp.Run, tmp_path: Path
) -> None:
    run = interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "edited.zarr", interventions=[ScaleAlpha(2, 1, 5.0)])
    place = {"prompt": 0, "block": 2, "stream": "image", "gate": "mlp"}
    before, after = (r.gates["alpha"].sel(place) for r in (tiny_run, run))
    assert np.array_equal(after.sel(step=1), before.sel(step=1) * np.float32(5.0))
    assert np.array_equal(after.sel(step=0), before.sel(step=0))
    assert not np.array_equal(run.images["image"][0], tiny_run.images["image"][0])
    assert run.plan["interventions"] == [{"edit": "scale-alpha", "block": 2, "step": 1, "factor": 5.0}]


def test_edited_hidden_equals_a_hand_written_hook(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(tiny_model, PROMPTS[:2], out=tmp_path / "edited.zarr", interventions=[ZeroChannels()], batch_size=2)

    def zero(module: Any, args: Any, output: Any) -> Any:
        text, image = output
        image = image.clone()
        image[..., [3, 8]] = 0
        return text, image

    handle = tiny_model.pipe.transformer.transformer_blocks[1].register_forward_hook(zero)
    try:
        pictures, latents = drawn_plain(tiny_model.pipe, run.images)
    finally:
        handle.remove()
    assert np.array_equal(run.images["image"], pictures)
    assert np.array_equal(run.images["latents"], latents)
    assert (run.stats["max_abs"].sel(block=1, stream="image", channel=[3, 8]) == 0).all()


def test_a_row_that_is_not_finite_is_stopped_and_named(tiny_model: interp.Model, tmp_path: Path) -> None:
    class Poison(ZeroChannels):
        def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            if step == 2:
                value[1, 5, 3] = float("nan")  # the second row of the batch alone
            return value

    out = tmp_path / "poisoned.zarr"
    with refused(interp.TraceError, "block.1/image/hidden", "step 2", "prompt 1", "two dog"):
        interp.trace(tiny_model, PROMPTS[:3], out=out, interventions=[Poison()], batch_size=3)
    run = interp.open_run(out)
    assert run.prompts == [PROMPTS[0], PROMPTS[2]]
    assert np.isfinite(run.stats["mean"].sel(stream="image")).all()


def test_a_scheduler_that_draws_its_own_noise_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder)
    model.pipe.scheduler.register_to_config(stochastic_sampling=True)
    with refused(interp.InputError, "noise", "seed"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr")
    assert "step" not in model.pipe.scheduler.__dict__


def test_a_compiled_transformer_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder)
    model.pipe.transformer.transformer_blocks[0].compile(backend="eager")
    with refused(interp.ModelError, "compiled"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr")


def test_a_changed_scheduler_is_noticed(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the object and in its class, as what was prepared has changed; hidden from that, when the run comes to a step."""
    model = interp.load(tiny_folder)
    kind = type(model.pipe.scheduler)
    original = kind.set_timesteps

    def other(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.timesteps = self.timesteps * 0.5

    from interp.runs.run import execute
    from interp.tracing.prepare import Prepared, prepare

    prepared = prepare(model, PROMPTS[:1])
    model.pipe.scheduler.set_timesteps = lambda *args, **kwargs: other(model.pipe.scheduler, *args, **kwargs)
    with refused(interp.InputError, "scheduler", "prepared"):
        execute(prepared, tmp_path / "run.zarr")
    del model.pipe.scheduler.set_timesteps
    monkeypatch.setattr(kind, "set_timesteps", other)
    with refused(interp.InputError, "scheduler", "prepared"):
        execute(prepared, tmp_path / "run.zarr")
    monkeypatch.setattr(Prepared, "check_unchanged", lambda self: None)
    with refused(interp.TraceError, "timestep", "step 0"):
        execute(prepared, tmp_path / "run.zarr")


def test_guidance_left_on_is_noticed(tiny_folder: Path, tmp_path: Path) -> None:
    """A doubled batch must not be recorded as if it were the prompts."""
    model = interp.load(tiny_folder)

    class Guided(type(model.pipe)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **{**kwargs, "guidance_scale": 2.0})

    model.pipe.__class__ = Guided
    with refused(interp.TraceError, "call 0", 2, 1, "rows"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr")


def test_two_calls_a_step_are_noticed(tiny_folder: Path, tmp_path: Path) -> None:
    """Guidance by separate calls (as in Flux) must not be recorded as if each were a step."""
    model = interp.load(tiny_folder)
    kind = type(model.pipe.transformer)

    def call_twice(self: Any, *args: Any, **kwargs: Any) -> Any:
        kind.__call__(self, *args, **kwargs)
        return kind.__call__(self, *args, **kwargs)

    model.pipe.transformer.__class__ = type(kind.__name__, (kind,), {"__call__": call_twice})
    with refused(interp.TraceError, "step 0", "call 1", "transformer"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr")


def test_the_pipeline_works_as_ever_after_a_trace(tiny_model: interp.Model, tiny_run: interp.Run) -> None:
    with hooked(tiny_model.pipe.transformer, FAMILIES["sd3"].hooks) as seen:
        pictures, _ = drawn_plain(tiny_model.pipe, tiny_run.images.isel(prompt=[0]))
    assert np.array_equal(pictures, tiny_run.images["image"][:1])
    assert seen.states("image", 0).shape[:2] == (1, 4)


@pytest.mark.parametrize(
    ("name", "offload"),
    [
        *[("tiny_model", "group"), ("flux_model", "model"), ("dit_model", "model"), ("dit_model", "group")],
        *full(("tiny_model", "model"), ("flux_model", "group"), ("dual_model", "model"), ("dual_model", "group")),
    ],
)
def test_offloaded_equals_plain(name: str, offload: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source, prompts = request.getfixturevalue(name), prompts_for(name)[:2]
    plain = interp.trace(source, prompts, out=tmp_path / "plain.zarr", batch_size=2, steps=2)
    if (name, offload) == ("dit_model", "group"):  # diffusers has no group offloading for DiT, and says so
        with refused(interp.InputError, "offload", "group", "cpu", "DiTTransformer2DModel"):
            interp.load(source.name, offload=offload, device="cpu")
        return
    model = interp.load(source.name, offload=offload, device="cpu")
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", batch_size=2, steps=2)
    assert np.array_equal(run.images["image"], plain.images["image"])
    assert np.array_equal(run.stats["var"], plain.stats["var"], equal_nan=True)
    assert np.array_equal(run.gates["alpha"], plain.gates["alpha"], equal_nan=True)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_bfloat16_states_are_kept_exactly(dtype: Any, tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder, dtype=dtype)
    run = interp.trace(model, PROMPTS[:2], out=tmp_path / "run.zarr", record=interp.Record(hidden=True), batch_size=2)
    with hooked(model.pipe.transformer, FAMILIES["sd3"].hooks) as seen:
        pictures, _ = drawn_plain(model.pipe, run.images)
    assert np.array_equal(run.images["image"], pictures)
    assert np.array_equal(run.hidden["image"]["hidden"].sel(block=2), seen.states("image", 2))
    assert np.array_equal(run.gates["alpha"].sel(block=1, stream="text", gate="mlp"), seen.gates("text", "mlp", 1))
    mean = run.stats["mean"].sel(block=2, stream="image")
    assert np.allclose(mean, seen.states("image", 2).mean(-2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [20, *full(28)])
def test_timesteps_that_are_rounded_twice_are_known_again(steps: int, flux_model: interp.Model, tmp_path: Path) -> None:
    """Flux in half precision: t is rounded, and t / 1000 again."""
    model = interp.load(flux_model.name, dtype="bfloat16")
    run = interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=steps)
    assert run.rows_done == 1


def test_learned_sigma_is_stored_apart_from_epsilon(dit_model: interp.Model, tmp_path: Path) -> None:
    prompts = prompts_for("dit_model")[:1]
    run = interp.trace(dit_model, prompts, out=tmp_path / "run.zarr", steps=2, record=interp.Record(prediction=True))
    for name in ("predicted_epsilon", "predicted_sigma"):
        assert run.images[name].dims == ("prompt", "step", "latent_channel", "latent_y", "latent_x")
        assert run.images[name].sizes["latent_channel"] == 4


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[("tiny", "float16"), ("flux", "bfloat16"), ("dit", "float16")],
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in (("tiny", "bfloat16"), ("flux", "float16"), ("dit", "bfloat16"))
        ),
    ],
)
def test_half_precision_is_traced_bit_for_bit(name: str, dtype: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(f"{name}_model")
    model, prompts = interp.load(source.name, dtype=dtype), prompts_for(f"{name}_model")[:2]
    run = interp.trace(model, prompts, out=tmp_path / "run.zarr", batch_size=2, steps=2)
    np.testing.assert_array_equal(run.images["image"], untraced(model, prepare(model, prompts, steps=2)))
    assert all(check.passed for check in check_anatomy(model, prompts))
