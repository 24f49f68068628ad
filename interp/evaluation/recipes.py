"""The papers' tables as recipes: settings to draw, prompts, and comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from interp.base.errors import InputError
from interp.guidance.presets import PRESETS as GUIDANCE
from interp.guidance.presets import Preset

DG, FC = "Detail Guidance, arXiv 2510.11538", "Few Channels, arXiv 2605.13974"


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


_TABLE_1 = {"none": "none", "dg": "{dg}", "cfg": "{cfg}", "cfg+dg": "{cfg_dg}"}
_TYPES = (Comparison("cond", ("none", "dg")), Comparison("cfg", ("cfg", "cfg+dg")))
RECIPES: Mapping[str, Recipe] = {
    one.name: one
    for one in (
        Recipe(
            "dg-table-1",
            f"{DG}, Table 1",
            "conditional and classifier-free sampling, each without and with Detail Guidance",
            "guidance",
            "pick-a-pic",
            _TABLE_1,
            _TYPES,
        ),
        Recipe(
            "dg-table-2",
            f"{DG}, Table 2",
            "guidance methods compared, by style of the prompt",
            "guidance",
            "hpsv2",
            {
                "cfg": "{cfg}",
                "apg": "apg:{scale}",
                "cfg++": "cfgpp:0.6",
                "cfg-zero": "cfg0:{scale}",
                "dg": "{dg}",
                "cfg+dg": "{cfg_dg}",
            },
            styles=True,
        ),
        Recipe("dg-table-3", f"{DG}, Table 3 (App. E)", "Table 1 on Flux", "guidance", "pick-a-pic", _TABLE_1, _TYPES),
        Recipe(
            "dg-table-6",
            f"{DG}, Table 6 (App. H)",
            "class-conditional and unconditional pictures, each without and with Detail Guidance, as sets",
            "guidance",
            "ImageNet's labels",
            {"none": "none", "dg": "{dg}", "uncond": "cfg:0", "uncond+dg": "cfg:0+{dg}:of=uncond"},
            (Comparison("cond", ("none", "dg")), Comparison("uncond", ("uncond", "uncond+dg"), asked=False)),
        ),
        Recipe(
            "dg-fig-5b",
            f"{DG}, Fig. 5b",
            "massive channels zeroed in one block: how often is the picture better than the original? with matched controls",
            "disruption",
            "pick-a-pic",
        ),
        Recipe(
            "dg-fig-8",
            f"{DG}, Fig. 8",
            "Detail Guidance over depth and scale, and with classifier-free guidance over its scale",
            "guidance",
            "pick-a-pic",
            {
                "none": "none",
                "dg": "dg:{{0.5,1,2}}:channels={channels}:block={{{depths}}}",
                "cfg": "cfg:{{2,4,6}}",
                "cfg+dg": "cfg:{{2,4,6}}+{combined}",
            },
        ),
        Recipe(
            "dg-app-i",
            f"{DG}, App. I",
            "pictures of CFG and CFG + DG for a blind study, and its raters' answers",
            "study",
            "pick-a-pic",
            {"cfg": "{cfg}", "cfg+dg": "{cfg_dg}"},
        ),
        Recipe(
            "fc-disruption",
            f"{FC}, abstract",
            "the k largest channels of every block zeroed, compared with the k lowest and k random ones",
            "collapse",
            "partiprompts",
        ),
        Recipe(
            "fc-segmentation",
            f"{FC}, abstract",
            "tokens clustered on the top, bottom and random channels of every block, against the subject's mask",
            "segmentation",
            "partiprompts",
        ),
    )
}


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
