"""The demo world's scorer: attributes seen by its judge, with fidelity measured apart from identity.

Identity is what a prompt names: semantics and texture, as classified by the judge. Fidelity is what no prompt names: fine
spectrum, sharpness and grain, compared with real pictures of the same attributes with random uncaptioned detail. A
blurred picture keeps its identity and loses its fidelity.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from interp.base.errors import InputError
from interp.evaluation.scorer import Measure, set_measures, set_scores
from interp.metrics import distances as metrics
from interp.metrics.set_distances import inception_score
from interp.models.demo import world
from interp.models.demo.judge import SEMANTIC, asked_for, load_judge
from interp.store.schema import Array

REAL = 16  # real pictures of every prompt
NAME = "judge"
MASKED = ("shape", "size", "position")
SHAPES = "judge shape score"
SHAPES_MEANING = "exp of the mean divergence of each picture's shapes, as the judge sees them, from all pictures'; no IS"
ASKED = (
    ("semantics", "share of shape, colour, size, position and background asked for that the judge sees", "higher"),
    ("texture", "whether the judge sees the texture asked for", "higher"),
    ("spectrum", "distance of the fine radial spectrum to real pictures' of the same attributes, decades", "lower"),
    ("sharpness", "log2 of the Laplacian variance over real pictures' of the same attributes", "zero"),
    ("grain", "log2 of the background's fine deviation over real pictures' of the same attributes", "zero"),
)


class DemoScorer:
    """Scores pictures of the demo world against real ones of the same attributes."""

    measures = (
        *(Measure(name, meaning, better, asks=True) for name, meaning, better in ASKED),
        *set_measures(NAME),
        Measure(SHAPES, SHAPES_MEANING, "higher", of="set", limits=(1, np.inf)),
    )

    def __init__(self) -> None:
        self.judge = load_judge()
        self._real = functools.lru_cache(maxsize=None)(self._drawn)

    def check(self, prompts: Sequence[str]) -> None:
        """Raise an error for prompts that name nothing of the demo world."""
        for prompt in prompts:
            if not any(asked_for(prompt)[name] for name in SEMANTIC):
                raise InputError(
                    f"prompt {str(prompt)!r} names nothing of the demo world; such as 'a large red circle in the center'"
                )

    def pictures(self, images: Array, prompts: Sequence[str]) -> Mapping[str, Array]:
        """Each measure, (picture)."""
        self.check(prompts)
        verdicts, asked = self.judge(images), [asked_for(prompt) for prompt in prompts]
        right = np.stack([verdicts.right(name, [one[name] for one in asked]) for name in SEMANTIC])
        named = np.isfinite(right).sum(axis=0)
        own = [self._fidelity(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        return {
            "semantics": np.nansum(right, axis=0) / named,
            "texture": verdicts.right("texture", [one["texture"] for one in asked]),
            **{name: np.array([one[name] for one in own]) for name in ("spectrum", "sharpness", "grain")},
        }

    def extract(self, images: Array, prompts: Sequence[str]) -> Array:
        """The judge's features."""
        return self.judge(images).features

    def sets(self, features: Array, prompts: Sequence[str]) -> Mapping[str, float]:
        """Frechet distance, precision and recall to as many real pictures of the same prompts."""
        counts = {text: list(prompts).count(text) for text in dict.fromkeys(prompts)}
        real = np.concatenate([self._real(text)["features"][:count] for text, count in counts.items()])
        return {**set_scores(NAME, features, real), SHAPES: inception_score(self.judge.shapes(features))}

    def _fidelity(self, image: Array, prompt: str) -> dict[str, float]:
        real = self._real(prompt)
        return {
            "spectrum": float(metrics.spectrum_distance(image[None], real["spectrum"])[0]),
            "sharpness": float(metrics.sharpness(image[None])[0] - real["sharpness"]),
            "grain": float(grain(image[None])[0] - real["grain"]),
        }

    def _drawn(self, prompt: str) -> dict[str, Any]:
        """Real pictures of a prompt's attributes; attributes it omits are drawn at random, like all uncaptioned detail."""
        stack = _of_prompt(prompt, REAL)
        return {
            "spectrum": metrics.radial_spectrum(stack)[1].mean(axis=0),
            "sharpness": float(np.median(metrics.sharpness(stack))),
            "grain": float(np.median(grain(stack))),
            "features": self.judge(stack).features,
        }


def is_whole(prompt: str) -> bool:
    """Whether a caption names what the subject's mask needs."""
    return not _lacking(prompt)


def _lacking(prompt: str) -> list[str]:
    given = asked_for(prompt)
    return [name for name in MASKED if given[name] is None]


def subject_masks(prompts: Sequence[str]) -> Array:
    """Each prompt's subject mask, (prompt, y, x) boolean, from the caption's shape, size and position."""
    found = []
    for prompt in prompts:
        given, lacking = asked_for(prompt), _lacking(prompt)
        if lacking:
            raise InputError(
                f"masks: prompt {prompt!r} names no {lacking[0]}; give whole captions of the demo world, or --masks FOLDER"
            )
        where = {name: given[name] for name in MASKED}
        found.append(world.Scene(colour="red", **where).mask())  # type: ignore[arg-type]
    return np.stack(found)


def real_pictures(prompts: Sequence[str]) -> Array:
    """A real picture of each prompt, (prompt, y, x, rgb); attributes that the prompt omits are drawn at random."""
    return np.concatenate([_of_prompt(prompt, 1) for prompt in prompts])


def _of_prompt(prompt: str, count: int) -> Array:
    given = {name: value for name, value in asked_for(prompt).items() if value is not None}
    scenes = world.sample(count, seed=zlib.crc32(prompt.encode()))
    return np.stack([dataclasses.replace(scene, **given).picture() for scene in scenes])  # type: ignore[arg-type]


def grain(images: Array) -> Array:
    """log2 of the fine deviation of the picture's border, which is all background: (picture).

    Fine means removed by a 5-pixel median; the deviation is 1.48 times the median absolute one, so that specks do not count.
    """
    grey = metrics.as_floats(images) @ metrics.LUMINANCE
    fine = grey - ndimage.median_filter(grey, size=(1, 5, 5), mode="nearest")
    border = np.ones(grey.shape[1:], bool)
    border[6:-6, 6:-6] = False
    return np.asarray(np.log2(1.4826 * np.median(np.abs(fine[:, border]), axis=1) + 1 / 512))
