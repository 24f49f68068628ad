"""What disruption did to pictures: structure, detail, who wins, and whether a small effect is proved small.

Every arm is compared with the original picture of the same row, then with the random control of the same blocks. Values of a
row's repeated controls are averaged first, then seeds, then prompt texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals
from interp.errors import InputError
from interp.metrics import pictures as metrics
from interp.store.experiment import Experiment
from interp.store.schema import Array

MEASURES = {
    "structure": "root mean square difference of the blurred pictures, 0..1",
    "detail": "distance of the fine radial spectrum to the reference, less the original's, decades: > 0 is worse",
    "sharpness": "log2 of the Laplacian variance over the original's",
    "prompt": "distance between latents of different prompts and one seed over the originals', less 1: -1 is no prompt left",
}
WINS = ("detail", "sharpness")
MARGIN = 0.1
CONTROL = "random"


def measure(experiment: Experiment, reference: Array | None = None, *, margin: float = MARGIN) -> xr.Dataset:
    """Measures of every kind of arm, with intervals over prompt texts.

    `reference` is real pictures, (picture, y, x, rgb), whose mean spectrum detail is measured by; without it, the originals'.

    value, low, high                      (measure, arm)   against the original picture
    over_control, _low, _high             (measure, arm)   less the random control of the same blocks
    verdict                               (measure, arm)   minimal, changed or cannot tell, by `margin`
    win, win_low, win_high                (won, arm)       how often the arm's picture beats the original's (DG Fig. 5b)
    left, right                           (arm)            root mean square pixel difference in the two halves of the picture
    changed_energy                        (arm)            of the edited states' energy

    The margin of `structure` is that share of the distance between originals of two seeds (of two prompts, where there is one
    seed); of `detail` and `sharpness`, that share of the standard deviation of the originals' own values; of `prompt`, that
    share itself.
    """
    rows = _Rows(experiment, reference)
    groups = rows.groups()
    values = {name: [rows.over_texts(rows.of(name, group)) for group in groups] for name in MEASURES}
    scale = rows.scales()
    limits = {name: margin * scale[name] for name in MEASURES}
    axes = ("measure", "arm")
    found: dict[str, list[Any]] = {
        name: [] for name in ("value", "low", "high", "over_control", "over_low", "over_high", "verdict")
    }
    for name in MEASURES:
        for place, group in enumerate(groups):
            mine = values[name][place]
            low, high = intervals.bootstrap(mine)
            control = rows.control_of(group, groups)
            over = mine - values[name][control] if control is not None else np.full_like(mine, np.nan)
            over_low, over_high = intervals.bootstrap(over)
            line = (mine.mean(), low, high, over.mean(), over_low, over_high, verdict(mine, limits[name]))
            for variable, value in zip(found, line, strict=True):
                found[variable].append(value)
    shape = (len(MEASURES), len(groups))
    data = {
        name.replace("over_low", "over_control_low").replace("over_high", "over_control_high"): (axes, _array(v, shape))
        for name, v in found.items()
    }
    wins = np.array([[_win(rows.over_texts(rows.won(name, group))) for group in groups] for name in WINS])
    halves = np.array([rows.over_texts(rows.halves(group)).mean(axis=0) for group in groups])
    return xr.Dataset(
        {
            **data,
            **{name: (("won", "arm"), wins[..., n]) for n, name in enumerate(("win", "win_low", "win_high"))},
            "left": ("arm", halves[:, 0]),
            "right": ("arm", halves[:, 1]),
            "changed_energy": ("arm", np.array([rows.energy(group) for group in groups])),
            "margin": ("measure", np.array([limits[name] for name in MEASURES])),
        },
        {
            "measure": np.array(list(MEASURES), dtype=object),
            "won": np.array(WINS, dtype=object),
            "arm": np.array([f"{kind} {blocks}" for kind, blocks in groups], dtype=object),
            "kind": ("arm", np.array([kind for kind, _ in groups], dtype=object)),
            "blocks": ("arm", np.array([blocks for _, blocks in groups], dtype=object)),
        },
        {
            "analysis": "disruption",
            "model": str(experiment.plan.get("model")),
            "weights": str(experiment.plan.get("weights", "")),
            **{name: experiment.parameters[name] for name in ("channels", "lowest", "stream", "reach")},
            "rows": f"{len(rows.rows)} pictures of each arm",
            "reference": "the originals" if reference is None else f"{len(reference)} real pictures",
            "scale": {name: float(value) for name, value in scale.items()},
            "averaged_over": "draws of a control, seeds, then prompt texts",
            "interval": intervals.said(len(rows.texts)),
            "control": f"{CONTROL}: as many ordinary channels zeroed",
            "note": f"minimal, changed: the 90% interval lies within, the 95% interval outside +-{margin:g} of the scale",
        },
    )


def verdict(values: Array, limit: float) -> str:
    """Two one-sided tests (Schuirmann 1987) by intervals: `minimal` when the 90% interval lies within +-limit, `changed` when
    the 95% interval lies outside it, else `cannot tell`.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return "cannot tell"
    low, high = intervals.bootstrap(values, level=0.90)
    if -limit < low and high < limit:
        return "minimal"
    low, high = intervals.bootstrap(values)
    return "changed" if low > limit or high < -limit else "cannot tell"


def _win(values: Array) -> tuple[float, float, float]:
    low, high = intervals.bootstrap(values)
    return float(values.mean()), float(low), float(high)


def _array(values: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.array(values, dtype=object if isinstance(values[0], str) else np.float64)
    return array.reshape(shape)


class _Rows:
    """Per-row measures of every arm, each picture read once."""

    def __init__(self, experiment: Experiment, reference: Array | None) -> None:
        axes = experiment.axes
        self.kind = [str(kind) for kind in axes["kind"].to_numpy()]
        self.blocks = [str(blocks) for blocks in axes["blocks"].to_numpy()]
        self.rows = np.flatnonzero(experiment.done.all(axis=1))
        if not self.rows.size:
            raise InputError(f"{experiment.path}: no row is drawn under every arm yet; let the experiment go on first")
        texts = [str(axes["prompt_text"].to_numpy()[row]) for row in self.rows]
        self.texts = list(dict.fromkeys(texts))
        self.text_of = np.array([self.texts.index(text) for text in texts])
        self.energies = experiment.cells["changed_energy"].to_numpy()[self.rows]
        self.original = self._read(experiment, self.kind.index("original"))
        spectra = metrics.radial_spectrum(self.original if reference is None else reference)[1]
        self.reference = spectra.mean(axis=0)
        self.own = self._own(self.original)
        self.seed_of = np.array([int(axes["seed"].to_numpy()[row]) for row in self.rows])
        between = self._between_prompts(experiment, self.kind.index("original"))
        self.found: dict[int, dict[str, Array]] = {}
        for arm in range(len(self.kind)):
            self.found[arm] = self._compare(self._read(experiment, arm))
            with np.errstate(invalid="ignore", divide="ignore"):
                self.found[arm]["prompt"] = self._between_prompts(experiment, arm) / between - 1

    def _read(self, experiment: Experiment, arm: int) -> Array:
        drawn, images = experiment.pictures(arm)
        return np.asarray(images[np.isin(drawn, self.rows)])

    def _between_prompts(self, experiment: Experiment, arm: int) -> Array:
        """Per row, the mean distance of its latents to those of other prompts drawn from the same seed; NaN without any."""
        latents = np.stack([experiment.latents(int(row), arm).ravel().astype(np.float64) for row in self.rows])
        found = np.full(len(latents), np.nan)
        for place in range(len(latents)):
            others = (self.seed_of == self.seed_of[place]) & (self.text_of != self.text_of[place])
            if others.any():
                found[place] = np.sqrt(((latents[others] - latents[place]) ** 2).mean(axis=1)).mean()
        return found

    def _own(self, images: Array) -> dict[str, Array]:
        return {
            "detail": metrics.spectrum_distance(images, self.reference),
            "sharpness": np.log2(metrics.laplacian_variance(images) + metrics.FLOOR),
        }

    def _compare(self, images: Array) -> dict[str, Array]:
        own = self._own(images)
        difference = (metrics.as_floats(images) - metrics.as_floats(self.original)) ** 2
        half = images.shape[2] // 2
        sides = (difference[:, :, :half], difference[:, :, half:])
        return {
            "structure": metrics.structure_distance(images, self.original),
            **{name: own[name] - self.own[name] for name in own},
            "halves": np.stack([np.sqrt(side.mean(axis=(1, 2, 3))) for side in sides], axis=1),
        }

    def groups(self) -> list[tuple[str, str]]:
        """(kind, blocks) of the arms, repeats as one, the original left out."""
        both = zip(self.kind, self.blocks, strict=True)
        return [group for group in dict.fromkeys(both) if group[0] != "original"]

    def members(self, group: tuple[str, str]) -> list[int]:
        """Arms of a group."""
        return [n for n, arm in enumerate(zip(self.kind, self.blocks, strict=True)) if arm == group]

    def control_of(self, group: tuple[str, str], groups: list[tuple[str, str]]) -> int | None:
        """The place of the random control of the same blocks."""
        wanted = (CONTROL, group[1])
        return groups.index(wanted) if wanted in groups and group[0] != CONTROL else None

    def of(self, name: str, group: tuple[str, str]) -> Array:
        """A measure per row."""
        return np.asarray(np.mean([self.found[arm][name] for arm in self.members(group)], axis=0))

    def halves(self, group: tuple[str, str]) -> Array:
        """Pixel differences of the two halves per row, (row, 2)."""
        return self.of("halves", group)

    def won(self, name: str, group: tuple[str, str]) -> Array:
        """1 where the arm's picture is better than the original, 0.5 at a tie: lower spectrum distance, higher sharpness."""
        sign = -1.0 if name == "detail" else 1.0
        each = [np.sign(sign * self.found[arm][name]) / 2 + 0.5 for arm in self.members(group)]
        return np.asarray(np.mean(each, axis=0))

    def energy(self, group: tuple[str, str]) -> float:
        """Changed energy, mean over rows."""
        return float(self.energies[:, self.members(group)].mean())

    def over_texts(self, values: Array) -> Array:
        """The mean of each prompt text's rows: (text, ...)."""
        return np.stack([values[self.text_of == number].mean(axis=0) for number in range(len(self.texts))])

    def scales(self) -> dict[str, float]:
        """What a difference is large against: two seeds' (or prompts') structure; the originals' spread in detail."""
        pairs = [(a, b) for a in range(len(self.rows)) for b in range(a) if self.text_of[a] == self.text_of[b]]
        if not pairs:
            pairs = [(a, a - 1) for a in range(1, len(self.rows))]
        if not pairs:
            return {**dict.fromkeys(MEASURES, float("nan")), "prompt": 1.0}
        first, second = (self.original[list(side)] for side in zip(*pairs, strict=True))
        structure = float(metrics.structure_distance(first, second).mean())
        return {"structure": structure, "prompt": 1.0, **{name: float(values.std()) for name, values in self.own.items()}}
