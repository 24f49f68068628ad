"""Transport: inject a source's massive channels into the target's run, under a joint mask of channels and tokens.

Few Channels (arXiv 2605.13974): "inject source activations into the target stream under the joint channel and spatial mask".
The source is a prompt (prompt interpolation, here a sweep of strengths) or a picture, noised to each step (subject-driven). The
paper gives no layers, steps or formula: here x + strength (source - x) at the chosen blocks and steps. Controls are those of
`interp.experiments.moved`, and all channels as the upper bound. The edit acts at every block and step, so its effect is not
linear in the strength.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp import analysis, experiments, models
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Blocks, Channels, Indices, Numbers, Prompts
from interp.base.sites import Site, check_choice, select_indices
from interp.experiments.arguments import (
    CONTROLS,
    MOVED,
    RankedBy,
    Stored,
    check_begins_with_noise,
    numbers,
    pictures_of,
    prepare_pairs,
)
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    from torch import Tensor

    from interp.base.plan import Row
    from interp.store.schema import Array
    from interp.tracing.model import Model
    from interp.tracing.prepare import Prepared

SETS = (*MOVED, "all")
METRICS = ("picture", "structure", "latents")
MASKS = ("everywhere", "subject")


@dataclasses.dataclass(frozen=True)
class Options:
    """The sources and targets, the strengths, and the mask."""

    source: Annotated[Prompts, Doc("A prompts file: the runs that channels are taken from.")]
    target: Annotated[Prompts, Doc("A prompts file, paired with --source by line: the runs that are edited.")]
    pictures: Annotated[Stored, Doc("Folder of source pictures, sorted by name, one per line of --source.")] = None
    strengths: Annotated[Numbers, Doc("Strengths of the edit; 1 replaces the target's values.")] = (0.25, 0.5, 0.75, 1.0)
    mask: Annotated[str, Doc("everywhere, or subject (the source's foreground by its massive channels).")] = "everywhere"
    blocks: Blocks = None
    steps_moved: Annotated[Indices, Doc('Steps that are edited, such as "0-9". [default: all]')] = None
    channels: Channels = None
    run: RankedBy = None


@dataclasses.dataclass(frozen=True)
class Moves:
    """The states that are moved from the sources into the targets' runs."""

    source: Prepared
    pictures: Array | None
    """Source pictures, (row, y, x, rgb) uint8; `None` if the sources are prompts only."""
    ranked: experiments.ranking.Ranked
    control: tuple[int, ...]
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    mask: str

    def bind(self, row: Row, target: experiments.clean.Clean) -> experiments.draw.EditsOf:
        """The edits of one pair of samples."""
        stream = self.source.model.anatomy.generated.name
        sites = [Site(block, stream, "hidden") for block in self.blocks]
        keep = [(step, site) for step in self.steps for site in sites]
        theirs = self.source.plan.rows()[row.index]
        if self.pictures is None:
            source = experiments.clean.clean_run(self.source, theirs, keep)
        else:
            source = self._from_picture(theirs, target, sites)
        tokens = self._tokens(source.states[keep[-1]])

        @functools.cache
        def third() -> experiments.clean.Clean:
            other = experiments.moved.third_row(self.source.plan.rows(), theirs, row.text)
            assert other is not None  # `design` leaves the arm out where there is none
            return experiments.clean.clean_run(self.source, other, keep)

        whole = tuple(sorted(self.ranked.order))
        seed = self.source.plan.seed + row.index
        donors = experiments.moved.Donors(source, third, self.ranked.massive, self.control, seed)
        everything = dataclasses.replace(donors, massive=whole)

        def edits_of(arm: experiments.draw.Arm) -> Any:
            if arm.name in ("source", "target", analysis.patching.THIRD):
                return () if arm.name == "target" else source if arm.name == "source" else third()
            name, strength = arm.labels["channels"], float(arm.labels["strength"])
            if name == "all":
                return [everything.edit("massive", self.steps, self.blocks, tokens, strength, stream=stream)]
            return [donors.edit(name, self.steps, self.blocks, tokens, strength, stream=stream)]

        return edits_of

    def _tokens(self, state: Tensor) -> tuple[int, ...] | None:
        """The spatial mask: the source's foreground by its massive channels, at the last selected block and step."""
        if self.mask == "everywhere":
            return None
        foreground, _ = analysis.segmentation.cluster(abs(state[:, list(self.ranked.massive)].float().numpy()))
        if not foreground.any():
            raise InputError("mask: the massive channels show no subject in a source; use mask='everywhere'")
        return tuple(int(token) for token in foreground.nonzero()[0])

    def _from_picture(self, row: Row, target: experiments.clean.Clean, sites: list[Site]) -> experiments.clean.Clean:
        """States of a picture, noised to each step with the target's noise and conditioned on the source's prompt."""
        assert self.pictures is not None
        clean, name = experiments.clean, self.source.model.anatomy.row_inputs[0]
        latents = clean.encode(self.source, self.pictures[row.index])
        conditioned = clean.clean_run(self.source, row).calls
        start = target.calls.arguments[0][name]
        calls = [{**conditioned.arguments[step], name: clean.noised(self.source, latents, start, step)} for step in self.steps]
        found = clean.measure(self.source, calls, sites)
        states = {(step, site): here[site] for step, here in zip(self.steps, found, strict=True) for site in sites}
        return clean.Clean(row, conditioned, self.pictures[row.index], latents[0].float().cpu().numpy(), states)


def _sets(theirs: Sequence[Row], ours: Sequence[Row], pictures: Array | None) -> list[str]:
    """The edits; without that of a third prompt where there is none, and of pictures, whose latents are not a prompt's."""
    pairs = zip(theirs, ours, strict=True)
    third = pictures is None and all(experiments.moved.third_row(theirs, row, other.text) is not None for row, other in pairs)
    return [name for name in SETS if third or name != "third"]


def _stills(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for pictures as sources: one frame for a video model."""
    still = models.autoencoder.still_settings(model.pipe, model.loaded.spec)
    for name, value in still.items():
        if settings.get(name, value) != value:
            raise InputError(f"pictures: they have one frame; {name} must be {value}, got {settings[name]}")
    return {**settings, **still}


def design(request: Request) -> experiments.design.Drawing:
    """Arms: the target and the source, then every edit at every strength."""
    options: Options = request.options
    pictures = pictures_of(options.pictures, "pictures")
    changes: dict[str, Any] = {} if pictures is None else {"settings": _stills(request.model, request.settings())}
    theirs, ours = prepare_pairs(request, options.source, options.target, ("source", "target"), **changes)
    if pictures is not None:
        check_begins_with_noise(ours)
    strengths = numbers(options.strengths, "strengths")
    check_choice("mask", options.mask, MASKS)
    if not strengths or not all(math.isfinite(value) and value != 0 for value in strengths):
        raise InputError(f"strengths must be finite numbers other than 0 (0 is the target itself); got {strengths}")
    expected = (len(ours.plan.rows()), ours.plan.height, ours.plan.width, 3)
    if pictures is not None and pictures.shape != expected:
        raise InputError(f"pictures must be (row, y, x, rgb) = {expected}, one for each row; got {pictures.shape}")
    blocks = select_indices(options.blocks, len(ours.model.anatomy.blocks), "blocks")
    count = len(ours.schedule.timesteps)
    steps = select_indices(options.steps_moved, count, "steps_moved")
    ranked = request.rank(ours, options.channels)
    moves = Moves(theirs, pictures, ranked, ranked.random(ours.plan.seed), blocks, steps, options.mask)
    where = {"blocks": blocks, "steps": steps, "mask": options.mask}
    sets = _sets(theirs.plan.rows(), ours.plan.rows(), pictures)
    ends = ["target", "source", *([analysis.patching.THIRD] if "third" in sets else [])]
    arms = [experiments.draw.Arm(name, (), {"channels": name, "strength": 0.0}) for name in ends]
    for name, strength in itertools.product(sets, strengths):
        labels = {"channels": name, "strength": strength}
        said = {"edit": "Transport", "strength": strength, **where}
        arms.append(experiments.draw.Arm(f"{name} x {strength:g}", (), labels, said, (min(steps), min(blocks), 1)))
    parameters = {
        "source": [row.text for row in theirs.plan.rows()],
        "from": "prompts" if pictures is None else "pictures",
        "pictures": None if pictures is None else hashlib.sha256(pictures.tobytes()).hexdigest()[:16],
        "massive": ranked.massive,
        "control": moves.control,
        **where,
    }
    own = len(ours.plan.rows()) * (2 * count + (len(steps) if pictures is not None else 0))
    measure = lambda made: {"transport": analysis.patching.moved(made)}  # noqa: E731
    return request.drawing(ours, arms, parameters, measure, bind=moves.bind, further=float(own))


transport = Kind(
    "transport",
    "Inject a source's massive channels into the target's run, with controls, and measure how far the picture moves.",
    Options,
    design,
    {"transport": Shown("transport", table("transport"))},
    {"transport": Figure("effects.transport", "transport", {"metric": "{metric}"}, {"metric": METRICS})},
    papers=("transport",),
    controls={"channels": CONTROLS},
    ends=(0, 1),
)
