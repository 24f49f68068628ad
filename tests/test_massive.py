"""Massive channels: every criterion against its definition, the consensus, intervals, and what must not change an answer."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from messages import names, refused
from planted_data import noise, statistics
from scipy import stats

import interp
from interp.analysis import criteria

SHAPE = (6, 3, 4, 40)  # prompt, step, block, channel


def planted(channel: int = 7, block: int = 1, size: float = 20.0) -> xr.Dataset:
    values = noise(SHAPE)
    values[:, :, block:, channel] = size
    return statistics(values)


def test_the_planted_channel_its_birth_and_nothing_else_is_found() -> None:
    found = interp.massive.find(planted())
    assert found["channel"].to_numpy()[found["consensus"].sel(stream="image")].tolist() == [7]
    assert int(found["birth"].sel(stream="image", channel=7)) == 1
    assert not found["selected"].sel(stream="image", block=0).any()
    assert float(found["frequency"].sel(stream="image", block=2, channel=7)) == 1.0
    assert (found["runner_up"] < found.attrs["threshold"]).all()
    here = found.sel(stream="image", channel=7).isel(block=slice(1, None))
    assert (here["score_low"] <= here["score"]).all()
    assert (here["score"] <= here["score_high"]).all()
    assert found.attrs["criterion"] == "robust(rate=0.05)"


def test_the_default_is_the_modified_z_score_of_the_logarithm() -> None:
    size = planted()["mean_abs"].mean(("prompt", "step")).sel(stream="image", block=2).to_numpy().astype(np.float64)
    logs = np.log(size)
    expected = (logs - np.median(logs)) / stats.median_abs_deviation(logs, scale="normal")
    found = interp.massive.find(planted())["score"].sel(stream="image", block=2)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # 0.6745 is the normal's quartile, rounded


def test_ratio_and_top_follow_their_definitions() -> None:
    data = planted()
    size = data["mean_abs"].mean(("prompt", "step")).sel(stream="image").to_numpy()
    ratio = interp.massive.find(data, "ratio:15").sel(stream="image")
    np.testing.assert_allclose(ratio["score"], size / np.median(size, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(ratio["selected"], size >= 15 * np.median(size, axis=1, keepdims=True))
    top = interp.massive.find(data, "top:3").sel(stream="image")
    for block in range(4):
        assert set(np.flatnonzero(top["selected"][block])) == set(np.argsort(size[block])[-3:])


def test_the_two_readings_of_channel_mean_differ_on_a_channel_of_mixed_sign() -> None:
    size = noise(SHAPE)
    size[..., 3], size[..., 5] = 10.0, 8.0
    mean = size.copy()
    mean[..., 3] = 0.1  # large of both signs
    data = statistics(size)
    axes = ("prompt", "step", "block", "channel")
    data["mean"] = xr.DataArray(-mean, dims=axes).expand_dims(stream=["image"], axis=3)
    by_size, by_mean = (interp.massive.find(data, f"{name}:1").sel(stream="image") for name in ("top", "top_signed"))
    assert np.flatnonzero(by_size["selected"][2]).tolist() == [3]
    assert np.flatnonzero(by_mean["selected"][2]).tolist() == [5]


def test_sun_needs_both_a_hundred_and_a_thousand_medians() -> None:
    largest = np.full(SHAPE, 1.0)
    largest[..., 1], largest[..., 2], largest[..., 3] = 150.0, 90.0, 150.0
    largest[3:, ..., 3] = 1.0  # in half of the samples
    data = statistics(noise(SHAPE), max_abs=largest)
    data["median_abs"] = (("prompt", "step", "block", "stream"), np.full((*SHAPE[:3], 1), 0.14))
    found = interp.massive.find(data, "sun").sel(stream="image", block=0)
    assert np.flatnonzero(found["selected"]).tolist() == [1, 3]
    assert found["score"].to_numpy()[[1, 2, 3]].tolist() == [1.0, 0.0, 0.5]
    data["median_abs"] = data["median_abs"] * 1.1  # 150 is no longer a thousand medians
    assert not interp.massive.find(data, "sun")["selected"].any()
    with refused(interp.StoreError, "sun", "stats/median_abs"):
        interp.massive.find(data.drop_vars("median_abs"), "sun")


def test_energy_is_mean_square() -> None:
    draw = np.random.default_rng(0)
    states = draw.normal(size=(2, 1, 1, 50, 12)) * 10 ** draw.uniform(0, 1, 12)
    data = statistics(np.abs(states).mean(3), mean=states.mean(3), var=states.var(3))
    data = data.assign({n: data[n].squeeze("stream", drop=True).expand_dims(stream=["image"], axis=3) for n in ("mean", "var")})
    found = interp.massive.find(data, "energy:2").sel(stream="image", block=0)
    square = (states**2).mean(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(found["score"], square / square.mean(), rtol=1e-5)
    np.testing.assert_array_equal(found["selected"], square >= 2 * square.mean())


def test_two_sigma_counts_elements(tiny_run: interp.Run) -> None:
    found = interp.massive.find(tiny_run, "two_sigma").sel(stream="image", block=2)
    states = tiny_run.hidden["image"]["hidden"].sel(block=2).to_numpy().astype(np.float64)
    mean, deviation = (getattr(states, name)(axis=(2, 3), keepdims=True) for name in ("mean", "std"))
    share = (np.abs(states - mean) >= 2 * deviation).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found["score"], share, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best", ("criterion", "best", "robust", "top:12")),
        ("ratio:x", ("criterion", "ratio", "x", "ratio:10")),
        ("top:0", ("k", 0, "1..40")),
        ("top:99", ("k", 99, "1..40")),
    ],
)
def test_impossible_criteria_are_refused(text: str, words: tuple[object, ...]) -> None:
    with refused(interp.InputError, *words):
        interp.massive.find(planted(), text)


def test_every_criterion_names_its_source_and_parses() -> None:
    for name in criteria.CRITERIA:
        rule = criteria.parse(name)
        assert rule.name == name
        assert len(rule.source) > 10


def test_neither_chunks_nor_dask_nor_the_store_change_an_answer(tiny_run: interp.Run) -> None:
    stored = interp.massive.find(tiny_run, seed=3)
    for data in (tiny_run.stats.compute(), tiny_run.stats.chunk({"prompt": 3, "block": 1, "channel": 7})):
        again = interp.massive.find(data, seed=3)
        assert set(again.data_vars) == set(stored.data_vars)
        for name in stored.data_vars:
            if stored[name].dtype.kind in "OUT":
                np.testing.assert_array_equal(again[name], stored[name])
            else:
                np.testing.assert_allclose(again[name], stored[name], rtol=1e-6, atol=0)


def test_rows_of_one_text_are_one_sample() -> None:
    values = noise((4, 2, 1, 10))
    data = statistics(values, texts=["a", "a", "a", "b"], seeds=[0, 1, 2, 0])
    found = interp.massive.find(data, "ratio").sel(stream="image", block=0)
    size = (values[:3].mean(axis=(0, 1, 2)) + values[3].mean(axis=(0, 1))) / 2
    np.testing.assert_allclose(found["size"], size, rtol=1e-5)
    assert not names(found.attrs["interval"], "none", 4, "prompt texts")
    assert found["score_low"].isnull().all()
    many = statistics(noise((6, 2, 1, 10)), texts=["a", "A ", "a", "b", "c", "d"])
    found = interp.massive.find(many, "ratio")
    assert not names(found.attrs["interval"], "4 prompt texts"), "case and spaces make no other prompt"
    assert (found["score_low"] < found["score_high"]).all()


def test_one_prompt_has_no_interval() -> None:
    found = interp.massive.find(planted().isel(prompt=[0]))
    assert found["score_low"].isnull().all()
    assert not names(found.attrs["interval"], "none", "prompt")
    assert found["consensus"].sel(channel=7).all()


def test_consensus_counts_from_the_first_block() -> None:
    selected = np.zeros((1, 12, 6), bool)
    selected[0, 9:, 0] = True  # the last quarter: all of those from its first on
    selected[0, 10:, 1] = True  # less than a quarter of the blocks
    selected[0, [0, 3, 6], 2] = True  # three of twelve
    selected[0, [2, 5, 6, 8, 10], 3] = True  # five of ten, the half
    selected[0, [2, 5, 6, 8], 4] = True
    agreed, birth = interp.massive.agree(selected, 0.5)
    assert agreed.tolist() == [[True, False, False, True, False, False]]
    assert birth.tolist() == [[9, -1, -1, 2, -1, -1]]


def test_consensus_needs_two_blocks_of_those_that_there_are() -> None:
    selected = np.zeros((2, 4, 2), bool)
    selected[0, 3, 0] = True  # one block
    selected[0, 2:, 1] = True
    selected[1, 0] = True  # a stream of one block
    present = np.array([[True] * 4, [True, False, False, False]])
    agreed, birth = interp.massive.agree(selected, 0.5, present)
    assert agreed.tolist() == [[False, True], [True, True]]
    assert birth.tolist() == [[-1, 2], [0, 0]]


@pytest.mark.parametrize("channels", [64, 512, 6144])
def test_chance_alone_selects_at_the_stated_rate(channels: int) -> None:
    """Of lognormal sizes, at most 5% of the blocks have any channel selected; of half-normal ones too."""
    draw, rule = np.random.default_rng(0), criteria.parse("robust")
    assert rule.threshold(channels) > stats.norm.ppf(1 - 0.05 / channels)
    for sizes in (draw.lognormal(0.0, 0.5, (400, channels)), np.abs(draw.normal(size=(400, channels)))):
        assert rule.selects(sizes, rule.score(sizes)).any(axis=1).mean() <= 0.08
    strict = criteria.parse("robust:0.001")
    assert strict.threshold(channels) > rule.threshold(channels)


def test_a_channel_massive_in_a_few_tokens_is_told_apart() -> None:
    """Channel 3 is large in 2 of 64 tokens, 7 in all alike, 9 in all and hugely in one."""
    draw = np.random.default_rng(0)
    states = draw.normal(size=(5, 2, 4, 64, 40))
    states[..., :2, 3] = 600.0
    states[..., 7] = 25.0
    states[..., 9] = 25.0
    states[..., 0, 9] = 2000.0
    size, largest = np.abs(states).mean(axis=3), np.abs(states).max(axis=3)
    data = statistics(size, max_abs=largest, mean=states.mean(axis=3), var=states.var(axis=3))
    more = {
        name: data[name].squeeze("stream", drop=True).expand_dims(stream=["image"], axis=3)
        for name in ("max_abs", "mean", "var")
    }
    found = interp.massive.find(data.assign(more)).sel(stream="image")
    assert np.flatnonzero(found["consensus"]).tolist() == [7, 9]
    assert np.flatnonzero(found["massive_tokens"]).tolist() == [3]
    assert found["sparse"].sel(channel=3).all()
    assert not found["sparse"].sel(channel=[7, 9]).any()
    share = (size**2 / (states**2).mean(axis=3)).mean(axis=(0, 1))
    for channel in (3, 7, 9):
        np.testing.assert_allclose(found["tokens"].sel(channel=channel), share[:, channel], rtol=1e-5)
    np.testing.assert_allclose(found["tokens"].sel(channel=3), 2 / 64, rtol=0.1)
    np.testing.assert_allclose(found["tokens"].sel(channel=7), 1.0, rtol=1e-6)
    assert found["tokens"].where(~found["selected"]).isnull().all()
    assert int(found["birth"].sel(channel=3)) == -1


def test_the_steps_at_which_a_channel_is_massive_are_named() -> None:
    values = noise((5, 8, 4, 40))
    values[:, [0, 1, 2, 5], :, 7] = 40.0
    values[:, :, :, 9] = 40.0
    found = interp.massive.find(statistics(values)).sel(stream="image")
    assert found["steps"].sel(channel=[7, 9, 3]).to_numpy().tolist() == ["0-2, 5", "0-7", ""]
    assert found["selected_steps"].sel(channel=7).to_numpy().tolist() == [4] * 4
    assert found.attrs["step_count"] == 8
    part = interp.massive.find(statistics(values), steps="3-6").sel(stream="image")
    assert part["steps"].sel(channel=[7, 9]).to_numpy().tolist() == ["5", "3-6"]


def test_profile_and_every_token() -> None:
    values = noise(SHAPE)
    values[..., 7] = 20.0
    least = values * 0.1
    least[..., 7] = 12.0
    data = statistics(values)
    data["min_abs"] = data["mean_abs"] * 0 + xr.DataArray(least, dims=("prompt", "step", "block", "channel"))
    found = interp.massive.profile(data)
    size = values.mean(axis=(0, 1))
    np.testing.assert_allclose(found["size"].squeeze(), size[:, 7], rtol=1e-5)
    np.testing.assert_allclose(found["largest_other"], np.delete(size, 7, axis=1).max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["in_every_token"].squeeze(), 12.0 / np.median(size, axis=1), rtol=1e-4)


def test_absent_channels_and_empty_sets_are_clear_errors() -> None:
    with refused(interp.InputError, "channels", 40, "-40..39"):
        interp.massive.profile(planted(), [40])
    with refused(interp.InputError, "channels", "image", "robust", "--channels"):
        interp.massive.profile(statistics(noise(SHAPE)))
    with refused(interp.InputError, "stream", "text", "image"):
        interp.massive.profile(planted(), stream="text")
