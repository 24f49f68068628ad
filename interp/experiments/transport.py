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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.analysis import segmentation
from interp.analysis import transport as analysis
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.choose import Ranked, rank
from interp.experiments.clean import Clean, clean_run, measure
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, cost, draw
from interp.experiments.patch import check_pairs
from interp.interventions.edits import Transport as Move
from interp.interventions.rows import Calls
from interp.interventions.values import Values
from interp.models import autoencoder, noise
from interp.plan import Record, Row, as_json
from interp.sites import Site, parse_indices, resolve_indices
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model, load
from interp.tracing.prepare import Prepared, prepare

SETS = ("massive", "control", "all")
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
MASKS = ("everywhere", "subject")


@dataclasses.dataclass(frozen=True)
class Transported:
    """A transport that is ready to be drawn."""

    target: Prepared
    source: Prepared
    pictures: Any
    """Source pictures, (row, y, x, rgb) uint8, where they are given instead of prompts alone."""
    out: Path
    arms: tuple[Arm, ...]
    ranked: Ranked
    blocks: tuple[int, ...]
    steps: tuple[int, ...]
    mask: str
    parameters: dict[str, Any]

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row; the sources' runs are among them."""
        found = cost(self.target, self.arms)
        own = len(self.target.schedule.timesteps) + (len(self.steps) if self.pictures is not None else 0)
        return {**found, "forwards": found["forwards"] + len(self.target.plan.rows()) * own}

    def run(
        self,
        *,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing and keep the result `transport` in the store."""
        drawn = draw(
            self.target,
            self.arms,
            experiment="transport",
            parameters=self.parameters,
            out=self.out,
            bind=self._bind,
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        write_result(drawn.path, "transport", analysis.similarity(drawn))
        return drawn

    def channels_of(self, name: str) -> tuple[int, ...]:
        """The channels of a set."""
        if name == "control":
            return self.ranked.random(self.target.plan.seed)
        return self.ranked.massive if name == "massive" else tuple(sorted(self.ranked.order))

    def _bind(self, row: Row, target: Clean) -> Any:
        keep = [(step, Site(block, "image", "hidden")) for step in self.steps for block in self.blocks]
        theirs = self.source.plan.rows()[row.index]
        source = clean_run(self.source, theirs, keep) if self.pictures is None else self._from_picture(theirs, target, keep)
        states = np.stack(
            [[source.states[step, Site(b, "image", "hidden")].float().numpy() for b in self.blocks] for step in self.steps]
        )
        tokens = self._tokens(states)

        def edits_of(arm: Arm) -> Any:
            if arm.name == "source":
                return source
            if arm.name == "target":
                return ()
            channels = self.channels_of(arm.labels["channels"])
            return [self._edit(states, channels, tokens, float(arm.labels["strength"]), theirs)]

        return edits_of

    def _edit(self, states: Any, channels: tuple[int, ...], tokens: tuple[int, ...] | None, strength: float, row: Row) -> Move:
        places = tuple(range(states.shape[2])) if tokens is None else tokens
        axes = {"step": self.steps, "block": self.blocks, "token": places, "channel": channels}
        array = states[:, :, list(places)][..., list(channels)]
        values = Values(array, axes, f"the source {row.text!r}, seed {row.seed}")
        where: dict[str, Any] = {"channels": channels, "blocks": self.blocks, "steps": self.steps, "tokens": tokens}
        return Move(values, strength=strength, **where)

    def _tokens(self, states: Any) -> tuple[int, ...] | None:
        """The spatial mask: the source's foreground by its massive channels, at the last of the blocks and steps."""
        if self.mask == "everywhere":
            return None
        foreground, _ = segmentation.cluster(np.abs(states[-1, -1][:, list(self.ranked.massive)]))
        if not foreground.any():
            raise InputError("mask: the massive channels show no subject in a source; use mask='everywhere'")
        return tuple(int(token) for token in np.flatnonzero(foreground))

    def _from_picture(self, row: Row, target: Clean, keep: list[tuple[int, Site]]) -> Clean:
        """A picture's states: noised to each step with the target's own noise, and told the source's prompt."""
        pipe, spec = self.source.model.pipe, self.source.model.loaded.spec
        picture = self.pictures[row.index]
        latents = autoencoder.encode(pipe, spec, torch.from_numpy(picture[None] / 255.0).float())
        told = clean_run(self.source, row).calls
        name = self.source.model.anatomy.row_inputs[0]
        start = target.calls.arguments[0][name]
        calls = []
        for step in self.steps:
            sigma = float(self.source.schedule.sigmas[step])
            level = noise.noised(self.source.layout.prediction, latents.to(start.dtype), start, sigma)
            calls.append({**told.arguments[step], name: level})
        found = measure(self.source, calls, sorted({site for _, site in keep}, key=str))
        states = {(step, site): state for step, sites in zip(self.steps, found, strict=True) for site, state in sites.items()}
        return Clean(row, Calls(), picture, latents[0].float().cpu().numpy(), states)


def _stills(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for pictures as sources: one frame, of a model of videos."""
    still = autoencoder.still_settings(model.pipe, model.loaded.spec)
    for name, value in still.items():
        if settings.get(name, value) != value:
            raise InputError(f"pictures: they have one frame; {name} must be {value}, got {settings[name]}")
    return {**settings, **still}


def transport(
    model: Model | str | Path,
    source: Sequence[str] | str | Path,
    target: Sequence[str] | str | Path,
    *,
    out: str | Path,
    pictures: Any = None,
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    blocks: Sequence[int] | str | None = None,
    steps_moved: Sequence[int] | str | None = None,
    strengths: Sequence[float] = STRENGTHS,
    mask: str = "everywhere",
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> Transported:
    """Prepare a transport over pairs of prompts: `transport(...).run()` draws it.

    `pictures`, (row, y, x, rgb) uint8, are the sources themselves; `source` then says what is in them. `mask` is everywhere, or
    subject: the source's foreground by its own massive channels. `blocks` and `steps_moved` are all by default.
    """
    model = model if isinstance(model, Model) else load(model)
    arguments = {"record": Record(stats=False, gates=False), **arguments}
    if pictures is not None:
        arguments["settings"] = _stills(model, arguments.get("settings") or {})
    theirs, ours = prepare(model, source, **arguments), prepare(model, target, **arguments)
    check_pairs(theirs.plan.rows(), ours.plan.rows(), ("source", "target"))
    if mask not in MASKS:
        raise InputError(f"mask must be one of {', '.join(MASKS)}; got {mask!r}")
    if not strengths or not all(np.isfinite(value) and value != 0 for value in strengths):
        raise InputError(f"strengths must be finite numbers other than 0 (0 is the target itself); got {list(strengths)}")
    expected = (len(ours.plan.rows()), ours.plan.height, ours.plan.width, 3)
    if pictures is not None and tuple(np.shape(pictures)) != expected:
        raise InputError(f"pictures must be (row, y, x, rgb) = {expected}, one for each row; got {np.shape(pictures)}")
    wanted = resolve_indices(parse_indices(blocks, "blocks"), len(model.anatomy.blocks), "blocks")
    steps = resolve_indices(parse_indices(steps_moved, "steps_moved"), len(ours.schedule.timesteps), "steps_moved")
    ranked = rank(ours, located(out), channels=channels, run=run, batch_size=batch_size)
    place = min(steps), min(wanted), 1
    arms = [Arm(name, (), {"channels": name, "strength": 0.0}) for name in ("target", "source")]
    arms += [
        Arm(
            f"{name} x {strength:g}",
            (),
            {"channels": name, "strength": float(strength)},
            {"edit": "Transport", "strength": float(strength), "blocks": list(wanted), "steps": list(steps), "mask": mask},
            place,
        )
        for name in SETS
        for strength in strengths
    ]
    parameters = {
        "source": [row.text for row in theirs.plan.rows()],
        "from": "prompts" if pictures is None else "pictures",
        "pictures": None if pictures is None else hashlib.sha256(np.ascontiguousarray(pictures).tobytes()).hexdigest()[:16],
        "massive": ranked.massive,
        "control": ranked.random(ours.plan.seed),
        "blocks": wanted,
        "steps": steps,
        "mask": mask,
    }
    given = (tuple(arms), ranked, tuple(wanted), tuple(steps), mask, as_json(parameters, "parameters"))
    return Transported(ours, theirs, pictures, located(out), *given)
