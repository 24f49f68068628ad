"""Massive channels: every criterion against its definition, the consensus, intervals, and what must not change an answer."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from messages import names, refused
from planted_data import noise, statistics
from scipy import stats

import interp
from interp.analysis import criteria, intervals

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
    assert (found["runner_up"] < 3.5).all()
    here = found.sel(stream="image", channel=7).isel(block=slice(1, None))
    assert (here["score_low"] <= here["score"]).all()
    assert (here["score"] <= here["score_high"]).all()
    assert found.attrs["criterion"] == "robust(z=3.5, least=5)"


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
        for name in stored.data_vars:
            np.testing.assert_allclose(again[name], stored[name], rtol=1e-6, atol=0)


def test_rows_of_one_text_are_one_sample() -> None:
    values = noise((4, 2, 1, 10))
    data = statistics(values, texts=["a", "a", "a", "b"], seeds=[0, 1, 2, 0])
    found = interp.massive.find(data, "ratio").sel(stream="image", block=0)
    size = (values[:3].mean(axis=(0, 1, 2)) + values[3].mean(axis=(0, 1))) / 2
    np.testing.assert_allclose(found["size"], size, rtol=1e-5)
    assert "2 prompt texts" in found.attrs["interval"]


def test_one_prompt_has_no_interval() -> None:
    found = interp.massive.find(planted().isel(prompt=[0]))
    assert found["score_low"].isnull().all()
    assert not names(found.attrs["interval"], "none", "prompt")
    assert found["consensus"].sel(channel=7).all()


def test_the_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, (400, 2))
    low, high = intervals.bootstrap(values, resamples=4000)
    half = 1.96 * values.std(axis=0) / 20
    np.testing.assert_allclose(low, values.mean(axis=0) - half, atol=0.02)
    np.testing.assert_allclose(high, values.mean(axis=0) + half, atol=0.02)
    again = intervals.bootstrap(values, resamples=4000)
    np.testing.assert_array_equal(again[0], low)


def test_the_jackknife_covers_shares_and_correlations() -> None:
    """Shares of variance and correlations of normal samples: 95% intervals hold the truth about 95% of the time."""
    draw = np.random.default_rng(1)
    hits = []
    for _ in range(300):
        x = draw.normal(size=(24, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])  # correlation 0.6
        moments = np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1]], axis=1)
        low, high = intervals.jackknife(moments, _correlation, scale="correlation")
        hits.append(bool(low <= 0.6 <= high))
    assert 0.91 <= np.mean(hits) <= 0.985


def _correlation(m: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    cov = m[:, 4] - m[:, 0] * m[:, 1]
    return np.asarray(cov / np.sqrt((m[:, 2] - m[:, 0] ** 2) * (m[:, 3] - m[:, 1] ** 2)))


def test_consensus_counts_from_the_first_block() -> None:
    selected = np.zeros((1, 4, 3), bool)
    selected[0, 3, 0] = True  # only the last block: all of those from its first on
    selected[0, 0, 1] = True  # one of four
    agreed, birth = interp.massive.agree(selected, 0.5)
    assert agreed.tolist() == [[True, False, False]]
    assert birth.tolist() == [[3, -1, -1]]


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
