"""Block lens: the picture the model would paint if it stopped at a block.

The image state that a block hands on goes through the output layer alone, gives a prediction, and with it an estimate of the
clean picture, x0 (not one step of the sampler), which the autoencoder decodes. Per block and step; also with massive channels
removed from that state. After the logit lens (nostalgebraist 2020), for a model whose output is a picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import Along, Table
from interp.base.errors import InputError
from interp.base.options import Blocks, Prompts, Sampling
from interp.base.plan import same_weights
from interp.base.sites import parse_indices, resolve_indices
from interp.experiments.arguments import RankedBy
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    import xarray as xr

    from interp.experiments.design import Drawing
    from interp.store.traced_run import Run
    from interp.tracing.prepare import Prepared

WHOLE, WITHOUT = "whole", "without massive channels"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is painted: live from prompts, or from a stored run's hidden states (every step, the last block too)."""

    prompts: Annotated[Prompts | None, Doc("A prompts file: run live.")] = None
    stored: Annotated[Any | str | Path | None, Doc("A traced store with all hidden image states: paint from those.")] = None
    blocks: Blocks = None
    steps_shown: Annotated[Sequence[int] | str | None, Doc('Steps, such as "0,5,-1". [default: all]')] = None
    without: Annotated[
        Sequence[int] | str | None, Doc('Channels removed for a second picture: "massive", "3,20" or "none".')
    ] = "massive"
    run: RankedBy = None


def design(request: Request) -> Drawing:
    """The final picture, then one for every block and step, whole and without the removed channels."""
    options: Options = request.options
    kept = _opened(options.stored)
    if (kept is None) == (options.prompts is None):
        raise InputError("lens: give prompts to run live, or stored=RUN to paint from its hidden states; not both")
    prepared = request.prepare(options.prompts or [], keep=True) if kept is None else _as_stored(request, kept)
    count, steps = len(prepared.model.anatomy.blocks), len(prepared.schedule.timesteps)
    wanted = resolve_indices(parse_indices(options.blocks, "blocks"), count, "blocks")
    shown = resolve_indices(parse_indices(options.steps_shown, "steps_shown"), steps, "steps_shown")
    removed: tuple[int, ...] = ()
    if options.without not in (None, "none"):
        channels = None if isinstance(options.without, str) and options.without == "massive" else options.without
        by = options.run if options.run is not None else kept
        removed = experiments.ranking.rank(prepared, request.out, channels=channels, run=by).massive
    labels = [{"kind": "final", "block": -1, "step": -1}] + [
        {"kind": kind, "block": block, "step": step}
        for kind in ([WHOLE, WITHOUT] if removed else [WHOLE])
        for step in shown
        for block in wanted
    ]
    arms = tuple(experiments.draw.Arm(_name(label), (), label) for label in labels)
    return experiments.design.Drawing(
        kind=request.kind,
        prepared=prepared,
        out=request.out,
        parameters={"without": removed, "stored": None if kept is None else str(kept.path.name)},
        execution=request.execution,
        arms=arms,
        units=lambda size: experiments.head.Painted(prepared, arms, shown, wanted, removed, WITHOUT, kept),
        measure=lambda made: {"lens": analysis.lens_distance.distances(made)},
    )


def _name(label: dict[str, Any]) -> str:
    return "final" if label["step"] < 0 else f"{label['kind']}, block {label['block']}, step {label['step']}"


def _opened(stored: Any) -> Run | None:
    from interp.store.traced_run import Run, open_run

    return stored if stored is None or isinstance(stored, Run) else open_run(stored)


def _as_stored(request: Request, kept: Run) -> Prepared:
    """The run's own plan, prepared again."""
    plan, unset = kept.plan, Sampling()
    for field in dataclasses.fields(unset):
        if getattr(request.sampling, field.name) != getattr(unset, field.name):
            raise InputError(f"lens: {field.name} is the stored run's; leave it out")
    texts = list(dict.fromkeys(kept.prompts))
    settings = plan.get("settings") or None
    given = {name: plan[name] for name in ("steps", "seed", "repeats", "height", "width")}
    if kept.rows_done < kept.rows_total or len(texts) * plan["repeats"] != kept.rows_total:
        raise InputError(f"stored: {kept.path} must be finished and name every prompt once; trace it to its end")
    if plan.get("interventions"):
        raise InputError(f"stored: {kept.path} was traced with interventions; the lens replays unedited runs")
    prepared = request.prepare(texts, keep=True, settings=settings, **given)
    if not same_weights(prepared.plan.to_json(), plan):
        raise InputError(f"stored: {kept.path} was traced with other weights than {prepared.model.name} has")
    states = kept.hidden
    last = len(prepared.model.anatomy.blocks) - 1
    held = states["image"]["hidden"] if "image" in states.children else None
    whole = held is not None and prepared.layout.tokens("image") == held.sizes["token"]
    if held is None or not whole or held.sizes["step"] != given["steps"] or last not in held["block"].to_numpy():
        raise InputError(f"stored: {kept.path} must keep every step, token and channel of the image stream, block {last} too")
    return prepared


def _ends(found: xr.Dataset) -> list[int]:
    """The first, the middle and the last step shown."""
    last = found.sizes["step"] - 1
    return list(dict.fromkeys([0, (last + 1) // 2, last]))


TABLE = Table(
    ("kind", "measure", "block"),
    {
        "state": "kind",
        "measure": "measure",
        "block": "block",
        "steps": Along("step", {"step {}": "value", "interval {}": ("low", "high")}, _ends),
    },
)
lens = Kind(
    "lens",
    "Paint the picture that the model would draw if it stopped at a block, for every block and step.",
    Options,
    design,
    {"lens": Shown("lens", TABLE)},
    {
        "lens": Figure("drawn.lens", "lens", {"measure": "{measure}"}, {"measure": ("structure", "detail", "sharpness")}),
        "painted": Figure("drawn.lens_pictures", "", {"kind": WHOLE}),
    },
)
