"""The recorders of a plan, and the axes of its store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.base.errors import InputError, ModelError
from interp.base.plan import Plan, Row
from interp.base.site_recorder import SiteRecorder
from interp.base.sites import Site, resolve_indices
from interp.base.streams import CONDITIONING
from interp.models.anatomy import Anatomy
from interp.models.families.pipeline import Layout
from interp.store.schema import HiddenAxes, RecordedAxes, Schema, StreamAxes
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared
from interp.tracing.recorders import Array, HiddenRecorder, HiddenSink, OwnRecorder, Recorder
from interp.tracing.reductions import (
    BranchRecorder,
    FramesRecorder,
    GatesRecorder,
    StatisticsRecorder,
    gate_present,
    stream_present,
)


def make_recorders(prepared: Prepared, schema: Schema, rows: Sequence[Row], hidden: HiddenSink) -> list[Recorder]:
    """The recorders of a plan, for a batch of rows."""
    record, anatomy, batch = prepared.plan.record, prepared.model.anatomy, len(rows)
    steps, counted = len(prepared.schedule.timesteps), counted_tokens(prepared, [row.text for row in rows])
    recorders: list[Recorder] = []
    for stream in anatomy.stream_names:
        if record.stats:
            recorders.append(StatisticsRecorder(anatomy, stream, steps, counted))
        if record.frames and anatomy.stream(stream).in_frames:
            recorders.append(FramesRecorder(anatomy, stream, steps, prepared.layout.sizes[stream]))
        if record.gates:
            recorders.append(GatesRecorder(anatomy, stream, steps, schema.gate_kinds))
        if record.branches:
            position = _position(prepared) if stream == anatomy.generated.name else None
            recorders.append(BranchRecorder(anatomy, stream, steps, position, counted))
    for own in record.recorders:
        sites = [Site.parse(name) for name in schema.recorded[own.name].sites]
        recorders.append(OwnRecorder(own, sites, steps, batch))
    if schema.hidden:
        recorders.append(HiddenRecorder(schema.hidden, hidden))
    return recorders


def counted_tokens(prepared: Prepared, texts: list[str]) -> dict[str, Array]:
    """The tokens that count in statistics, by stream: (row, token) boolean. All of a stream's where it is left out."""
    model, record = prepared.model, prepared.plan.record
    find, texts_are = model.loaded.spec.own_tokens, [one.name for one in model.anatomy.streams if one.role == CONDITIONING]
    if record.padding or find is None or not texts_are or not (record.stats or record.branches):
        return {}
    own, count = find(model.pipe, texts, prepared.plan.settings), prepared.layout.tokens(texts_are[0])
    if own.shape[1] > count:
        raise ModelError(f"{model.name}: its tokenizers make {own.shape[1]} text tokens, its transformer takes {count}")
    return {texts_are[0]: np.concatenate([np.ones((len(own), count - own.shape[1]), bool), own], axis=1)}


def _position(prepared: Prepared) -> Array | None:
    """The position embedding of the generated tokens, (token, channel), where the model adds one."""
    model = prepared.model
    if model.anatomy.position is None:
        return None
    table = model.anatomy.position(model.pipe.transformer, prepared.layout.grid)
    return table.detach().float().cpu().numpy()


def make_schema(prepared: Prepared) -> Schema:
    """The axes of a run's store."""
    model, plan, layout, times = prepared.model, prepared.plan, prepared.layout, prepared.schedule
    anatomy, record, rows = model.anatomy, plan.record, plan.rows()
    kinds, counts = ("alpha", "shift", "scale") if record.modulation else ("alpha",), _token_counts(prepared)
    return Schema(
        prompt_text=tuple(row.text for row in rows),
        seed=tuple(row.seed for row in rows),
        timestep=times.timesteps,
        sigma=times.sigmas,
        block_path=tuple(block.path for block in anatomy.blocks),
        block_kind=tuple(block.kind for block in anatomy.blocks),
        gates=anatomy.gates,
        streams={name: _stream_axes(prepared, name, kinds, counts.get(name, ())) for name in anatomy.stream_names},
        image=(plan.height, plan.width),
        latents=layout.latents,
        latents_every_step=record.latents == "all",
        prediction=layout.prediction if record.prediction else (),
        statistics=record.stats,
        gate_kinds=kinds if record.gates else (),
        branches=record.branches,
        writers=anatomy.writers,
        frames=layout.frames,
        by_frame=_by_frame(prepared),
        hidden=_hidden_axes(model, plan, layout, len(times.timesteps)),
        recorded={own.name: _own_axes(own, anatomy) for own in record.recorders},
        bundle=record.bundle,
    )


def _by_frame(prepared: Prepared) -> bool:
    """Whether statistics of latent frames are kept; refused where no stream has frames."""
    streams = prepared.model.anatomy.streams
    if prepared.plan.record.frames and not any(stream.in_frames for stream in streams):
        here = ", ".join(f"{stream.name} ({', '.join(stream.axes or ('token',))})" for stream in streams)
        raise InputError(f"record.frames needs a stream with a frame axis; {prepared.model.name} has {here}: leave frames out")
    return prepared.plan.record.frames


def _stream_axes(prepared: Prepared, name: str, kinds: Sequence[str], counted: tuple[int, ...]) -> StreamAxes:
    """What a stream is in a run: its tokens, and where it has values."""
    anatomy = prepared.model.anatomy
    return StreamAxes(
        anatomy.stream(name),
        prepared.layout.sizes[name],
        stream_present(anatomy, name),
        {kind: gate_present(anatomy, name, kind) for kind in kinds},
        gate_present(anatomy, name, "branch"),
        counted,
    )


def _token_counts(prepared: Prepared) -> dict[str, tuple[int, ...]]:
    """How many tokens of each row count in statistics, by stream; streams of which all do are left out."""
    texts = [row.text for row in prepared.plan.rows()]
    different = list(dict.fromkeys(texts))
    found = {}
    for stream, counted in counted_tokens(prepared, different).items():
        counts = dict(zip(different, counted.sum(axis=1).tolist(), strict=True))
        found[stream] = tuple(counts[text] for text in texts)
    return found


def _own_axes(own: SiteRecorder, anatomy: Anatomy) -> RecordedAxes:
    sites = tuple(str(site) for site in anatomy.sites() if own.matches(site))
    if not sites:
        example = next(anatomy.sites())
        raise InputError(f"SiteRecorder {own.name}: no site matches {own.sites!r}; sites have names such as {example}")
    return RecordedAxes(sites, own.axes)


def _hidden_axes(model: Model, plan: Plan, layout: Layout, steps: int) -> dict[str, HiddenAxes]:
    select, anatomy = plan.record.select, model.anatomy
    if select is None:
        return {}
    wanted = anatomy.stream_names if select.streams is None else select.streams
    for stream in (one for one in wanted if one not in anatomy.stream_names):
        here = ", ".join(anatomy.stream_names)
        raise InputError(f"record.hidden selects the {stream} stream, which {model.name} does not have; it has {here}")
    blocks = resolve_indices(select.blocks, len(anatomy.blocks), "blocks")
    found = {}
    for stream in (stream for stream in anatomy.stream_names if stream in wanted):
        own = anatomy.stream(stream)
        present = tuple(block for block in blocks if stream in anatomy.blocks[block].hidden)
        if not present:
            continue
        found[stream] = HiddenAxes(
            steps=resolve_indices(select.steps, steps, "steps"),
            blocks=present,
            tokens=resolve_indices(select.tokens, layout.tokens(stream), f"tokens of the {stream} stream"),
            channels=resolve_indices(select.channels, own.width, "channels"),
            places=dict(zip(own.axes, layout.sizes[stream], strict=True)) if own.axes else {},
        )
    if not found:
        streams = " and ".join(wanted)
        raise InputError(f"record.hidden selects nothing: the {streams} stream does not leave block {blocks[-1]}; add blocks")
    return found
