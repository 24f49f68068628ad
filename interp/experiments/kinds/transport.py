"""Transport: a source's massive channels put into the target's run under a joint mask of channels and place.

Few Channels (arXiv 2605.13974): "inject source activations into the target stream under the joint channel and spatial mask",
with a prompt as source (prompt interpolation, here a sweep of strengths), or a picture, noised to each step (subject-driven).
The paper says neither layers, steps nor formula: here x + strength (source - x) at the chosen blocks and steps. Beside the
massive channels, as many ordinary ones, and all channels: how far transport can go at all. The strength acts at every block and
step anew, so its effect is not linear in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, interventions, models
from interp.analysis.table import Table
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, Prompts
from interp.base.sites import Site, parse_indices, resolve_indices
from interp.experiments.arguments import RankedBy, check_pairs, numbers, pictures_of
from interp.experiments.kind import Kind, Request
from interp.experiments.shown import Figure, Shown

if TYPE_CHECKING:
    from interp.base.plan import Row
    from interp.experiments.clean import Clean
    from interp.experiments.design import Drawing
    from interp.experiments.draw import Arm, EditsOf
    from interp.experiments.ranking import Ranked
    from interp.store.schema import Array
    from interp.tracing.model import Model
    from interp.tracing.prepare import Prepared

SETS = ("massive", "control", "all")
METRICS = ("picture", "structure", "latents")
MASKS = ("everywhere", "subject")


@dataclasses.dataclass(frozen=True)
class Options:
    """From where to where, how far, and where in the model and the picture."""

    source: Annotated[Prompts, Doc("A prompts file: whose channels are taken.")]
    target: Annotated[Prompts, Doc("A prompts file, line by line the pairs of --source: whose run they are put into.")]
    pictures: Annotated[
        Any | str | Path | None,
        Doc("Folder of source pictures, by name in the order of the lines: sources instead of runs."),
    ] = None
    strengths: Annotated[Sequence[float] | str, Doc("How far to move, 1 replaces.")] = (0.25, 0.5, 0.75, 1.0)
    mask: Annotated[str, Doc("everywhere, or subject: the source's foreground by its massive channels.")] = "everywhere"
    blocks: Blocks = None
    steps_moved: Annotated[Sequence[int] | str | None, Doc('Steps in which to move, such as "0-9". [default: all]')] = None
    channels: Channels = None
    run: RankedBy = None


@dataclasses.dataclass(frozen=True)
class Moves:
    """What is put into the targets' runs."""

    source: Prepared
    pictures: Array | None
    """Source pictures, (row, y, x, rgb) uint8, where they are given instead of prompts alone."""
    ranked: Ranked
    control: tuple[int, ...]
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    mask: str

    def bind(self, row: Row, target: Clean) -> EditsOf:
        """The edits of a pair."""
        import numpy as np

        keep = [(step, Site(block, "image", "hidden")) for step in self.steps for block in self.blocks]
        theirs = self.source.plan.rows()[row.index]
        drawn = self.pictures is None
        source = experiments.clean.clean_run(self.source, theirs, keep) if drawn else self._from_picture(theirs, target, keep)
        states = np.stack(
            [[source.states[step, Site(b, "image", "hidden")].float().numpy() for b in self.blocks] for step in self.steps]
        )
        tokens = self._tokens(states)

        def edits_of(arm: Arm) -> Any:
            if arm.name in ("source", "target"):
                return source if arm.name == "source" else ()
            return [self._edit(states, arm.labels["channels"], tokens, float(arm.labels["strength"]), theirs)]

        return edits_of

    def _edit(self, states: Array, name: str, tokens: tuple[int, ...] | None, strength: float, row: Row) -> Any:
        named = {"massive": self.ranked.massive, "control": self.control}
        channels = named[name] if name in named else tuple(sorted(self.ranked.order))
        places = tuple(range(states.shape[2])) if tokens is None else tokens
        axes = {"step": self.steps, "block": self.blocks, "token": places, "channel": channels}
        array = states[:, :, list(places)][..., list(channels)]
        values = interventions.Values(array, axes, f"the source {row.text!r}, seed {row.seed}")
        where: dict[str, Any] = {"channels": channels, "blocks": self.blocks, "steps": self.steps, "tokens": tokens}
        return interventions.Transport(values, strength=strength, **where)

    def _tokens(self, states: Array) -> tuple[int, ...] | None:
        """The spatial mask: the source's foreground by its massive channels, at the last of the blocks and steps."""
        if self.mask == "everywhere":
            return None
        foreground, _ = analysis.segmentation.cluster(abs(states[-1, -1][:, list(self.ranked.massive)]))
        if not foreground.any():
            raise InputError("mask: the massive channels show no subject in a source; use mask='everywhere'")
        return tuple(int(token) for token in foreground.nonzero()[0])

    def _from_picture(self, row: Row, target: Clean, keep: list[tuple[int, Site]]) -> Clean:
        """A picture's states: noised to each step with the target's own noise, conditioned on the source's prompt."""
        import torch

        from interp.interventions.forks import Calls

        assert self.pictures is not None
        pipe, spec = self.source.model.pipe, self.source.model.loaded.spec
        picture = self.pictures[row.index]
        latents = models.autoencoder.encode(pipe, spec, torch.from_numpy(picture[None] / 255.0).float())
        conditioned = experiments.clean.clean_run(self.source, row).calls
        name = self.source.model.anatomy.row_inputs[0]
        start = target.calls.arguments[0][name]
        calls = []
        for step in self.steps:
            sigma = float(self.source.schedule.sigmas[step])
            level = models.noise.noised(self.source.layout.prediction, latents.to(start.dtype), start, sigma)
            calls.append({**conditioned.arguments[step], name: level})
        found = experiments.clean.measure(self.source, calls, sorted({site for _, site in keep}, key=str))
        states = {(step, site): state for step, sites in zip(self.steps, found, strict=True) for site, state in sites.items()}
        return experiments.clean.Clean(row, Calls(), picture, latents[0].float().cpu().numpy(), states)


def _stills(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for pictures as sources: one frame, of a model of videos."""
    still = models.autoencoder.still_settings(model.pipe, model.loaded.spec)
    for name, value in still.items():
        if settings.get(name, value) != value:
            raise InputError(f"pictures: they have one frame; {name} must be {value}, got {settings[name]}")
    return {**settings, **still}


def design(request: Request) -> Drawing:
    """The target and the source, then every set of channels at every strength."""
    options: Options = request.options
    pictures = pictures_of(options.pictures, "pictures")
    changes: dict[str, Any] = {} if pictures is None else {"settings": _stills(request.model, request.settings())}
    theirs, ours = request.prepare(options.source, **changes), request.prepare(options.target, **changes)
    check_pairs(theirs.plan.rows(), ours.plan.rows(), ("source", "target"))
    strengths = numbers(options.strengths, "strengths")
    if options.mask not in MASKS:
        raise InputError(f"mask must be one of {', '.join(MASKS)}; got {options.mask!r}")
    if not strengths or not all(math.isfinite(value) and value != 0 for value in strengths):
        raise InputError(f"strengths must be finite numbers other than 0 (0 is the target itself); got {strengths}")
    expected = (len(ours.plan.rows()), ours.plan.height, ours.plan.width, 3)
    if pictures is not None and pictures.shape != expected:
        raise InputError(f"pictures must be (row, y, x, rgb) = {expected}, one for each row; got {pictures.shape}")
    blocks = resolve_indices(parse_indices(options.blocks, "blocks"), len(ours.model.anatomy.blocks), "blocks")
    count = len(ours.schedule.timesteps)
    steps = resolve_indices(parse_indices(options.steps_moved, "steps_moved"), count, "steps_moved")
    ranked = request.rank(ours, options.channels)
    moves = Moves(theirs, pictures, ranked, ranked.random(ours.plan.seed), tuple(blocks), tuple(steps), options.mask)
    parameters = {
        "source": [row.text for row in theirs.plan.rows()],
        "from": "prompts" if pictures is None else "pictures",
        "pictures": None if pictures is None else hashlib.sha256(pictures.tobytes()).hexdigest()[:16],
        "massive": ranked.massive,
        "control": moves.control,
        "blocks": blocks,
        "steps": steps,
        "mask": options.mask,
    }
    own = len(ours.plan.rows()) * (count + (len(steps) if pictures is not None else 0))
    measure = lambda made: {"transport": analysis.patching.moved(made)}  # noqa: E731
    return request.drawing(ours, _arms(moves, strengths), parameters, measure, bind=moves.bind, further=float(own))


def _arms(moves: Moves, strengths: Sequence[float]) -> list[Arm]:
    place = min(moves.steps), min(moves.blocks), 1
    where = {"blocks": list(moves.blocks), "steps": list(moves.steps), "mask": moves.mask}
    ends = [experiments.draw.Arm(name, (), {"channels": name, "strength": 0.0}) for name in ("target", "source")]
    return ends + [
        experiments.draw.Arm(
            f"{name} x {strength:g}",
            (),
            {"channels": name, "strength": strength},
            {"edit": "Transport", "strength": strength, **where},
            place,
        )
        for name in SETS
        for strength in strengths
    ]


TABLE = Table(
    ("metric", "channels", "strength"),
    {
        "metric": "metric",
        "channels": "channels",
        "strength": "strength",
        "moved": "moved",
        "interval": ("moved_low", "moved_high"),
        "distance to source": "to_source",
        "distance to target": "to_target",
    },
)
transport = Kind(
    "transport",
    "Put a source's massive channels into the target's run, with control channels, and measure how far the picture moves.",
    Options,
    design,
    {"transport": Shown("transport", TABLE)},
    {"transport": Figure("effects.transport", "transport", {"metric": "{metric}"}, {"metric": METRICS})},
    papers=("transport",),
    controls={"channels": ("control",)},
    ends=(0, 1),
)
