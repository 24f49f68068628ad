"""The papers' tables as recipes: which settings are drawn, on which prompts, and what the paper itself reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import InputError
from interp.guidance.presets import PRESETS as GUIDANCE

DG = "Detail Guidance, arXiv 2510.11538"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A table of a paper, for any model that has a Detail Guidance preset or is given one."""

    name: str
    table: str
    """Where it is from."""
    about: str
    settings: tuple[str, ...]
    """Guidance, with {cfg}, {dg} and {dg_cfg} for the model's own; the first is the baseline."""
    group: str | None = None
    """A captioned attribute that prompts are told apart by, as the paper tells styles apart."""
    published: Mapping[str, Sequence[tuple[str, str]]] = dataclasses.field(default_factory=dict)
    """Setting -> (metric, value) of the paper, on its own model and prompts."""


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "dg-table-1",
        f"{DG}, Table 1",
        "conditional and classifier-free sampling, each without and with Detail Guidance",
        ("none", "{dg}", "{cfg}", "{cfg}+{dg_cfg}"),
    ),
    Recipe(
        "dg-table-2",
        f"{DG}, Table 2",
        "guidance methods compared, by style of the prompt",
        ("{cfg}", "apg:{scale}", "cfgpp:0.6", "cfg0:{scale}", "{dg}", "{cfg}+{dg_cfg}"),
        "texture",
        {
            "{cfg}": (("HPSv2.1, SD3", "30.24"), ("LAION-Aesthetics, SD3", "5.93")),
            "apg:{scale}": (("HPSv2.1, SD3", "29.46"),),
            "cfgpp:0.6": (("HPSv2.1, SD3", "30.02"),),
            "cfg0:{scale}": (("HPSv2.1, SD3", "30.57"),),
            "{dg}": (("HPSv2.1, SD3", "30.14"), ("LAION-Aesthetics, SD3", "6.14")),
            "{cfg}+{dg_cfg}": (("HPSv2.1, SD3", "30.96"), ("LAION-Aesthetics, SD3", "6.13")),
        },
    ),
    Recipe(
        "dg-fig-8",
        f"{DG}, Fig. 8",
        "Detail Guidance over depth and scale",
        ("none", "dg:{{0.5,1,2}}:channels={channels}:block={{{depths}}}"),
    ),
)


def recipe(name: str) -> Recipe:
    """A recipe by name."""
    found = {one.name: one for one in RECIPES}
    if name not in found:
        raise InputError(f"preset must be one of {', '.join(found)}; got {name!r}")
    return found[name]


def settings(one: Recipe, model: str, blocks: int) -> dict[str, str]:
    """The recipe's settings for a model, each with what it stands for: {guidance: template}."""
    if model not in GUIDANCE or not GUIDANCE[model].channels:
        known = ", ".join(name for name, preset in GUIDANCE.items() if preset.channels)
        raise InputError(
            f"preset {one.name}: {model} has no Detail Guidance preset ({known} have); give --guidance settings of your own"
        )
    preset = GUIDANCE[model]
    factor, combined = preset.combined if preset.combined is not None else (3.0, preset.alone)
    channels = ",".join(map(str, preset.channels))
    depths = sorted({round(number * (blocks - 1) / 4) for number in range(5)} | {preset.block})
    words: dict[str, Any] = {
        "scale": f"{factor + 1:g}",
        "cfg": f"cfg:{factor + 1:g}",
        "dg": f"dg:{preset.alone:g}:channels={channels}:block={preset.block}",
        "dg_cfg": f"dg:{combined:g}:channels={channels}:block={preset.block}",
        "channels": channels,
        "depths": ",".join(map(str, depths)),
    }
    return {template.format(**words): template for template in one.settings}
