"""The questions alignment, attribute, residual and segment: options, results, tables and figures."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, figures
from interp.analysis.table import shown, table
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, OneStream
from interp.base.streams import GENERATED
from interp.questions.question import Draw, Question, Results

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The stream, and the size of the compared sets."""

    stream: OneStream = GENERATED
    k: Annotated[int, Doc("Channels of the overlap.")] = 8


@dataclasses.dataclass(frozen=True)
class Residual:
    """The channels."""

    channels: Channels = None
    stream: OneStream = GENERATED


@dataclasses.dataclass(frozen=True)
class Attribution(Residual):
    """The channels, and the margin of a negligible share."""

    margin: Annotated[float, Doc("A share is negligible if its interval is below this.")] = 0.05


def attribution_results(run: Run, asked: Attribution) -> Results:
    """Shares in the variance of the channels' size and, if gates are kept, of alpha of every gate."""
    chosen = analysis.massive.channels_of(run, asked.channels, asked.stream)
    split = partial(analysis.attribution.decompose, run, chosen, stream=asked.stream, margin=asked.margin)
    gates = run.gates["gate"].to_numpy() if run.plan.get("record", {}).get("gates") else ()
    return {"attribution": split(), **{f"attribution_alpha_{gate}": split(quantity="alpha", gate=str(gate)) for gate in gates}}


def _of_timestep(found: xr.Dataset) -> xr.Dataset:
    """The timestep's interval, and the verdict on the prompt, which needs an interval and so three prompt texts."""
    here = found.sel(term="timestep")
    known = found["any_prompt_high"].notnull()
    return found.assign(
        timestep_low=here["share_low"],
        timestep_high=here["share_high"],
        ordinary_timestep=here["ordinary"],
        prompt_negligible=found["prompt_negligible"].astype(object).where(known, "cannot tell"),
    )


def _over_steps(found: xr.Dataset) -> xr.Dataset:
    return found.assign({name: found[name].mean("step") for name in ("alpha", "branch", "ordinary")})


def _remainder(found: xr.Dataset) -> xr.Dataset:
    return found.assign(remainder=found["remainder"].max(("block", "step")))


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The clustered states, and their channels."""

    masks: Annotated[Path | None, Doc("Folder of true masks, NNNNN-mask.png by row.")] = None
    channels: Channels = None
    k: Annotated[int, Doc("Number of channels of each set that is compared with the masks.")] = 12
    steps: Annotated[str, Doc('Steps, such as "0,10,19"; -1 is the last one stored.')] = "-1"
    blocks: Blocks = None
    values: Annotated[str, Doc("magnitude (|x|) or signed.")] = "magnitude"
    frame: Annotated[int | None, Doc("Latent frame of a video. [default: the middle one, that of the stored picture]")] = None


def segmentation_results(run: Run, asked: Segmentation) -> Results:
    """Clusters on the chosen channels, where there are any; with masks, the scores of sets of channels."""
    results: Results = {}
    where: dict[str, Any] = {"steps": asked.steps, "blocks": asked.blocks, "values": asked.values, "frame": asked.frame}
    try:
        chosen = analysis.massive.channels_of(run, asked.channels, GENERATED)
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


WITHIN = ("prompt", "token_y", "token_x")
QUESTIONS = (
    Question(
        "alignment",
        "Correlate alpha and activations over channels, per block and gate, with another block's alpha as control.",
        Alignment,
        lambda run, asked: {"alignment": analysis.alignment.compare(run, stream=asked.stream, k=asked.k)},
        {"alignment": ("alignment", table("alignment"))},
        lambda run, results, asked: {
            f"alignment_{target}": partial(figures.causes.alignment, results["alignment"], target=target)
            for target in analysis.alignment.TARGETS
        },
        ("alignment",),
    ),
    Question(
        "attribute",
        "Split the variance of a channel's size, and of its alpha, into timestep, prompt and seed.",
        Attribution,
        attribution_results,
        {"{quantity}": ("attribution*", table("attribution", _of_timestep))},
        lambda run, results, asked: {name: partial(figures.causes.attribution, found) for name, found in results.items()},
        ("attribution",),
    ),
    Question(
        "residual",
        "Decompose a channel into the embedding and alpha x branch of every block (--record ...,branches).",
        Residual,
        lambda run, asked: {"residual": analysis.residual.decompose(run, asked.channels, stream=asked.stream)},
        {
            "residual": ("residual", table("writers", _over_steps)),
            "where it is written": ("residual", table("births", _remainder)),
        },
        lambda run, results, asked: {
            f"residual_{shown(channel)}": partial(figures.causes.residual, results["residual"], channel=int(channel))
            for channel in results["residual"]["channel"]
        },
    ),
    Question(
        "segment",
        "Cluster image tokens by few channels into fore- and background; with --masks, score the clusters against the truth.",
        Segmentation,
        segmentation_results,
        {
            "segmentation": ("segmentation", table("areas", lambda found: found.assign(foreground=found["mask"].mean(WITHIN)))),
            "IoU with the true masks": ("segmentation_score", table("overlap")),
        },
        segmentation_figures,
        ("segmentation",),
    ),
)
