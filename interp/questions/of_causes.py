"""What sets the channels, who writes them, where they are: options, results, tables and figures of these questions."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, figures
from interp.analysis.table import Along, Table, nothing, over_steps, shown
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, OneStream
from interp.questions.question import Draw, Question, Results

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Which stream, and the sets that are compared."""

    stream: OneStream = "image"
    k: Annotated[int, Doc("Channels of the overlap.")] = 8


ALIGNMENT = Table(
    ("target", "gate", "block"),
    {
        "target": "target",
        "block": "block",
        "gate": "gate",
        "correlation": "correlation",
        "interval": ("correlation_low", "correlation_high"),
        "another block's alpha": "other_block",
        "p (other blocks)": "p_other_block",
        "p (permutation)": "p_permutation",
        "overlap": "overlap",
        "chance": "chance",
        "rank of alpha at the largest channel": "alpha_rank",
    },
    keep=lambda one: one["correlation"].notnull(),
)


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Which channels, and what counts as negligible."""

    channels: Channels = None
    stream: OneStream = "image"
    margin: Annotated[float, Doc("A share surely below this is called negligible.")] = 0.05


def attribution_results(run: Run, asked: Attribution) -> Results:
    """Of the channels' size, and of alpha of every gate where gates are kept."""
    chosen = analysis.massive.channels_of(run, asked.channels, asked.stream)
    split = partial(analysis.attribution.decompose, run, chosen, stream=asked.stream, margin=asked.margin)
    gates = run.gates["gate"].to_numpy() if run.plan.get("record", {}).get("gates") else ()
    return {"attribution": split(), **{f"attribution_alpha_{gate}": split(quantity="alpha", gate=str(gate)) for gate in gates}}


def _negligible(one: xr.Dataset) -> bool | str:
    """Whether the prompt's terms are below the margin; unknown without an interval, which needs three prompt texts."""
    return bool(one["prompt_negligible"]) if one["any_prompt_high"].notnull() else "cannot tell"


ATTRIBUTION = Table(
    ("channel", "block"),
    {
        "block": "block",
        "channel": "channel",
        "terms": Along("term", {"{}": "share"}),
        "timestep interval": lambda one: [float(one[f"share_{end}"].sel(term="timestep")) for end in ("low", "high")],
        "any prompt": "any_prompt",
        "prompt interval": ("any_prompt_low", "any_prompt_high"),
        "prompt negligible": _negligible,
        "other channels' timestep": lambda one: float(one["ordinary"].sel(term="timestep")),
    },
    keep=lambda one: one["share"].notnull().any(),
)


@dataclasses.dataclass(frozen=True)
class Residual:
    """Which channels."""

    channels: Channels = None
    stream: OneStream = "image"


WRITERS = Table(
    ("channel", "writer"),
    {
        "channel": "channel",
        "writer": "writer",
        "contribution": "over_steps",
        "interval": ("over_steps_low", "over_steps_high"),
        "alpha": over_steps("alpha"),
        "branch": over_steps("branch"),
        "other channels' |contribution|": over_steps("ordinary"),
    },
)
BIRTHS = Table(
    ("channel",),
    {
        "channel": "channel",
        "born at block": "birth",
        "written most by": "largest_writer",
        "largest remainder (rounding)": lambda one: float(one["remainder"].max()),
    },
)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Which states are clustered, on which channels."""

    masks: Annotated[Path | None, Doc("Folder of true masks, NNNNN-mask.png by row.")] = None
    channels: Channels = None
    k: Annotated[int, Doc("Channels of each set that is compared with the masks.")] = 12
    steps: Annotated[str, Doc('Steps, such as "0,10,19"; -1 is the last one stored.')] = "-1"
    blocks: Blocks = None
    values: Annotated[str, Doc("magnitude (|x|) or signed.")] = "magnitude"


def segmentation_results(run: Run, asked: Segmentation) -> Results:
    """Clusters on the chosen channels, where there are any; with masks, the scores of sets of channels."""
    results: Results = {}
    where: dict[str, Any] = {"steps": asked.steps, "blocks": asked.blocks, "values": asked.values}
    try:
        chosen = analysis.massive.channels_of(run, asked.channels, "image")
    except InputError:
        if asked.masks is None or asked.channels is not None:
            raise
        chosen = []
    if chosen:
        results["segmentation"] = analysis.segmentation.masks(run, chosen, **where)
    if asked.masks is not None:
        truth = analysis.segmentation.read_masks(asked.masks, [int(row) for row in run.images["prompt"].to_numpy()])
        results["segmentation_score"] = analysis.segmentation.score(run, truth, k=asked.k, **where)
    return results


AREAS = Table(
    ("step", "block"),
    {"step": "step", "block": "block", "foreground, mean over prompts": lambda one: float(one["mask"].mean())},
)
SCORES = Table(
    ("strategy", "step", "block"),
    {
        "channels": "strategy",
        "step": "step",
        "block": "block",
        "IoU": "iou",
        "interval": ("iou_low", "iou_high"),
        "better side": "either",
        "its interval": ("either_low", "either_high"),
    },
)
TRIVIAL = Table(
    ("baseline",),
    {
        "channels": lambda one: f"none: {one['baseline'].item()}",
        "step": nothing,
        "block": nothing,
        "IoU": "trivial",
        "interval": nothing,
        "better side": nothing,
        "its interval": nothing,
    },
)
"""Masks that need no model, under `SCORES`."""


def segmentation_figures(run: Run, results: Results, asked: Segmentation) -> dict[str, Draw]:
    """Clusters over pictures, one heat map, and the overlap with the truth."""
    found: dict[str, Draw] = {}
    if "segmentation" in results:
        here = results["segmentation"]
        found["clusters"] = partial(figures.maps.clusters, here)
        found["heat"] = lambda: figures.maps.token_map(here["heat"].isel(prompt=0, step=-1, block=-1))
    if "segmentation_score" in results:
        found["overlap"] = partial(figures.maps.overlap, results["segmentation_score"])
    return found


QUESTIONS = (
    Question(
        "alignment",
        "Do channels of large alpha hold the large activations? Per block and gate, next to another block's alpha.",
        Alignment,
        lambda run, asked: {"alignment": analysis.alignment.compare(run, stream=asked.stream, k=asked.k)},
        {"alignment": ("alignment", ALIGNMENT)},
        lambda run, results, asked: {
            f"alignment_{target}": partial(figures.causes.alignment, results["alignment"], target=target)
            for target in analysis.alignment.TARGETS
        },
        ("alignment",),
    ),
    Question(
        "attribute",
        "Timestep or text: variance of a channel's size, and of its alpha, split into timestep, prompt, seed.",
        Attribution,
        attribution_results,
        {"{quantity}": ("attribution*", ATTRIBUTION)},
        lambda run, results, asked: {name: partial(figures.causes.attribution, found) for name, found in results.items()},
        ("attribution",),
    ),
    Question(
        "residual",
        "Which block writes a channel: embedding, and alpha x branch of every block, summed exactly (--record ...,branches).",
        Residual,
        lambda run, asked: {"residual": analysis.residual.decompose(run, asked.channels, stream=asked.stream)},
        {"residual": ("residual", WRITERS), "birth and largest writer": ("residual", BIRTHS)},
        lambda run, results, asked: {
            f"residual_{shown(channel)}": partial(figures.causes.residual, results["residual"], channel=int(channel))
            for channel in results["residual"]["channel"]
        },
    ),
    Question(
        "segment",
        "Cluster image tokens on few channels into fore- and background; with --masks, score that against the truth.",
        Segmentation,
        segmentation_results,
        {"segmentation": ("segmentation", AREAS), "IoU with the true masks": ("segmentation_score", SCORES + TRIVIAL)},
        segmentation_figures,
        ("segmentation",),
    ),
)
