"""Figures of an evaluation against its values."""

from __future__ import annotations

import numpy as np

from interp.evaluation.demo_scorer import DemoScorer
from interp.evaluation.gallery import Gallery
from interp.evaluation.scoring import evaluate
from interp.figures import evaluation
from interp.models.demo import world


def test_figures_show_the_values_and_intervals_of_an_evaluation() -> None:
    scenes = list(world.sample(24, 5))
    real = np.stack([scene.picture() for scene in scenes])
    stacks = {"real": real, "upside down": real[:, ::-1]}
    prompts = tuple(scene.caption() for scene in scenes)
    gallery = Gallery(tuple(stacks), prompts, tuple(range(24)), lambda number: list(stacks.values())[number], "by hand")
    found = evaluate(gallery, [DemoScorer()])
    made = evaluation.scores(found)
    markers = [trace for trace in made.data if trace.mode == "markers"]
    assert len(markers) == found.sizes["measure"]
    assert np.allclose(markers[0].x, found["value"].isel(measure=0))
    assert np.allclose(markers[0].error_x.array, (found["high"] - found["value"]).isel(measure=0))
    sets = evaluation.set_scores(found)
    assert np.allclose(sets.data[0].x, found["set_value"].isel(set_measure=0))
    assert np.isfinite(found["set_low"]).all(), "as many prompts are enough"
