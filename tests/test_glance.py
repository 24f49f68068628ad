"""What is computed from a summary alone equals what is computed from the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dashboard_stores import demo_run, without_rows
from messages import refused

import interp
from interp.analysis import attribution, glance, massive, segmentation, tokens
from interp.base.errors import InputError, StoreError


@pytest.fixture(scope="module")
def run(demo_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    return demo_run(demo_model, tmp_path_factory.mktemp("glance"))


@pytest.mark.parametrize("criterion", ["robust", "ratio:5", "top:3", "energy:5"])
def test_massive_channels_are_those_of_the_rows(criterion: str, run: interp.Run) -> None:
    summary, rows = glance.massive(run, criterion), massive.find(run, criterion, resamples=0)
    assert np.allclose(summary["score"], rows["score"], rtol=1e-4, atol=1e-3, equal_nan=True)
    assert (summary["selected"] == rows["selected"]).all()
    assert (summary["consensus"] == rows["consensus"]).all()
    assert summary.attrs["interval"] == glance.NO_INTERVAL


@pytest.mark.parametrize("criterion", ["sun", "top_signed", "two_sigma"])
def test_what_needs_the_rows_is_refused(criterion: str, run: interp.Run) -> None:
    with refused(InputError, criterion, "massive.find"):
        glance.massive(run, criterion)


def test_places_of_the_summary(run: interp.Run) -> None:
    sizes = run.stats["mean_abs"].sel(stream="image").mean("prompt", dtype=np.float64)
    assert np.allclose(glance.channels(run, block=3, step=2), sizes.sel(block=3, step=2), rtol=1e-5)
    assert np.allclose(glance.size(run, 29), sizes.sel(channel=29).transpose("step", "block"), rtol=1e-5)
    ratio = sizes.sel(channel=29) / sizes.median("channel")
    assert np.allclose(glance.ratio(run, 29), ratio.transpose("step", "block"), rtol=1e-5)
    alpha = run.gates["alpha"].sel(stream="image", channel=29).mean("prompt", dtype=np.float64)
    assert np.allclose(glance.alpha(run, 29), alpha.transpose("gate", "step", "block"), rtol=1e-5)
    both = glance.alpha_and_size(run, block=1)
    every = run.gates["alpha"].sel(stream="image", block=1).mean("prompt", dtype=np.float64)
    assert np.allclose(both["alpha"], abs(every).mean("step").transpose("gate", "channel"), rtol=1e-5)
    profile = glance.profile(run, [29, 3])
    assert np.allclose(profile["size"], massive.profile(run, [29, 3])["size"].transpose(*profile["size"].dims), rtol=1e-4)


def test_variance_is_the_law_of_total_variance(run: interp.Run) -> None:
    found = glance.variance(run, [3, 29])
    values = run.stats["mean_abs"].sel(stream="image", channel=[3, 29]).transpose("prompt", "step", "block", "channel")
    values = values.to_numpy().astype(np.float64)
    total = values.var(axis=(0, 1))
    along = values.mean(axis=0).var(axis=0)
    within = values.var(axis=0).mean(axis=0)
    assert np.allclose(along + within, total)
    assert np.allclose(found["timestep"], along / total, rtol=1e-3)
    assert np.allclose(found["timestep"] + found["rest"], 1)
    corrected = attribution.decompose(run, [3, 29])["share"].sel(term="timestep")
    bound = found["rest"] / run.rows_done + 0.02  # texts, not rows, are what the correction counts
    assert (abs(found["timestep"] - corrected) <= 2 * bound).all()


def test_the_summary_of_text_has_no_last_block(run: interp.Run) -> None:
    assert np.isnan(glance.ratio(run, 29, stream="text").sel(block=7)).all()


def test_errors_name_what_is_there(run: interp.Run, tmp_path: Path) -> None:
    with refused(InputError, "block", 99):
        glance.channels(run, block=99, step=0)
    with refused(InputError, "stream", "sound", "image", "text"):
        glance.ratio(run, 29, stream="sound")
    with refused(StoreError, "row"):
        glance.massive(interp.open_run(without_rows(run.path, tmp_path / "empty.zarr", range(8))))


def test_maps_over_tokens(run: interp.Run) -> None:
    states = run.hidden["image"]["hidden"].sel(prompt=2, step=3, block=4).to_numpy()  # (token, channel)
    place = {"prompt": 2, "step": 3, "block": 4}
    assert np.array_equal(tokens.channel_map(run, 29, **place), abs(states[:, 29]).reshape(8, 8))
    assert np.array_equal(tokens.token(run, 2, 5, **place), states[2 * 8 + 5])
    order = np.argsort(-abs(states).mean(axis=0), kind="stable")[:12]
    assert tokens.largest(run, 12, **place) == order.tolist()
    found = tokens.set_map(run, [29, 3], **place)
    whole = segmentation.masks(run, [29, 3], steps=[3], blocks=[4]).sel(prompt=2, step=3, block=4)
    assert np.array_equal(found["mask"], whole["mask"])
    assert np.allclose(found["heat"], whole["heat"])
    with refused(InputError, "channel", 999):
        tokens.channel_map(run, 999, **place)
