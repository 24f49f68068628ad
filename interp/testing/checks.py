"""Checks for your own models and machine: `check_anatomy(model)` and `selfcheck(model)`.

Each check compares a measured number with a limit. Nothing is stored. The traces of a model that passes are reliable.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.base.errors import PipelineError
from interp.base.plan import groups
from interp.models.anatomy import Tap
from interp.models.catalog import CATALOG, MassiveClaim
from interp.models.families.outputs import as_bytes, drawn, still
from interp.models.quiet import quiet
from interp.runs.recorded import make_schema
from interp.testing.block_records import recording, residual_error
from interp.testing.reference import Array
from interp.tracing.cache import Cache
from interp.tracing.group import pipeline_arguments
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

MASSIVE = 0.2  # a massive channel is at least five times the median one
ROUNDING = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}  # relative, of one block's sum


@dataclasses.dataclass(frozen=True)
class Check:
    """One measured number and whether it is within its limit."""

    name: str
    value: float
    limit: float
    about: str

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the limit."""
        return bool(np.isfinite(self.value) and self.value <= self.limit)


def check_anatomy(model: Model, prompts: Sequence[str] | None = None) -> list[Check]:
    """Check a model's anatomy on the model: the residual identity of every block and stream, the chain from block to block, and
    gates computed without running a block. It fails when two gates or the streams are swapped.
    """
    prepared = prepare(model, prompts or model.loaded.spec.examples, steps=2)
    try:
        _, cache = model.run_with_cache(list(prepared.plan.prompts), "*", steps=2)
    except (PipelineError, ValueError, RuntimeError, IndexError) as error:
        return [Check("sites can be read", float("inf"), 0.0, f"{type(error).__name__}: {error}")]
    limit = ROUNDING[model.loaded.dtype]
    residual, chain = _residual_error(model, cache), _chain_error(model, cache)
    remade = sum(block.remakes for block in model.anatomy.blocks)
    but = f"; not of the blocks that begin with a long skip ({remade})" if remade else ""
    return [
        Check("residual identity", residual, limit, f"hidden - input = sum of alpha x branch, relative to the update{but}"),
        Check("blocks follow each other", chain, 0.0, "a block's input is the last block's hidden"),
        Check("gates from conditioning alone", _compute_error(model, prepared), limit, "computed without running the block"),
    ]


def _residual_error(model: Model, cache: Cache) -> float:
    """Largest |hidden - input - sum alpha x branch| over blocks and streams, relative to the largest update there."""

    def read(kind: str, index: int, stream: str) -> Array:
        return cache[kind, index, stream].to_numpy().astype(np.float64)

    def branch(index: int, tap: Tap) -> Array:
        written = read(f"branch.{tap.gate}", index, tap.stream)
        return cache[f"alpha.{tap.gate}", index, tap.stream].to_numpy()[:, :, None] * written if tap.gated else written

    rounding = torch.finfo(getattr(torch, model.loaded.dtype)).eps
    return residual_error(model.anatomy, lambda *at: (read("input", *at), read("hidden", *at)), branch, rounding)


def _chain_error(model: Model, cache: Cache) -> float:
    errors = [0.0]
    for index, block in enumerate(model.anatomy.blocks[1:], start=1):
        for stream in block.state_inputs:
            name = f"block.{index - 1}/{stream}/hidden"
            if name in cache:
                before, after = cache[name].to_numpy(), cache["input", index, stream].to_numpy()
                errors.append(float(np.abs(before - after).max()) if before.shape == after.shape else float("inf"))
    return float(max(errors))


def _compute_error(model: Model, prepared: Prepared) -> float:
    """Largest relative difference between AdaLN values computed without running a block and those it used (plain hooks).

    They are computed from the block's inputs and, where the anatomy states what sets the gates, from the
    transformer's inputs.
    """
    errors = [0.0]
    transformer, conditioning = model.pipe.transformer, model.anatomy.conditioning
    with recording(transformer, model.anatomy) as (call, records):
        untraced(model, prepared)
    made = None
    with torch.no_grad():
        if conditioning is not None:
            names = (*conditioning.players.values(), *conditioning.further)
            given = {name: call["inputs"][name] for name in names}
            made = conditioning.inputs(transformer, {name: value for name, value in given.items() if value is not None})
        for index, (block, record) in enumerate(zip(model.anatomy.blocks, records, strict=True)):
            module = transformer.get_submodule(block.path)
            for modulation in block.modulations:
                used = record[modulation.name].float()
                found = [modulation.compute(module, record["inputs"]).float()]
                if conditioning is not None and made is not None:
                    found.append(modulation.compute(module, conditioning.of_block(made, index)).float())
                errors += [((one - used).abs().max() / used.abs().max().clamp_min(1e-30)).item() for one in found]
    return float(max(errors))


def untraced(model: Model, prepared: Prepared) -> Array:
    """Pictures of the plain pipeline, (prompt, y, x, rgb) uint8."""
    rows = prepared.plan.rows()
    with quiet():
        calls = [pipeline_arguments(model, prepared.plan, batch) for batch in groups(rows, prepared.together(len(rows)))]
        pictures = [picture for arguments in calls for picture in drawn(model.pipe(**arguments))]
    return as_bytes(np.stack([still(picture) for picture in pictures]))


@dataclasses.dataclass(frozen=True)
class Report:
    """Results of `selfcheck`."""

    checks: tuple[Check, ...]
    seconds_a_step: float
    """Seconds of the plain pipeline per step on this machine, one prompt at a time; one sample."""
    bytes_a_prompt: int
    """Bytes of statistics and gates at the model's default steps, before compression."""
    steps: int
    """The model's default."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def selfcheck(model: Model, prompts: Sequence[str] | None = None, *, steps: int = 2) -> Report:
    """Check a model on this machine: its anatomy, traced equals untraced, states and gates equal plain hooks, and
    the massive channels named by the paper, where the catalog lists some for this model.
    """
    prepared = prepare(model, prompts or model.loaded.spec.examples, steps=steps)
    plain = untraced(model, prepared)
    images, cache = model.run_with_cache(list(prepared.plan.prompts), ["*/hidden", "*/alpha.*"], steps=steps)
    difference = float(np.abs(images.to_numpy().astype(int) - plain.astype(int)).max())
    entry = CATALOG.get(model.name)
    checks = (
        *check_anatomy(model, prompts),
        Check("traced picture equals untraced", difference, 0.0, "levels of 255; the same to the bit"),
        Check("states equal plain hooks", _hook_error(model, prepared, cache), 0.0, "hidden and alpha of the first step"),
        *(check_claim(cache, claim) for claim in [entry and entry.massive] if claim),
    )
    usual = prepare(model, prepared.plan.prompts[:1])
    short, long = (_seconds(model, prepare(model, prepared.plan.prompts[:1], steps=count)) for count in (2, 6))
    seconds = max(long - short, 0.0) / 4  # excludes the text encoders and the VAE
    size = sum(variable.bytes for variable in make_schema(usual).variables().values())
    return Report(checks, seconds, size, usual.plan.steps)


def check_claim(cache: Cache, claim: MassiveClaim) -> Check:
    """Median channel over the smallest claimed channel, by mean |hidden| over prompts, steps and image tokens."""
    size = abs(cache["hidden", claim.block].astype(np.float64)).mean(("prompt", "step", "token")).to_numpy()
    named = ", ".join(str(channel) for channel in claim.channels)
    about = f"median channel over the smallest of {named}, block {claim.block}; {claim.source}"
    inside = max(claim.channels) < size.size
    value = float(np.median(size) / size[list(claim.channels)].min()) if inside else float("inf")
    return Check("named massive channels are massive", value, MASSIVE, about)


def _seconds(model: Model, prepared: Prepared) -> float:
    started = time.perf_counter()
    untraced(model, prepared)
    return time.perf_counter() - started


def _hook_error(model: Model, prepared: Prepared, cache: Cache) -> float:
    """Largest difference between the first step's traced hidden states and gates and those of plain hooks."""
    errors = []
    lengths = prepared.layout.lengths
    with recording(model.pipe.transformer, model.anatomy) as (_, records):
        untraced(model, prepared)
    for index, (block, record) in enumerate(zip(model.anatomy.blocks, records, strict=True)):
        seen: list[tuple[Any, Tensor]] = [
            (("hidden", index, stream), state)
            for stream, state in block.states(record["output"], block.in_rows(record["inputs"], lengths)).items()
        ]
        for modulation, number, site in block.chunk_sites(index):
            if site.kind == "alpha":
                seen.append((str(site), modulation.split(record[modulation.name])[number]))
        for site, value in seen:
            traced = cache[site].to_numpy()[: len(value), 0]  # of the first call's rows
            errors.append(float(np.abs(traced - value.float().cpu().numpy()).max()))
    return max(errors)
