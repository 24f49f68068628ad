"""The short form of tests/campaigns/covered.py: intervals cover, false alarms and false equivalences are rare."""

from __future__ import annotations

import numpy as np
import pytest
from campaigns import covered as campaign

SAMPLES = 400
COVERS = (0.90, 0.995)  # nominal 0.95; the campaign's own samples, and its limits of 0.92 and 0.98, are in docs/statistics.md


@pytest.mark.parametrize("prompts", [8, 31])
def test_every_printed_interval_covers(prompts: int) -> None:
    draw = np.random.default_rng(prompts)
    found = {kind: campaign.mean(draw, kind, prompts, SAMPLES) for kind in campaign.MEANS}
    found |= {f"win {share}": campaign.wins(draw, share, 1, prompts, SAMPLES) for share in (0.5, 0.95)}
    found["win of 8 seeds"] = campaign.wins(draw, 0.8, 8, prompts, SAMPLES)
    found |= {name: campaign.function(draw, name, prompts, 200) for name in campaign.FUNCTIONS}
    found["variation"] = campaign.variation(draw, "lognormal", prompts, SAMPLES)
    found["score"] = campaign.score(draw, prompts, 200)
    for term in ("timestep", "any prompt"):
        found |= {
            f"{term} {n}": campaign.shares(draw, term, n, own, prompts, 200) for n, own in ((1, True), (2, True), (4, False))
        }
    found["PCK"] = campaign.matched(draw, prompts, SAMPLES)
    found["skewed, crossed"] = campaign.crossed(draw, (0.2, 0.6, 0.2), prompts, 8, SAMPLES, "exponential")
    if prompts >= 20:
        found |= dict(zip(campaign.SET_MEASURES, campaign.of_sets(draw, prompts, 100), strict=True))
        found["prompt's effect"] = campaign.of_latents(draw, prompts, 60)
    found["crossed"] = campaign.crossed(draw, (0.2, 0.6, 0.2), prompts, 4, SAMPLES)
    assert {name: value for name, value in found.items() if not COVERS[0] <= value <= COVERS[1]} == {}


def test_noise_that_all_prompts_share_gives_no_interval_of_few_seeds() -> None:
    draw = np.random.default_rng(0)
    assert all(np.isnan(campaign.crossed(draw, (0.2, 0.6, 0.2), 31, seeds, 10)) for seeds in (1, 2, 3))


@pytest.mark.parametrize("channels", [64, 3072])
def test_ordinary_channels_are_seldom_massive(channels: int) -> None:
    draw = np.random.default_rng(channels)
    for kind in ("lognormal 0.46", "lognormal 0.8", "half-normal"):
        assert campaign.alarms(draw, kind, channels, SAMPLES) <= 0.08, kind


def test_equivalence_at_the_margin_is_rare() -> None:
    draw = np.random.default_rng(0)
    assert max(campaign.equivalence(draw, prompts, SAMPLES) for prompts in (8, 31, 100)) <= 0.08
