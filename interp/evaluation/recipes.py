"""The papers' tables as recipes (recipes.toml): settings to draw, prompts, and comparisons; and as numbers (published.csv),
always printed separately from measured results.
"""

from __future__ import annotations

import csv
import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.analysis.table import DG, FC
from interp.base.errors import InputError
from interp.guidance.presets import PRESETS as GUIDANCE
from interp.guidance.presets import Preset

TABLE, NUMBERS = (Path(__file__).parent / name for name in ("recipes.toml", "published.csv"))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Settings that a table compares."""

    name: str
    settings: tuple[str, ...]
    """The settings; the first is the baseline."""
    asked: bool = True
    """Whether the pictures have prompts; unconditional ones are scored only by measures that need none."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A table of a paper, for any model."""

    name: str
    table: str
    """The paper and its table or figure."""
    about: str
    kind: str
    """How it is drawn: guidance (a sweep), disruption, collapse, segmentation, or study (a sweep that raters compare)."""
    prompts: str
    """Name of the paper's prompts (`interp.evaluation.prompt_sets`); a class-conditional table has labels."""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Guidances: name -> text, with {cfg}, {dg} and {cfg_dg} for the model's own; the first is the baseline."""
    comparisons: tuple[Comparison, ...] = ()
    """Comparisons in addition to all settings against the first."""
    styles: bool = False
    """Whether prompts are grouped by style."""


def read_recipes() -> Iterator[Recipe]:
    """The recipes of recipes.toml, in its order."""
    for name, given in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        compared = tuple(Comparison(**{**one, "settings": tuple(one["settings"])}) for one in given.pop("comparisons", ()))
        paper = given.pop("table").format(DG=DG, FC=FC)
        yield Recipe(name, paper, **given, comparisons=compared)


RECIPES: Mapping[str, Recipe] = {one.name: one for one in read_recipes()}
OWN = Recipe("", "", "settings of the user", "guidance", "")
"""Stands for settings that are no paper's."""


def recipe(name: str) -> Recipe:
    """A recipe by name."""
    if name not in RECIPES:
        raise InputError(f"preset must be one of {', '.join(RECIPES)}; got {name!r}")
    return RECIPES[name]


def guidance_of(model: str, blocks: int, what: str, *, channels: Sequence[int] | None, block: int | None) -> Preset:
    """The model's Detail Guidance preset. With `channels` and `block`, any model has one."""
    if channels is None and (model not in GUIDANCE or not GUIDANCE[model].channels):
        known = ", ".join(name for name, preset in GUIDANCE.items() if preset.channels)
        raise InputError(
            f"{what}: channels of {model} are not known (those of {known} are); give --channels, such as those that "
            "`interp massive RUN` finds, and --block"
        )
    # a quarter of the depth where no paper or sweep gives m, as in interp.findings
    preset = GUIDANCE.get(model, Preset((), blocks // 4, 0, 1.0, None, "given"))
    chosen = preset.channels if channels is None else tuple(channels)
    return dataclasses.replace(preset, channels=chosen, block=preset.block if block is None else block)


def settings(one: Recipe, preset: Preset, blocks: int) -> dict[str, str]:
    """The recipe's settings for a model's Detail Guidance, {name: guidance}."""
    factor, combined = preset.combined if preset.combined is not None else (3.0, preset.alone)
    channels = ",".join(map(str, preset.channels))
    depths = sorted({round(number * (blocks - 1) / 4) for number in range(5)} | {preset.block})
    words: dict[str, Any] = {
        "scale": f"{preset.guidance:g}",
        "cfg": f"cfg:{preset.guidance:g}",
        "dg": f"dg:{preset.alone:g}:channels={channels}:block={preset.block}",
        "cfg_dg": f"cfg:{factor + 1:g}+dg:{combined:g}:channels={channels}:block={preset.block}",
        "combined": f"dg:{combined:g}:channels={channels}:block={preset.block}",
        "channels": channels,
        "depths": ",".join(map(str, depths)),
    }
    return {name: template.format(**words) for name, template in one.settings.items()}


def reported(table: str) -> list[dict[str, str]]:
    """The numbers of a recipe's table in the paper, in its order: model, setting (its name in the recipe), metric, and value
    as printed.
    """
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["table"] == table]


def of_setting(numbers: Sequence[Mapping[str, str]], setting: str) -> str:
    """A setting's numbers in one line: `SD3: CLIPScore 22.11, ...; SD3.5 Large: ...`."""
    models: dict[str, list[str]] = {}
    for one in numbers:
        if one["setting"] == setting:
            models.setdefault(one["model"], []).append(f"{one['metric']} {one['value']}")
    return "; ".join(f"{model}: {', '.join(said)}" for model, said in models.items())
