"""Pictures of the same prompts and seeds under one or more settings, from a store or folders."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.store.experiment import Experiment, is_experiment, open_experiment
from interp.store.schema import Array
from interp.store.traced_run import Run, open_run

KINDS = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures by setting; row by row they have the same prompt and seed."""

    settings: tuple[str, ...]
    prompts: tuple[str, ...]
    """The prompt of every row."""
    seeds: tuple[int, ...]
    read: Callable[[int], Array]
    """Reads the pictures of a setting by its number, (row, y, x, rgb) uint8."""
    source: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Model, weights and similar facts, for results."""

    def texts(self) -> list[str]:
        """Different prompts, in order."""
        return list(dict.fromkeys(self.prompts))

    def by_prompt(self, values: Array) -> Array:
        """Mean over seeds: (..., row) -> (..., prompt)."""
        prompts = np.array(self.prompts)
        return np.stack([np.asarray(values)[..., prompts == text].mean(axis=-1) for text in self.texts()], axis=-1)

    def of_settings(self, numbers: Sequence[int]) -> Gallery:
        """Select settings."""
        kept = list(numbers)
        return dataclasses.replace(
            self, settings=tuple(self.settings[number] for number in kept), read=lambda number: self.read(kept[number])
        )

    def part(self, rows: Sequence[int]) -> Gallery:
        """Select rows."""
        chosen = list(rows)
        texts, seeds = tuple(self.prompts[row] for row in chosen), tuple(self.seeds[row] for row in chosen)
        return dataclasses.replace(self, prompts=texts, seeds=seeds, read=lambda number: self.read(number)[chosen])


def of_experiment(experiment: Experiment) -> Gallery:
    """The rows of an experiment that are drawn under every arm."""
    rows = np.flatnonzero(experiment.done.all(axis=1))
    if not rows.size:
        raise InputError(f"{experiment.path}: no row is drawn under every setting yet; resume the experiment first")
    axes = experiment.axes

    def read(number: int) -> Array:
        drawn, pictures = experiment.pictures(number)
        return pictures[np.isin(drawn, rows)]

    return Gallery(
        tuple(str(arm) for arm in axes["arm"].to_numpy()),
        tuple(axes["prompt_text"].to_numpy().astype(str)[rows]),
        tuple(int(seed) for seed in axes["seed"].to_numpy()[rows]),
        read,
        experiment.path.name,
        _facts(experiment),
    )


def opened(path: Path) -> Experiment | Run:
    """The experiment or the traced run at a path."""
    return open_experiment(path) if is_experiment(path) else open_run(path)


def of_store(store: Experiment | Run) -> Gallery:
    """The pictures of an experiment, or of a traced run."""
    return of_experiment(store) if isinstance(store, Experiment) else of_run(store)


def of_run(run: Run) -> Gallery:
    """A traced run: one setting."""
    images = run.images["image"]
    texts = images["prompt_text"].to_numpy().astype(str)
    setting, seeds = run.path.name.removesuffix(".zarr"), tuple(int(seed) for seed in images["seed"].to_numpy())
    return Gallery((setting,), tuple(texts), seeds, lambda _: images.to_numpy(), run.path.name, _facts(run))


def _facts(store: Experiment | Run) -> dict[str, str]:
    return {"model": str(store.plan.get("model")), "weights": str(store.plan.get("weights", ""))}


def of_folders(folders: Mapping[str, str | Path], prompts: Sequence[str] | None = None) -> Gallery:
    """Folders of pictures, one per setting, in the order of their names. Prompts are read from the pictures (`interp generate`)
    or given as `prompts`, one per picture.
    """
    if not folders:
        raise InputError("folders must be one or more, by setting")
    found: dict[str, list[tuple[str | None, int | None, Array]]] = {}
    for setting, folder in folders.items():
        every = (p for p in Path(folder).glob("*") if p.suffix.lower() in KINDS)
        paths = sorted((p for p in every if p.stem != "sheet" and not p.stem.endswith("-mask")), key=_by_number)
        if not paths:
            raise InputError(f"{folder} holds no pictures ({', '.join(KINDS)})")
        found[setting] = [_picture(path) for path in paths]
    first = next(iter(found.values()))
    texts = list(prompts) if prompts is not None else [text for text, _, _ in first]
    if any(text is None for text in texts):
        raise InputError(
            f"{next(iter(folders.values()))}: its pictures contain no prompt; give a prompts file with one line per picture"
        )
    for setting, pictures in found.items():
        if len(pictures) != len(texts):
            raise InputError(
                f"{setting}: {len(pictures)} pictures for {len(texts)} prompts; there must be one per prompt, in order"
            )
        shapes = {picture.shape for _, _, picture in pictures}
        if len(shapes | {first[0][2].shape}) > 1:
            raise InputError(f"{setting}: pictures must all be of one size; got {sorted(shapes | {first[0][2].shape})[:3]}")
        for number, (own, given) in enumerate(zip(pictures, first, strict=True)):
            if None not in (own[0], given[0]) and own[:2] != given[:2]:
                raise InputError(
                    f"{setting}: picture {number} is of {own[0]!r}, seed {own[1]}, in the first folder of {given[0]!r}, seed "
                    f"{given[1]}; settings are compared picture by picture: draw the same prompts and seeds, in the same order"
                )
    seeds = tuple(seed if seed is not None else number for number, (_, seed, _) in enumerate(first))
    settings = tuple(found)
    stacks = {setting: np.stack([picture for _, _, picture in pictures]) for setting, pictures in found.items()}
    where = ", ".join(str(folder) for folder in folders.values())
    return Gallery(settings, tuple(str(t) for t in texts), seeds, lambda number: stacks[settings[number]], where)


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that orders names by the numbers in them: 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _picture(path: Path) -> tuple[str | None, int | None, Array]:
    from PIL import Image, UnidentifiedImageError

    from interp.experiments.save import read_recipe

    try:
        with Image.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} is not a readable picture ({error})") from None
    try:
        recipe = read_recipe(path)
    except InputError:
        return None, None, picture
    return str(recipe["prompt"]), int(recipe["seed"]), picture
