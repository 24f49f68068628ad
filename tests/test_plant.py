"""Planted models have the planted channels, blocks and shares: from traces, by other arithmetic than that of the plant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import refused

import interp
from interp.testing import check_anatomy, plant

CASES: list[dict[str, Any]] = [
    {"family": "sd3", "channels": (3, 20)},
    {"family": "sd3", "stream": "text", "gate": "attn", "block": 2, "timestep_share": 0.25},
    {"family": "sd3", "gate": "attn2", "block": 0, "dual_attention": (0,)},
    {"family": "flux", "block": 1, "gate": "attn", "timestep_share": 1.0},
    {"family": "flux", "block": 3, "gate": "attn", "guidance_embeds": False},
    {"family": "dit", "gate": "attn", "timestep_share": 0.0, "block": 3},
]


def in_words(case: dict[str, Any]) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("population", [16, pytest.param(128, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "case", [*CASES[1:4], *(pytest.param(case, marks=pytest.mark.long) for case in (CASES[0], *CASES[4:]))], ids=in_words
)
def test_planted_channels_blocks_and_shares_are_there(
    case: dict[str, Any], population: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shares are those of the whole population, of whatever size."""
    monkeypatch.setattr(sys.modules[plant.__module__], "POPULATION", population)
    planted = plant(**case, seed=1)
    assert len(planted.population) == population
    run = interp.trace(planted.model, planted.population, out=tmp_path / "run.zarr", batch_size=64)
    for stream in planted.streams:
        size = run.stats["mean_abs"].sel(stream=stream).mean(("prompt", "step"))
        ratio = (size / size.median("channel")).to_numpy()
        others = np.delete(ratio, planted.channels, axis=1)
        present = np.isfinite(ratio).all(axis=1)
        late = present & (np.arange(len(ratio)) >= planted.block)
        early = present & (np.arange(len(ratio)) < planted.block)
        assert late.any()
        assert (ratio[late][:, planted.channels] > planted.strength / 2).all()
        assert (ratio[early] < 10).all()
        assert (others[late] < 10).all()
    gate = run.gates["alpha"].sel(stream=planted.streams[0], gate=planted.gate).isel(block=planted.block)
    alpha = gate.isel(channel=list(planted.channels)).astype(np.float64).to_numpy()
    total = alpha.var(axis=(0, 1))
    np.testing.assert_allclose(alpha.mean(axis=(0, 1)), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(total), planted.spread, rtol=1e-3)
    np.testing.assert_allclose(alpha.mean(axis=0).var(axis=0) / total, planted.timestep_share, atol=1e-3)
    np.testing.assert_allclose(alpha.mean(axis=1).var(axis=0) / total, planted.text_share, atol=1e-3)


@pytest.mark.parametrize("family", ["sd3", "flux", "dit"])
def test_planted_models_keep_their_anatomy_and_can_be_saved(family: str, tmp_path: Path) -> None:
    planted = plant(family, seed=2)
    prompts = planted.prompts(2)
    assert all(check.passed for check in check_anatomy(planted.model, prompts))
    kept, _ = planted.model.run_with_cache(prompts)
    again, _ = interp.load(planted.save(tmp_path / "model")).run_with_cache(prompts)
    assert (kept == again).all()
    assert len(set(planted.population)) == len(planted.population)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"family": "sd4"}, ("family", "sd3, flux, dit", "sd4")),
        ({"family": "sd3", "channels": (99,)}, ("channels", "0..31", 99)),
        ({"family": "sd3", "channels": (1, 1)}, ("channels", "[1, 1]")),
        ({"family": "sd3", "block": 9}, ("block", "0..3", 9)),
        ({"family": "sd3", "block": 3, "stream": "text"}, ("stream", "gate", "image.attn, image.mlp", "text.mlp", 3)),
        ({"family": "dit", "timestep_share": 1.5}, ("timestep_share", "0..1", 1.5)),
    ],
)
def test_impossible_plants_are_refused(arguments: dict[str, Any], words: tuple[object, ...]) -> None:
    with refused(interp.InputError, *words):
        plant(**arguments)
