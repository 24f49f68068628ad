"""Block lens: the picture that the model would draw if it stopped at a block, per block and step.

The output layer turns a block's output image state into a prediction. The prediction gives an estimate of the clean picture, x0
(not a step of the sampler), which the autoencoder decodes. Also with massive channels removed from the state. After the logit
lens (nostalgebraist 2020), for a model that outputs pictures.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Blocks, Indices, Prompts, Sampling
from interp.base.same_plan import same_weights
from interp.base.seeds import SHARED
from interp.base.sites import select_indices
from interp.experiments.arguments import RankedBy, Stored
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.store.traced_run import Run
    from interp.tracing.prepare import Prepared

WHOLE, WITHOUT = "whole", "without massive channels"


@dataclasses.dataclass(frozen=True)
class Options:
    """The runs: new ones of prompts, or a stored run with hidden states of every step and of the last block."""

    prompts: Annotated[Prompts | None, Doc("A prompts file: run the model on it.")] = None
    stored: Annotated[Stored, Doc("A traced store with all hidden image states, used instead of --prompts.")] = None
    blocks: Blocks = None
    steps_shown: Annotated[Indices, Doc('Steps, such as "0,5,-1". [default: all]')] = None
    without: Annotated[Indices, Doc('Channels removed for a second picture: "massive", "3,20" or "none".')] = "massive"
    run: RankedBy = None


def design(request: Request) -> experiments.design.Drawing:
    """Arms: the final picture, then every block and step, whole and without the removed channels."""
    options: Options = request.options
    kept = None if options.stored is None else experiments.ranking.opened(options.stored)
    if (kept is None) == (options.prompts is None):
        raise InputError("lens: give prompts to run the model, or stored=RUN to use its hidden states; not both")
    prepared = request.prepare(options.prompts or [], keep=True) if kept is None else _as_stored(request, kept)
    count, steps = len(prepared.model.anatomy.blocks), len(prepared.schedule.timesteps)
    wanted = select_indices(options.blocks, count, "blocks")
    shown = select_indices(options.steps_shown, steps, "steps_shown")
    removed: tuple[int, ...] = ()
    if options.without not in (None, "none"):
        channels = None if isinstance(options.without, str) and options.without == "massive" else options.without
        by = options.run if options.run is not None else kept
        removed = experiments.ranking.rank(prepared, request.out, channels=channels, run=by).massive
    arms = [experiments.draw.Arm("final", (), {"kind": "final", "block": -1, "step": -1})]
    for kind, step, block in itertools.product([WHOLE, WITHOUT] if removed else [WHOLE], shown, wanted):
        label = {"kind": kind, "block": block, "step": step}
        arms.append(experiments.draw.Arm(f"{kind}, block {block}, step {step}", (), label))
    return request.drawing(
        prepared,
        arms,
        {"without": removed, "stored": None if kept is None else str(kept.path.name)},
        lambda made: {"lens": analysis.patching.distances(made)},
        units=lambda size: experiments.head.Painted(prepared, arms, shown, wanted, removed, WITHOUT, kept),
    )


def _as_stored(request: Request, kept: Run) -> Prepared:
    """Prepare the stored run's plan again; a run that the lens cannot use raises InputError."""
    plan = kept.plan
    request.sampling.without(*(field.name for field in dataclasses.fields(Sampling)), why="the lens uses the stored run's")
    texts = list(dict.fromkeys(kept.prompts))
    settings = plan.get("settings") or None
    given = {name: plan[name] for name in ("steps", "seed", "repeats", "height", "width")}
    given["seeds"] = plan.get("seeds", SHARED)
    if kept.rows_done < kept.rows_total or len(texts) * plan["repeats"] != kept.rows_total:
        raise InputError(f"stored: {kept.path} must be complete and have every prompt once; resume its trace")
    if plan.get("interventions"):
        raise InputError(f"stored: {kept.path} was traced with interventions; the lens replays unedited runs")
    prepared = request.prepare(texts, keep=True, settings=settings, **given)
    if not same_weights(prepared.plan.to_json(), plan):
        raise InputError(f"stored: {kept.path} was traced with other weights than {prepared.model.name} has")
    states = kept.hidden
    last = len(prepared.model.anatomy.blocks) - 1
    drawn = prepared.model.anatomy.generated.name
    held = states[drawn]["hidden"] if drawn in states.children else None
    whole = held is not None and prepared.layout.tokens(drawn) == held.sizes["token"]
    if (
        held is None
        or not whole
        or held.sizes["step"] != len(prepared.schedule.timesteps)
        or last not in held["block"].to_numpy()
    ):
        raise InputError(f"stored: {kept.path} must keep every step, token and channel of the {drawn} stream, block {last} too")
    return prepared


def _ends(found: xr.Dataset) -> xr.Dataset:
    """The first, the middle and the last of the shown steps."""
    last = found.sizes["step"] - 1
    return found.isel(step=list(dict.fromkeys([0, (last + 1) // 2, last])))


lens = Kind(
    "lens",
    "Decode the picture that the model would draw if it stopped at a block, for every block and step.",
    Options,
    design,
    {"lens": Shown("lens", table("lens", _ends))},
    {
        "lens": Figure("drawn.lens", "lens", {"measure": "{measure}"}, {"measure": ("structure", "detail", "sharpness")}),
        "painted": Figure("drawn.lens_pictures", "", {"kind": WHOLE}),
    },
)
