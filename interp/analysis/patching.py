"""How far pictures are from others: patches from the clean one, transport from the source's, blocks from the final one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from interp.analysis import intervals, pairs
from interp.analysis.result import ENDS, Estimate, result, whole_rows
from interp.analysis.sampled import Sampled
from interp.base.errors import InputError
from interp.base.prompts import same_text
from interp.metrics import distances as pixels
from interp.store.experiment import Experiment
from interp.store.schema import Array

METRICS = ("picture", "structure", "latents")
NOTE = (
    "a uniform picture, a third prompt's with the same noise, and the mean of other ends score 0: destruction is not on the way"
)
LEFT_OUT = "{} of {} rows, whose two pictures differ in nothing that a destroyed picture does not have too"
THIRD = "another prompt"  # label of the third prompt's own picture
ROUNDING = 1e-12
BOUNDS = (-1.0, 1.0)
LENS = ("structure", "detail", "sharpness")


def recovered(experiment: Experiment, metric: str = "picture") -> xr.Dataset:
    """How far each patch brings the corrupted picture to the clean one (`Ways`): 0 as corrupted, 1 as clean.

    recovered, recovered_low, recovered_high   (what, block, column)   over pairs; NaN where there is nothing to patch

    Rows without a way are left out, and counted in the attribute `left_out`.

    `metric`: "picture" compares pixels, "structure" blurred pictures, "latents" the last latents.
    """
    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
    rows = whole_rows(experiment, "pair", "in every cell")
    axes = experiment.axes
    whats, blocks, columns = (axes[name].to_numpy() for name in ("what", "block", "column"))
    names: dict[str, list[Any]] = {
        "what": [str(name) for name in dict.fromkeys(whats) if name not in ("clean", "corrupted", THIRD)],
        "block": sorted({int(block) for block in blocks if block >= 0}),
        "column": [str(column) for column in dict.fromkeys(columns) if column != "-"],
    }
    units = pairs_of(experiment, rows)
    ways = Ways.of(experiment, rows, units, ("corrupted", "clean"), "what", metric)
    values = np.full((len(rows), *(len(axis) for axis in names.values())), np.nan)
    places = list(zip(whats.astype(str), blocks.astype(int), columns.astype(str), strict=True))
    for place, arm, value in ways.cells():
        cell = (axis.index(v) for axis, v in zip(names.values(), places[arm], strict=True))
        values[(place, *cell)] = ways.along(place, value)
    kept = with_ways([ways])
    units = units.part(kept)
    return result(
        "patching",
        {"recovered": (tuple(names), Estimate.mean(values[kept], units))},
        names,
        experiment,
        metric=metric,
        **{name: experiment.parameters[name] for name in ("channels", "stream", "columns")},
        averaged_over="seeds, then pairs of prompts",
        left_out=LEFT_OUT.format(len(rows) - len(kept), len(rows)),
        interval=units.said().replace("prompt texts", "pairs of prompts"),
        control="zero, shuffled, energy, third: changes without the clean prompt's content; control: ordinary channels",
        note=NOTE,
    )


def moved(experiment: Experiment) -> xr.Dataset:
    """How far each transport moved the picture (`Ways`), by metric, set of channels and strength.

    moved, moved_low, moved_high   (metric, channels, strength)            from the target, 0, to the source, 1
    to_source, to_target           (metric, channels, strength)            distance over the distance between the two
    over, over_low, over_high      (metric, against, strength)             moved by massive channels, less by each control

    Rows without a way by one of the metrics are left out, and counted in the attribute `left_out`.
    """
    rows = whole_rows(experiment, "pair")
    axes = experiment.axes
    sets, strengths = axes["channels"].to_numpy().astype(str), axes["strength"].to_numpy()
    names = [name for name in dict.fromkeys(sets.tolist()) if name not in ("source", "target", THIRD)]
    levels = sorted({float(value) for value in strengths if value != 0})
    shape = (len(names), len(levels))
    units, found = pairs_of(experiment, rows, "source"), dict[str, list[Estimate]]()
    controls = [name for name in names if name not in ("massive", "all")]
    measured = [Ways.of(experiment, rows, units, ("target", "source"), "channels", metric) for metric in METRICS]
    kept = with_ways(measured)
    units = units.part(kept)
    for ways in measured:
        along, near, far = (np.full((len(rows), *shape), np.nan) for _ in range(3))
        for place, arm, value in ways.cells():
            cell = (place, names.index(sets[arm]), levels.index(float(strengths[arm])))
            start, end = ways.starts[place], ways.ends[place]
            along[cell] = ways.along(place, value)
            with np.errstate(invalid="ignore", divide="ignore"):
                near[cell] = np.linalg.norm(value - end) / np.linalg.norm(end - start)
                far[cell] = np.linalg.norm(value - start) / np.linalg.norm(end - start)
        along, near, far = along[kept], near[kept], far[kept]
        over = along[:, [names.index("massive")]] - along[:, [names.index(name) for name in controls]]
        parts = {"moved": Estimate.mean(along, units), "over": Estimate.mean(over, units)}
        parts |= {n: Estimate(intervals.mean_of_texts(v, units)) for n, v in (("to_source", near), ("to_target", far))}
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
    dims = ("metric", "channels", "strength")
    joined = {
        name: Estimate(*(np.stack([getattr(p, end) for p in parts]) for end in ENDS))
        for name, parts in found.items()
        if name in ("moved", "over")
    }
    plain = {name: np.stack([part.value for part in parts]) for name, parts in found.items() if name.startswith("to_")}
    return result(
        "transport",
        {
            "moved": (dims, joined["moved"]),
            **{name: (dims, values) for name, values in plain.items()},
            "over": (("metric", "against", "strength"), joined["over"]),
        },
        {"metric": METRICS, "channels": names, "against": controls, "strength": levels},
        experiment,
        **{name: experiment.parameters[name] for name in ("massive", "from", "mask")},
        averaged_over="seeds, then pairs of prompts",
        left_out=LEFT_OUT.format(len(rows) - len(kept), len(rows)),
        interval=units.said().replace("prompt texts", "pairs of prompts"),
        control=experiment.parameters["control"],
        note=NOTE,
    )


def distances(experiment: Experiment) -> xr.Dataset:
    """Measures of the picture at each block and step against the final picture of its row (`pairs.MEASURES`).

    value, low, high   (measure, kind, step, block)   mean over prompt texts
    """
    cells = pairs.compare(experiment)
    kinds = [str(kind) for kind in dict.fromkeys(cells["kind"].to_numpy()) if kind != "final"]
    steps = sorted({int(step) for step in cells["step"].to_numpy() if step >= 0})
    blocks = sorted({int(block) for block in cells["block"].to_numpy() if block >= 0})
    labels = zip(*(cells[name].to_numpy().tolist() for name in ("kind", "step", "block")), strict=True)
    arms = {label: arm for arm, label in enumerate(labels)}
    groups = [[arms[label]] for label in itertools.product(kinds, steps, blocks)]
    shape = (len(kinds), len(steps), len(blocks))
    return result(
        "lens",
        {"value": (("measure", "kind", "step", "block"), pairs.measured(experiment, cells, groups, shape, names=LENS))},
        {"measure": LENS, "kind": kinds, "step": steps, "block": blocks},
        experiment,
        without=experiment.parameters["without"],
        **cells.attrs,
        averaged_over="seeds, then prompt texts",
        interval=pairs.said_of(cells),
        control="the last block at each step: the model's own estimate",
    )


@dataclasses.dataclass(frozen=True)
class Ways:
    """How far a picture is on its pair's way from start to end: 0 as the start, 1 as the end.

    The way is measured along the part of (end - start) that leads neither to a uniform picture, nor to the mean of other pairs'
    ends, nor to the third prompt's picture with the same noise, where the experiment drew it. These score 0 exactly, and noise
    or yet another prompt's picture about 0: a destroyed picture is not on the way. A picture farther from the start than the
    end is counts as one at the end's distance in the same direction; so what goes far beside the way scores about 0, and what
    goes beyond the end 1. A pair scores -1 to 1.
    """

    experiment: Experiment
    rows: Array
    label: str
    names: tuple[str, str]
    metric: str
    starts: list[Array]
    directions: list[Array]
    """The part of the way that counts, over its square."""
    ends: list[Array]

    @classmethod
    def of(cls, experiment: Experiment, rows: Array, units: Sampled, names: tuple[str, str], label: str, metric: str) -> Ways:
        """The ways of these rows; `names` are the labels of the arms that are start and end."""
        arms = experiment.axes[label].to_numpy().astype(str).tolist()
        drawn = [name for name in (*names, THIRD) if name in arms]
        starts, ends, *thirds = ([read(experiment, row, arms.index(name), metric) for row in rows.tolist()] for name in drawn)
        texts = [one.split("\n")[0] for one in units.texts]
        directions = []
        for text, start, end, *third in zip(texts, starts, ends, *thirds, strict=True):
            beside = [other for own, other in zip(texts, ends, strict=True) if own != text]
            gone = [np.full_like(end, end.mean()), *([np.mean(beside, axis=0)] if beside else []), *third]
            directions.append(_without(end - start, [one - start for one in gone]))
        return cls(experiment, rows, label, names, metric, starts, directions, ends)

    def cells(self) -> Iterator[tuple[int, int, Array]]:
        """Every cell that is an edit: (place of the row, arm, value)."""
        arms = self.experiment.axes[self.label].to_numpy().astype(str).tolist()
        for place, row in enumerate(self.rows.tolist()):
            for arm in (arm for arm, name in enumerate(arms) if name not in (*self.names, THIRD)):
                yield place, arm, read(self.experiment, row, arm, self.metric)

    def along(self, place: int, value: Array) -> float:
        """How far one row's value is; NaN where the way is only to a destroyed picture."""
        start, way = self.starts[place], self.ends[place] - self.starts[place]
        gone, far = value - start, float(np.linalg.norm(value - start))
        most = float(np.linalg.norm(way))
        return float(np.clip(((gone if far <= most else gone * most / far) * self.directions[place]).sum(), *BOUNDS))


def with_ways(ways: Sequence[Ways]) -> list[int]:
    """Places of the rows that have a way by every metric; all of them, which then give NaN, if none has."""
    places = range(len(ways[0].rows))
    return [place for place in places if all(np.isfinite(one.directions[place]).all() for one in ways)] or list(places)


def _without(way: Array, others: Sequence[Array]) -> Array:
    """The part of a way that is orthogonal to others, over its square; NaN if nothing is left."""
    basis, left = np.linalg.qr(np.stack([one.ravel() for one in others], axis=1))[0], way.ravel()
    left = left - basis @ (basis.T @ left)
    square = float(left @ left)
    kept = left / square if square > ROUNDING * float(way.ravel() @ way.ravel()) else np.full_like(left, np.nan)
    return np.asarray(kept.reshape(way.shape))


def pairs_of(experiment: Experiment, rows: Array, other: str = "clean") -> Sampled:
    """The pair of prompts and the seed of these rows."""
    texts, seeds = (experiment.axes[name].to_numpy()[rows] for name in ("prompt_text", "seed"))
    theirs = [experiment.parameters[other][row] for row in rows]
    return Sampled([f"{same_text(a)}\n{same_text(b)}" for a, b in zip(theirs, texts, strict=True)], seeds.tolist())


def read(experiment: Experiment, row: int, arm: int, metric: str) -> Any:
    """A cell's pixels, blurred pixels or latents."""
    if metric == "latents":
        return experiment.latents(row, arm).astype(np.float64)
    picture = experiment.picture(row, arm)
    return pixels.low_pass(picture) if metric == "structure" else pixels.as_floats(picture)
