"""Which tokens of the text stream count in statistics: a prompt's own, and padding only where it is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from bad_inputs import run as command
from conftest import full
from messages import refused

import interp
from interp.base.same_plan import check_same
from interp.store.schema import Array
from interp.store.verification import verify
from interp.testing.reference import statistics

TEXTS = ["a red cat", "a photo of a dog", ""]
LONG = " ".join(["a red cat and the blue dog"] * 4)
STATISTICS = ("mean", "mean_abs", "max_abs", "min_abs", "var")


def first(count: int, length: int) -> Array:
    return np.arange(length) < count


def in_tokenizer(tokenizer: Any, text: str, length: int) -> Array:
    """A tokenizer's own mask of a padded text."""
    given = tokenizer(text, padding="max_length", truncation=True, max_length=length)
    mask = np.array(given.attention_mask, bool)
    np.testing.assert_array_equal(mask, first(int(mask.sum()), length))
    return mask


def own_of(model: interp.Model, text: str) -> Array:
    """The text stream's own tokens, from the family's tokenizers."""
    pipe, length = model.pipe, model.settings().get("max_sequence_length")
    if model.anatomy.family == "qwenimage":  # alone, a text is not padded
        with torch.no_grad():
            states, _ = pipe.encode_prompt([text], max_sequence_length=length)
        return first(states.shape[1], length)
    if model.anatomy.family == "flux2":
        chat = {"add_generation_prompt": True, "enable_thinking": False, "tokenize": False}
        said = pipe.tokenizer.apply_chat_template([{"role": "user", "content": text}], **chat)
        return first(min(len(pipe.tokenizer(said).input_ids), length), length)
    if model.anatomy.family == "hidream":
        limits = [min(length, one.model_max_length) for one in (pipe.tokenizer_3, pipe.tokenizer_4)]
        return np.concatenate(
            [in_tokenizer(pipe.tokenizer_3, text, limits[0]), in_tokenizer(pipe.tokenizer_4, text, limits[1])]
        )
    if model.anatomy.family == "hunyuanimage":
        with torch.no_grad():
            _, own, _, glyphs = pipe.encode_prompt([text], batch_size=1)
        return first(int(own.sum() + glyphs.sum()), own.shape[1] + glyphs.shape[1])
    if model.anatomy.family == "flux":
        return in_tokenizer(pipe.tokenizer_2, text, length)
    clip = in_tokenizer(pipe.tokenizer, text, pipe.tokenizer.model_max_length)
    return np.concatenate([clip, in_tokenizer(pipe.tokenizer_3, text, length)])


@pytest.mark.parametrize(
    "name",
    ["tiny_model", "flux_model", "qwenimage_model", *full("dual_model", "flux2_model", "hidream_model", "hunyuanimage_model")],
)
def test_statistics_are_over_a_prompts_own_tokens(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Plain reductions of each row's states, of prompts of unlike length in one batch."""
    model = request.getfixturevalue(name)
    record = interp.Record(hidden=True, branches=True)
    run = interp.trace(model, TEXTS, out=tmp_path / "run.zarr", steps=2, batch_size=3, record=record)
    masks = [own_of(model, text) for text in TEXTS]
    counts = [int(mask.sum()) for mask in masks]
    assert len(set(counts)) == 3
    assert max(counts) < len(masks[0])
    assert run.stats["text_tokens"].to_numpy().tolist() == counts
    hidden, present = run.hidden["text"]["hidden"], run.stats["present"].sel(stream="text").to_numpy()
    assert hidden.sizes["token"] == len(masks[0])
    for row, mask in enumerate(masks):
        for step in range(2):
            here = run.stats.isel(prompt=row, step=step).sel(stream="text")
            states = hidden.isel(prompt=row, step=step, token=np.flatnonzero(mask)).to_numpy()
            expected = statistics(states)
            for statistic in STATISTICS:
                found = here[statistic].to_numpy()[present]
                np.testing.assert_allclose(found, expected[statistic], rtol=1e-4, atol=1e-6, err_msg=statistic)
            flat = np.sort(np.abs(states).reshape(len(states), -1), axis=1)
            np.testing.assert_array_equal(here["median_abs"].to_numpy()[present], flat[:, (flat.shape[1] - 1) // 2])
    image = run.hidden["image"]["hidden"]
    for statistic, values in statistics(image.to_numpy()).items():
        if statistic in STATISTICS:
            np.testing.assert_allclose(run.stats[statistic].sel(stream="image"), values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny_model", "flux_model", "qwenimage_model"])
def test_branches_are_over_the_same_tokens(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """alpha is one for all tokens: what the branches add to the mean state is the mean of what they add."""
    model = request.getfixturevalue(name)
    run = interp.trace(model, TEXTS, out=tmp_path / "run.zarr", steps=2, batch_size=3, record=interp.Record(branches=True))
    branch, alpha = (
        data.sel(stream="text").transpose("gate", "block", ...) for data in (run.branches["branch"], run.gates["alpha"])
    )
    added = (branch * alpha.sel(gate=branch["gate"])).to_numpy()
    added = np.nansum(added, axis=0)  # (block, prompt, step, channel)
    mean = run.stats["mean"].sel(stream="text").transpose("block", ...).to_numpy()
    told = np.isfinite(mean).all(axis=(1, 2, 3))
    before = np.concatenate([run.branches["embedding"].sel(stream="text").to_numpy()[None], mean[:-1]])
    np.testing.assert_allclose((before + added)[told], mean[told], rtol=1e-4, atol=1e-4)


def test_a_text_that_fills_its_tokens_has_no_padding(qwenimage_model: interp.Model, tmp_path: Path) -> None:
    with pytest.warns(interp.InterpWarning, match="cut"):
        run = interp.trace(qwenimage_model, [LONG], out=tmp_path / "run.zarr", steps=1, record=interp.Record(hidden=True))
    states = run.hidden["text"]["hidden"].to_numpy()
    assert run.stats["text_tokens"].to_numpy().tolist() == [states.shape[3]]
    np.testing.assert_allclose(run.stats["mean"].sel(stream="text"), states.mean(axis=3), rtol=1e-4, atol=1e-6)


def test_a_row_is_the_same_in_any_batch(tiny_model: interp.Model, tmp_path: Path) -> None:
    one, three = (interp.trace(tiny_model, TEXTS, out=tmp_path / f"{n}.zarr", steps=1, batch_size=n) for n in (1, 3))
    for statistic in STATISTICS:
        np.testing.assert_allclose(one.stats[statistic], three.stats[statistic], rtol=1e-4, atol=1e-6)


def test_padding_counts_where_it_is_asked_for(tiny_model: interp.Model, tmp_path: Path) -> None:
    record = interp.Record(hidden=True, padding=True)
    run = interp.trace(tiny_model, TEXTS, out=tmp_path / "run.zarr", steps=2, batch_size=3, record=record)
    assert "text_tokens" not in run.stats.coords
    states = run.hidden["text"]["hidden"].to_numpy()
    found = run.stats["mean_abs"].sel(stream="text", block=[0, 1, 2])
    np.testing.assert_allclose(found, np.abs(states).mean(axis=3), rtol=1e-4, atol=1e-6)
    assert interp.massive.find(run).attrs["text_tokens"] == "all"


def test_a_result_says_how_many_tokens_counted(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(tiny_model, TEXTS, out=tmp_path / "run.zarr", steps=1)
    counts = [int(own_of(tiny_model, text).sum()) for text in TEXTS]
    assert interp.massive.find(run).attrs["text_tokens"] == f"{min(counts)} to {max(counts)}"


# stores of earlier versions


@pytest.fixture(scope="module")
def older(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as earlier versions made it: seeds from SEED up for every prompt, and padding in all statistics."""
    out = tmp_path_factory.mktemp("older") / "run.zarr"
    given: dict[str, Any] = {"steps": 1, "seed": 5, "repeats": 2, "seeds": "shared"}
    interp.trace(tiny_model, TEXTS, out=out, record=interp.Record(padding=True), **given)
    return out


def test_an_older_plan_reads_as_shared_seeds_with_padding(older: Path) -> None:
    run = interp.open_run(older)
    assert "seeds" not in run.plan
    assert "padding" not in run.plan["record"]
    assert "partners" not in run.plan
    assert run.stats["seed"].to_numpy().tolist() == [5, 6] * 3
    assert interp.Record.from_json(run.plan["record"]) == interp.Record(padding=True)
    assert verify(older) == []
    assert interp.massive.find(run).attrs["text_tokens"] == "all"
    plain = interp.Record()
    assert json.loads(json.dumps(plain.to_json()))["padding"] is False
    assert interp.Record.from_json(plain.to_json()) == plain


def test_an_older_store_is_continued_by_its_own_terms_alone(tiny_model: interp.Model, older: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(older, tmp_path / "run.zarr"))
    stored = interp.open_run(out)
    before = {name: stored.stats[name].to_numpy() for name in ("mean", "mean_abs")}
    zarr.open_group(str(out), mode="r+")["done"][2:4] = 0
    terms: dict[str, Any] = {"steps": 1, "seed": 5, "repeats": 2, "seeds": "shared"}
    with refused(interp.PlanError, "seeds", "own"):
        interp.trace(tiny_model, TEXTS, out=out, record=interp.Record(padding=True), **{**terms, "seeds": "own"})
    with refused(interp.PlanError, "padding"):
        interp.trace(tiny_model, TEXTS, out=out, **terms)
    again = interp.trace(tiny_model, TEXTS, out=out, record=interp.Record(padding=True), **terms)
    assert again.rows_done == 6
    for name, values in before.items():
        np.testing.assert_allclose(again.stats[name], values, rtol=1e-5, atol=1e-6)
    check_same(again.plan, interp.open_run(older).plan, "the older store")


def test_an_older_store_is_repaired_by_its_own_terms(older: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(older, tmp_path / "run.zarr"))
    whole = interp.open_run(older).stats["mean_abs"].to_numpy()
    for path in (out / "stats" / "image" / "mean_abs" / "c" / "3").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    assert [fault.row for fault in verify(out)] == [3]
    code, _, err = command(["verify", str(out), "--repair"])
    assert code == 0, err
    np.testing.assert_allclose(interp.open_run(out).stats["mean_abs"], whole, rtol=1e-5, atol=1e-6)
    assert interp.open_run(out).stats["seed"].to_numpy().tolist() == [5, 6] * 3
    assert verify(out) == []
