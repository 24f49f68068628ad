"""What must not pass in silence: other weights, other schedules, caches, states that are not finite, selections of nothing."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, PROMPTS
from messages import refused, warned

import interp
from interp.base.same_plan import check_same
from interp.models.identity import SAMPLE, fingerprint
from interp.store.summary import write_summary


@pytest.fixture(scope="module")
def small(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A finished run of few files; tests that change the store copy it."""
    record = interp.Record(hidden=interp.Select(blocks=(1,)))
    return interp.trace(tiny_model, PROMPTS[:3], out=tmp_path_factory.mktemp("small") / "r.zarr", steps=2, record=record)


def half_done(model: interp.Model, path: Path, **more: Any) -> Path:
    """A store of two rows whose second is not done."""
    import zarr

    interp.trace(model, PROMPTS[:2], out=path, **{"steps": 2, **more})
    zarr.open_group(str(path), mode="r+")["done"][1] = 0
    return path


def test_other_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """An edit in place, anywhere in a part, changes the fingerprint; the same folder under another name does not."""
    model = interp.load(tiny_folder)
    store = half_done(model, tmp_path / "run.zarr")
    for change in ("transformer.transformer_blocks.3.ff.net.2.weight", "text_encoder_3.shared.weight"):
        part, _, name = change.partition(".")
        weight = getattr(model.pipe, part).get_parameter(name)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1.5)
        with refused(interp.PlanError, "weights", store):
            interp.trace(model, PROMPTS[:2], out=store, steps=2)
        with torch.no_grad():
            weight.copy_(kept)
    moved = shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    assert interp.trace(moved, PROMPTS[:2], out=store, steps=2).rows_done == 2


def test_wrapped_pipelines_differ_by_their_weights(tiny_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    one, other = (interp.load(folder).pipe for folder in (tiny_folder, dual_folder))
    settings = {"max_sequence_length": 8}
    interp.trace(interp.wrap(one), PROMPTS[:1], out=tmp_path / "run.zarr", steps=1, settings=settings)
    with refused(interp.PlanError, "weights", tmp_path / "run.zarr"):
        interp.trace(interp.wrap(other), PROMPTS[:1], out=tmp_path / "run.zarr", steps=1, settings=settings)


def test_a_store_is_resumed_by_its_own_plan_alone(tiny_run: interp.Run) -> None:
    """Another value in any field is refused, but for the model's name, and the weights' former hash where theirs agrees."""
    plan = dict(tiny_run.plan)
    assert {"prompts", "seed", "steps", "settings", "height", "weights", "scheduler", "record", "interventions"} <= set(plan)
    check_same(plan, plan, "run.zarr")
    check_same({**plan, "sampled": "another"}, plan, "run.zarr")
    for field in set(plan) - {"model", "sampled"}:
        with refused(interp.PlanError, "run.zarr", field):
            check_same({**plan, field: "another"}, plan, "run.zarr")


@pytest.mark.parametrize("part", range(4))
def test_weights_differ_wherever_they_were_changed(part: int, tiny_model: interp.Model) -> None:
    """A quarter of a matrix of more values than the fingerprint samples."""
    weight = tiny_model.pipe.transformer.transformer_blocks[1].ff.net[0].proj.weight
    quarter = slice(part * len(weight) // 4, (part + 1) * len(weight) // 4)
    before = fingerprint(tiny_model.pipe)
    kept = weight.detach().clone()
    assert kept.numel() > 2 * SAMPLE
    with torch.no_grad():
        weight[quarter] *= 1.5
        changed = fingerprint(tiny_model.pipe)
        weight.copy_(kept)
    assert changed != before
    assert fingerprint(tiny_model.pipe) == before


def test_another_scheduler_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = interp.load(tiny_folder)
    store = half_done(model, tmp_path / "run.zarr")
    model.pipe.scheduler = type(model.pipe.scheduler)(shift=9.0)
    with refused(interp.PlanError, "scheduler", store):
        interp.trace(model, PROMPTS[:2], out=store, steps=2)


def test_a_cache_or_a_compiled_forward_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast

    model = interp.load(tiny_folder)
    config = PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500)
    apply_pyramid_attention_broadcast(model.pipe.transformer, config)
    with refused(interp.ModelError, "pyramid_attention_broadcast"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr")
    other = interp.load(tiny_folder)
    block = other.pipe.transformer.transformer_blocks[1]
    block.forward = torch.compile(block.forward, backend="eager")
    with refused(interp.ModelError, "compiled"):
        interp.trace(other, PROMPTS[:1], out=tmp_path / "run.zarr")


class Poison:
    """NaN in every row of a block's output from a step on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def touches(self, site: interp.Site, step: int) -> bool:
        return step == self.step and (site.block, site.stream, site.kind) == (2, "image", "hidden")

    def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
        return value * float("nan")

    def to_json(self) -> dict[str, Any]:
        return {"poison": self.step, "places": (1, np.int64(2))}  # a tuple and a numpy number must read back


def test_of_a_batch_whose_every_row_fails_nothing_is_kept(tiny_model: interp.Model, tmp_path: Path) -> None:
    with refused(interp.TraceError, "2 of 2 rows", "NaN", "step 1"):
        interp.trace(tiny_model, PROMPTS[:2], out=tmp_path / "run.zarr", interventions=[Poison(1)])
    run = interp.open_run(tmp_path / "run.zarr")
    assert run.rows_done == 0
    assert np.isnan(run.summary["mean_abs"]).all()


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize(("part", "place"), [("transformer.proj_out", "latents"), ("vae.decoder", "VAE")])
def test_values_that_are_not_finite_after_the_blocks_are_found(
    part: str, place: str, everywhere: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    """All values, or one alone."""
    model = interp.load(tiny_folder)
    component, _, name = part.partition(".")
    module = getattr(model.pipe, component).get_submodule(name)

    def spoiled(m: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        where = torch.ones_like(output, dtype=torch.bool) if everywhere else torch.arange(output.numel()) == 7
        return output.masked_fill(where.reshape(output.shape), float("nan"))

    module.register_forward_hook(spoiled)
    with refused(interp.TraceError, place, "NaN", "1 of 1 rows"):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=1)
    assert interp.open_run(tmp_path / "run.zarr").rows_done == 0


class Harmless(Poison):
    """The same places, left as they are."""

    def apply(self, site: interp.Site, step: int, value: torch.Tensor) -> torch.Tensor:
        return value.clone()


def test_a_plan_with_tuples_and_numpy_numbers_is_continued(tiny_model: interp.Model, tmp_path: Path) -> None:
    store = half_done(tiny_model, tmp_path / "run.zarr", interventions=[Harmless(1)], steps=np.int64(2))
    run = interp.trace(tiny_model, PROMPTS[:2], out=store, interventions=[Harmless(1)], steps=2)
    assert run.rows_done == 2
    assert run.plan["interventions"] == [{"poison": 1, "places": [1, 2]}]


def test_an_edit_of_ones_own_that_touches_nothing_is_refused(tiny_model: interp.Model, tmp_path: Path) -> None:
    with refused(interp.InputError, "intervention", "Harmless"):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=1, interventions=[Harmless(99)])


def test_selections_of_nothing_are_an_error(tiny_model: interp.Model, dit_model: interp.Model, tmp_path: Path) -> None:
    for model, prompts, select, words in (
        (tiny_model, PROMPTS, interp.Select(blocks=-1, streams="text"), ("record.hidden", "text", 3, "blocks")),
        (dit_model, CLASSES, interp.Select(streams="text"), ("text",)),
    ):
        with refused(interp.InputError, *words):
            interp.trace(model, prompts, out=tmp_path / "run.zarr", record=interp.Record(hidden=select))
        assert not (tmp_path / "run.zarr").exists()
    channels = interp.Select(tokens=(0, 1), channels=np.argsort([3, 1, 2])[:2], blocks=np.int64(1))
    run = interp.trace(dit_model, CLASSES[:1], out=tmp_path / "run.zarr", record=interp.Record(hidden=channels))
    assert run.hidden["image"]["hidden"].shape == (1, 4, 1, 2, 2)


def test_a_callers_own_error_stays_its_own(tiny_model: interp.Model, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=1, on_progress=stop)


def test_prompts_in_tables_keep_their_quotes(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('Prompt\tCategory\n"G I G G L E" painted on a wall\tWords\n5" nails\tThings\n')
    assert interp.read_prompts(path) == ['"G I G G L E" painted on a wall', '5" nails']


def test_a_summary_is_whole_or_absent(small: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import xarray as xr
    import zarr

    store = Path(shutil.copytree(small.path, tmp_path / "copy.zarr"))
    zarr.open_group(str(store), mode="r+")["done"][0] = 0
    real = xr.Dataset.to_zarr

    def killed(self: xr.Dataset, target: Any, **more: Any) -> Any:
        more.pop("encoding", None)
        real(self[["mean"]], target, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", killed)
        with pytest.raises(KeyboardInterrupt):
            write_summary(store)
    run = interp.open_run(store)
    assert run.summary.attrs["rows"] == 2
    assert set(run.summary.data_vars) == set(small.summary.data_vars)
    write_summary(store)
    assert interp.open_run(store).summary.equals(run.summarise())


@pytest.mark.parametrize("lost", ["stats/image", "stats/image/var", "outputs", "hidden"])
def test_a_store_without_what_its_plan_asks_for_is_damaged(lost: str, small: interp.Run, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small.path, tmp_path / "copy.zarr"))
    shutil.rmtree(store / lost)
    with refused(interp.StoreError, store, lost):
        interp.open_run(store)


def test_broken_metadata_of_a_group_is_a_store_error(small: interp.Run, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small.path, tmp_path / "copy.zarr"))
    (store / "stats" / "image" / "mean" / "zarr.json").write_text("{")
    with refused(interp.StoreError, store, "stats"):
        _ = interp.open_run(store).stats


def test_a_link_to_a_store_is_the_same_store(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.store.create import writing_lock

    (tmp_path / "link.zarr").symlink_to(tmp_path / "run.zarr")
    interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=1)
    second = writing_lock(tmp_path / "link.zarr")
    with writing_lock(tmp_path / "run.zarr"), refused(interp.StoreError, "process", "--out"), second:
        pass


def test_tracing_leaves_warning_filters_alone(tiny_model: interp.Model, tmp_path: Path) -> None:
    before = list(warnings.filters)
    interp.trace(tiny_model, PROMPTS[:2], out=tmp_path / "run.zarr", steps=1, record=interp.Record(hidden=True))
    assert warnings.filters == before


def test_prompts_that_are_cut_warn(tiny_model: interp.Model, tmp_path: Path) -> None:
    long = "a red cat and two dog on the blue square of the green circle"
    with warned(interp.InterpWarning, "1 prompts", "tokenizer_3", "8 tokens", long):
        interp.trace(tiny_model, ["a cat", long], out=tmp_path / "run.zarr", steps=1)
