"""Stores of experiments: pictures of every prompt under every arm; resumable cell by cell.

    NAME.zarr/
      attrs              schema, experiment, parameters, arms, plan, provenance
      root               prompt_text, seed (prompt); planned, done (prompt, arm)
      outputs/           image (prompt, arm, y, x, rgb) uint8; latents (prompt, arm, ...)
      cells/             values measured while drawing, (prompt, arm)
      analysis/NAME/     results

`done` is written last: a cell whose `done` is 0 does not exist. Experiments that draw no pictures are written when
all rows are measured (`parts`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp.base.errors import InputError, StoreError, counted
from interp.base.same_plan import check_same, check_verifiable
from interp.store.create import new_store, remove_leftovers, rows_of, texts_as_objects, writing_lock, zarr_quiet
from interp.store.locations import exists, located
from interp.store.opening import open_root
from interp.store.reader import OpenStore, read_ahead, read_done
from interp.store.saved_results import Described
from interp.store.schema import Array
from interp.store.variable import Variable

Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class CellLayout:
    """Axes of an experiment: everything needed to create its store."""

    prompt_text: tuple[str, ...]
    seed: tuple[int, ...]
    arms: tuple[str, ...]
    labels: Mapping[str, Sequence[Any]]
    """Further coordinates along arm, such as block or channel count."""
    planned: Array
    """(prompt, arm) booleans: a fractional design draws some cells only."""
    image: tuple[int, int] | None
    """Pixels, (y, x); `None` where an experiment draws no pictures."""
    latents: Mapping[str, int]
    measures: tuple[str, ...]
    """Numbers per cell."""


def open_or_create(path: Path, layout: CellLayout, attributes: dict[str, Any]) -> Array:
    """Cells that the store already holds, (prompt, arm) booleans. Creates a missing store. The caller holds the lock."""
    remove_leftovers(path)
    if not exists(path):
        _create(path, layout, attributes)
        return np.zeros(layout.planned.shape, bool)
    stored = Experiment(path)
    wanted = {name: attributes[name] for name in ("experiment", "parameters", "arms")}
    check_same({**wanted, **attributes["plan"]}, {**{n: stored.attributes.get(n) for n in wanted}, **stored.plan}, str(path))
    if not stored.done[stored.planned].all():
        check_verifiable(attributes["plan"], str(path))
    return stored.done


def _create(path: Path, layout: CellLayout, attributes: dict[str, Any]) -> None:
    prompts, arms = layout.planned.shape
    labels = {name: ("arm", np.asarray(values)) for name, values in layout.labels.items()}
    coordinates = {"prompt": np.arange(prompts), "arm": np.array(layout.arms, dtype=object), **labels}
    planned = {"planned": (("prompt", "arm"), layout.planned.astype(np.uint8))}
    index = texts_as_objects(xr.Dataset({**rows_of(layout.prompt_text, layout.seed), **planned}, coordinates))
    with new_store(path, index, attributes, ("prompt", "arm")) as root:
        outputs, cells = root.require_group("outputs"), root.require_group("cells")
        if layout.image is None:
            return
        sizes = {"prompt": prompts, "arm": arms}
        picture = {**sizes, "y": layout.image[0], "x": layout.image[1], "rgb": 3}
        Variable.of(picture, *sizes, dtype="uint8").create(outputs, "image", {})
        Variable.of({**sizes, **layout.latents}, *sizes).create(outputs, "latents", {})
        for name in layout.measures:
            Variable.of(sizes, *sizes).create(cells, name, {})


@contextlib.contextmanager
def experiment_lock(path: Path) -> Iterator[None]:
    """Lock an experiment's store for writing."""
    if not path.name or path.name in (".", ".."):
        raise InputError(f"out must name the store's folder, such as cache/disrupt.zarr; got {str(path)!r}")
    with writing_lock(path), zarr_quiet():
        yield


class Experiment(Described):
    """An experiment's store, opened: pictures and measured values of prompts x arms.

    experiment.cells           values measured while drawing, (prompt, arm); NaN where a cell is not drawn
    experiment.pictures(arm)   (rows, images): the drawn cells of one arm
    experiment.result(NAME)    a result; experiment.results lists the names
    """

    def __init__(self, path: str | Path) -> None:
        self._store = OpenStore(path)
        self.path, self.attributes = self._store.path, self._store.attributes
        if "experiment" not in self.attributes:
            raise InputError(f"{path} is a traced run, not an experiment; open it with interp.open_run")
        self.kind = str(self.attributes["experiment"])
        """Which experiment: disrupt, dose, patch, ..."""
        self.parameters = dict(self.attributes["parameters"])
        """Parameters of the experiment."""
        self.has_pictures = "outputs/image" in self._store
        """Whether the experiment draws pictures."""
        self.done = read_done(self._store.stored("done").array)
        self.planned = self._store.stored("planned")[...].astype(bool)

    @property
    def finished(self) -> bool:
        """Whether every planned cell is drawn."""
        return bool(self.done[self.planned].all())

    @functools.cached_property
    def axes(self) -> xr.Dataset:
        """prompt, prompt_text, seed, arm and the arms' labels."""
        with zarr_quiet():
            stored = xr.open_zarr(str(self.path), consolidated=False, chunks=None).load()
        return texts_as_objects(stored.drop_vars(["planned", "done"], errors="ignore").set_coords(["prompt_text", "seed"]))

    @functools.cached_property
    def cells(self) -> xr.Dataset:
        """Measured values per cell, (prompt, arm); NaN where a cell is not drawn."""
        names = sorted(name for name, _ in self._store.root["cells"].arrays())  # type: ignore[union-attr]
        found = {}
        for name in names:
            values = np.full(self.done.shape, np.nan, np.float32)
            array = self._store.stored(f"cells/{name}")
            for cell in np.argwhere(self.done):
                values[tuple(cell)] = array[tuple(cell)]
            found[name] = (("prompt", "arm"), values)
        return self.axes.assign(found)

    def picture(self, prompt: int, arm: int) -> Array:
        """One cell's picture, (y, x, rgb) uint8."""
        return self._cell("image", prompt, arm)

    def latents(self, prompt: int, arm: int) -> Array:
        """One cell's last latents."""
        return self._cell("latents", prompt, arm)

    def _cell(self, name: str, prompt: int, arm: int) -> Array:
        if not self.done[prompt, arm]:
            raise StoreError(f"store {self.path}: prompt {prompt} under arm {arm} is not drawn")
        return np.asarray(self._store.stored(f"outputs/{name}")[prompt, arm])

    def pictures(self, arm: int) -> tuple[Array, Array]:
        """The rows drawn under an arm, and their pictures, (row, y, x, rgb) uint8."""
        rows = np.flatnonzero(self.done[:, arm])
        shape = self._store.stored("outputs/image").shape[2:]
        images = list(read_ahead(rows.tolist(), lambda row: self.picture(row, arm)))
        return rows, np.stack(images) if images else np.zeros((0, *shape), np.uint8)

    def facts(self) -> dict[str, str]:
        """The lines of the readable representation."""
        plan, drawn, planned = self.plan, int(self.done.sum()), int(self.planned.sum())
        return {
            "experiment": self.kind,
            "model": f"{plan.get('model')} ({self.provenance.get('model_class')}, {plan.get('dtype')})",
            "pictures": f"{drawn} of {planned} drawn"
            + ("" if drawn == planned else "  (unfinished: the same command continues)"),
            "rows": f"{counted(self.done.shape[0], 'prompt')} x {counted(self.done.shape[1], 'arm')}",
            "picture": f"{plan.get('width')} x {plan.get('height')} pixels, {plan.get('steps')} steps",
            "results": ", ".join(self.results) or "none yet",
        }


def is_experiment(path: str | Path) -> bool:
    """Whether a store holds an experiment."""
    return "experiment" in dict(open_root(located(path)).attrs)


def open_experiment(path: str | Path) -> Experiment:
    """Open an experiment's store for reading; it may be unfinished."""
    return Experiment(path)
