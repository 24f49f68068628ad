"""The papers' own metrics as a scorer: CLIPScore, BLIP-ITM, HPSv2.1, LAION-Aesthetics; FID, Inception Score, precision, recall.

Their names are reserved for the published weights. Measures of other weights have the first digits of their sha256 in the name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.base.errors import InputError
from interp.evaluation.scorer import Measure, Scorer
from interp.metrics import hps, inception, preprocess, scores, set_distances, towers
from interp.metrics.checkpoints import SOURCES, Weights, find, tokenizer_of
from interp.store.schema import Array

TABLE = Path(__file__).parent / "paper_metrics.csv"
with TABLE.open(encoding="utf-8", newline="") as _file:
    _ROWS = {row["metric"]: row for row in csv.DictReader(_file)}


def _measures(of: str) -> dict[str, Measure]:
    """The metrics of the table that measure a picture, or a set."""
    found = {}
    for metric, row in _ROWS.items():
        if row["of"] == of:
            limits = float(row["least"]), float(row["most"])
            found[metric] = Measure(row["name"], row["meaning"], row["better"], of, row["asks"] == "yes", limits)
    return found


SINGLES, SETS = _measures("picture"), _measures("set")
NEEDS = {name: tuple(row["needs"].split()) for name, row in _ROWS.items()}
"""The weights that each metric needs; the first are those of the network that computes it."""
FEWEST = {name: int(row["fewest"]) for name, row in _ROWS.items()}
"""Fewest pictures of a set."""
COMPUTED: Mapping[str, Callable[[Any, Array, Sequence[str]], Array]] = {
    "clip": towers.clip_score,
    "blip": towers.Blip.matching,
    "blip_cosine": towers.Blip.cosine,
    "hps": hps.hps_score,
    "aesthetic": lambda network, images, _: network(images),
    "inception": lambda network, images, _: network.features(images),
}
"""From a metric's network, one batch of pictures and their prompts; `inception` are the features of all sets."""
METRICS = ("clip", "blip", "hps", "aesthetic")


class Weighted(Scorer):
    """Scores pictures with networks. Their weights are given, found locally or downloaded.

    `metrics` are of SINGLES and SETS; `weights` folders, files or hub ids by name (of SOURCES); `real` pictures, (picture, y,
    x, rgb), what fid, precision and recall are taken against; `cache` a file in which scores are kept. A network is loaded
    when a picture is not in the cache.
    """

    def __init__(
        self,
        metrics: Sequence[str] = METRICS,
        weights: Mapping[str, str | Path] | None = None,
        *,
        real: Array | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch: int = scores.BATCH,
        cache: str | Path | None = None,
    ) -> None:
        self.metrics = _checked(metrics, weights or {}, real)
        if batch < 1:
            raise InputError(f"batch must be 1 or more; got {batch}")
        self.device, self.dtype, self.batch, self.cache = device, dtype, batch, scores.ScoreCache(cache)
        towers.device_of(device), towers.dtype_of(dtype)
        self.real = None if real is None else preprocess.as_bytes(real)
        needed = dict.fromkeys(name for metric in self.metrics for name in NEEDS[metric])
        self.found: dict[str, Weights] = {name: find(name, (weights or {}).get(name)) for name in needed}
        if "hps" in self.metrics:
            given = self.found["clip"].path if "clip" in self.found else (weights or {}).get("clip")
            self.words = tokenizer_of(self.found["hps"], given)
        self.measures = tuple(self._measure(metric) for metric in self.metrics)
        self.weights = {name: own.label for name, own in self.found.items()}
        """By name: source of the weights, first digits of their sha256, and whether they are the published ones."""
        self._loaded: dict[str, Any] = {}

    def check(self, prompts: Sequence[str]) -> None:
        """Accept any prompts: tokenizers truncate long ones. Each network is loaded once, so that damaged weights are
        found before anything is drawn, and then freed: the model that draws needs the memory.
        """
        for metric in self.metrics:
            self._network(NEEDS[metric][0])
        self._loaded.clear()

    def pictures(self, images: Array, prompts: Sequence[str]) -> Mapping[str, Array]:
        """Each measure of single pictures, (picture)."""
        return {
            self._measure(metric).name: self._scored(metric, images, prompts) for metric in self.metrics if metric in SINGLES
        }

    def extract(self, images: Array, prompts: Sequence[str]) -> Array:
        """Inception's features, (picture, 2048); without set measures, (picture, 0)."""
        if not any(metric in SETS for metric in self.metrics):
            return super().extract(images, prompts)
        return self._scored("inception", images, prompts, width=inception.FEATURES)

    def sets(self, features: Array, prompts: Sequence[str]) -> Mapping[str, float]:
        """Each measure of a set."""
        asked = [metric for metric in self.metrics if metric in SETS]
        for metric in asked:
            if len(features) < FEWEST[metric]:
                raise InputError(
                    f"{metric} needs sets of {FEWEST[metric]} or more pictures; got {len(features)}; draw more prompts or "
                    f"seeds, or leave {metric} out of the metrics"
                )
        found = {}
        if "inception_score" in asked:
            found["inception_score"] = self._network("inception").score(features)
        if "fid" in asked:
            found["fid"] = set_distances.frechet_distance(features, self._real)
        if "precision" in asked or "recall" in asked:
            found["precision"], found["recall"] = set_distances.precision_recall(
                features, self._real, reach_of_real=self._reach
            )
        return {self._measure(metric).name: found[metric] for metric in asked}

    def _measure(self, metric: str) -> Measure:
        """The metric's measure, under its own name if its weights are the published ones."""
        measure = (SINGLES | SETS)[metric]
        unknown = [self.found[name] for name in NEEDS[metric] if not self.found[name].published]
        if not unknown:
            return measure
        digits = "+".join(own.digest[:8] for own in unknown)
        note = "; not the published weights, or not known to be"
        return dataclasses.replace(measure, name=f"{measure.name} ({digits})", meaning=measure.meaning + note)

    def _scored(self, metric: str, images: Array, prompts: Sequence[str], width: int | None = None) -> Array:
        """Score through the cache; scores that do not depend on the prompt are cached without it. The first batch loads the
        network.
        """
        needed = NEEDS.get(metric, (metric,))
        parts = [self.found[name] for name in needed] + ([self.words] if metric == "hps" else [])
        texts = [""] * len(images) if metric in ("aesthetic", "inception") else list(prompts)

        def compute(batch: Array, own: Sequence[str]) -> Array:
            return COMPUTED[metric](self._network(needed[0]), batch, own)

        name, digest = f"{metric} {self.dtype}", " ".join(part.digest for part in parts)
        return scores.scored(name, digest, compute, images, texts, cache=self.cache, width=width, batch=self.batch)

    def _network(self, name: str) -> Any:
        """A network by the name of its weights, loaded where it is first used."""
        if name not in self._loaded:
            kinds: dict[str, Callable[..., Any]] = {
                "clip": towers.Clip,
                "blip": towers.Blip,
                "hps": lambda weights, **how: hps.Hps(weights, tokenizer=self.words, **how),
                "aesthetic": lambda weights, **_: towers.Aesthetics(weights, self._network("clip")),
                "inception": inception.Inception,
            }
            self._loaded[name] = kinds[name](self.found[name], device=self.device, dtype=self.dtype)
        return self._loaded[name]

    @functools.cached_property
    def _real(self) -> Array:
        assert self.real is not None  # checked in `_checked`
        return self.extract(self.real, [""] * len(self.real))

    @functools.cached_property
    def _reach(self) -> Array:
        return set_distances.reach(self._real)


def _checked(metrics: Sequence[str], weights: Mapping[str, str | Path], real: Array | None) -> tuple[str, ...]:
    known = {**SINGLES, **SETS}
    if isinstance(metrics, str) or not metrics or any(metric not in known for metric in metrics):
        raise InputError(f"metrics must be one or more of {', '.join(known)}; got {metrics!r}")
    if len(set(metrics)) < len(metrics):
        raise InputError(f"metrics must be different; got {', '.join(metrics)}")
    stray = [name for name in weights if name not in SOURCES]
    if stray:
        raise InputError(f"weights must be given by name, one of {', '.join(SOURCES)}; got {stray[0]!r}")
    against = [metric for metric in metrics if metric in ("fid", "precision", "recall")]
    if against and real is None:
        raise InputError(
            f"{against[0]} is measured against real pictures: give some (--real FOLDER, or real=), or leave out the metric"
        )
    for metric in against:
        if real is not None and len(real) < FEWEST[metric]:
            raise InputError(f"{metric} needs {FEWEST[metric]} or more real pictures; got {len(real)}")
    return tuple(metrics)
