"""Known answers: random plants of every family, unplanted models, and rotated copies of the demo's states.

    python tests/campaigns/planted.py --plants 60 --nulls 60

Per plant: one tiny model, its whole population of 128 prompts traced (4 steps); the analyses see 24 of the prompts. Truth is
the plant's own; for the size's shares it is a plain analysis of variance of the whole population, written down again here. The
suite runs a short form of it (tests/test_known_answers.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import beta, ortho_group

import interp
from interp.base.errors import InterpWarning
from interp.models import tiny
from interp.models.quiet import quiet
from interp.testing import Planted, plant

FAMILIES = ("sd3", "flux", "dit")
SIZES: dict[str, Any] = {"heads": 4}  # 64 channels
SAMPLE = 24


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of one plant."""

    exact_set: bool
    birth: bool
    writer: bool
    alpha_share: bool
    size_share: bool


def choose(family: str, draw: np.random.Generator) -> dict[str, Any]:
    """A random plant: block, stream, gate, one to three channels, strength, timestep's share. In at least two blocks: one alone
    is no consensus. SD3's last block has no text.
    """
    blocks = 5 if family == "flux" else 4
    block = int(draw.integers(blocks - 1))
    single, last_text = family == "flux" and block >= 2, family == "sd3" and block == 2
    streams = ["image"] if family == "dit" or single or last_text else ["image", "text"]
    return {
        "block": block,
        "stream": str(draw.choice(streams)),
        "gate": "attn" if single else str(draw.choice(["attn", "mlp"])),
        "channels": tuple(int(c) for c in draw.choice(64, int(draw.integers(1, 4)), replace=False)),
        "strength": float(np.exp(draw.uniform(np.log(10), np.log(200)))),
        "timestep_share": float(draw.uniform(0.05, 0.95)),
    }


def judge(planted: Planted, folder: Path, seed: int, traced: int | None = None) -> Verdict:
    """Trace the population, analyse a sample of it, compare with what is true.

    With `traced`, only as many of its prompts are traced: the shares of the size are then no truth, all else is.
    """
    population = planted.population[:traced]
    record = interp.Record(branches=True)
    run = interp.trace(planted.model, population, out=folder / "run.zarr", batch_size=64, record=record)
    rows = np.sort(np.random.default_rng(seed).choice(len(population), min(SAMPLE, len(population)), replace=False))
    parts = [run.stats.drop_vars("present"), run.gates.drop_vars("present")]
    sample = xr.merge(parts, compat="override", join="exact").isel(prompt=rows).compute()
    found = interp.massive.find(sample, resamples=0)
    sets = {stream: found["channel"].to_numpy()[found["consensus"].sel(stream=stream)] for stream in run.stats.stream.values}
    wanted = {stream: planted.channels if stream in planted.streams else () for stream in sets}
    births = found["birth"].sel(stream=planted.streams[0], channel=list(planted.channels)).to_numpy()
    channel, stream = planted.channels[0], planted.streams[0]
    here: dict[str, Any] = {"stream": stream, "gate": planted.gate, "block": planted.block, "channel": channel}
    alpha = interp.attribution.decompose(sample, [channel], stream=stream, quantity="alpha", gate=planted.gate)
    size = interp.attribution.decompose(sample, [channel], stream=stream)
    written = interp.residual.decompose(run, list(planted.channels), stream=stream)
    truth = run.stats["mean_abs"].sel({k: v for k, v in here.items() if k != "gate"}).to_numpy().astype(np.float64)
    return Verdict(
        exact_set=all(tuple(sets[name]) == wanted[name] for name in sets),
        birth=bool((births == planted.block).all()),
        writer=all(name == f"block.{planted.block}/{planted.gate}" for name in written["largest_writer"].to_numpy()),
        alpha_share=inside(alpha, planted.block, planted.timestep_share),
        size_share=inside(size, planted.block, timestep_share(truth)),
    )


def timestep_share(values: np.ndarray[Any, Any]) -> float:
    """Share of the variance of (prompt, step) that the means per step explain: the whole population's, so uncorrected."""
    return float(values.mean(axis=0).var() / values.var())


def inside(found: xr.Dataset, block: int, truth: float) -> bool:
    """Whether the timestep's interval holds the truth."""
    here = found.sel(term="timestep", block=block).isel(channel=0)
    return bool(float(here["share_low"]) <= truth <= float(here["share_high"]))


def plants(family: str, count: int, first_seed: int = 0, traced: int | None = None) -> Iterator[Verdict]:
    """Random plants of one family."""
    for seed in range(first_seed, first_seed + count):
        draw = np.random.default_rng([seed, FAMILIES.index(family)])
        asked = choose(family, draw)
        with tempfile.TemporaryDirectory() as folder:
            verdict = judge(plant(family, seed=seed, **asked, **SIZES), Path(folder), seed, traced)
        if not all(dataclasses.astuple(verdict)):
            print(f"{family} seed {seed}: {asked} -> {verdict}", file=sys.stderr, flush=True)
        yield verdict


def unplanted(family: str, count: int, first_seed: int = 0) -> Iterator[bool]:
    """Whether any channel of an unplanted random model is called massive."""
    for seed in range(first_seed, first_seed + count):
        with quiet():
            pipe, defaults = tiny.make(family, seed=10_000 + seed, **SIZES)
        pipe.set_progress_bar_config(disable=True)
        model = interp.wrap(pipe)
        draw = np.random.default_rng(seed)
        words = [" ".join(draw.choice(tiny.WORDS, 4)) for _ in range(8)]
        prompts = [str(n) for n in range(8)] if family == "dit" else list(dict.fromkeys(words))
        size = {} if family == "dit" else {"height": 64, "width": 64}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run.zarr"
            run = interp.trace(model, prompts, out=out, batch_size=8, steps=4, settings=dict(defaults.settings), **size)
            yield bool(interp.massive.find(run, resamples=0)["consensus"].any())


def demo_states(folder: Path, prompts: int = 8, steps: int | None = None) -> dict[str, xr.DataArray]:
    """All hidden states of the demo model's own prompts."""
    texts = interp.read_prompts(Path(interp.models.__file__).parent / "demo" / "prompts.txt")[:prompts]
    given: dict[str, Any] = {} if steps is None else {"steps": steps}
    record = interp.Record(hidden=True)
    run = interp.trace("demo", texts, out=folder / "demo.zarr", record=record, batch_size=8, **given)
    return {stream: run.hidden[stream]["hidden"].load() for stream in ("image", "text")}


def rotated(states: dict[str, xr.DataArray], count: int, first_seed: int = 0) -> Iterator[bool]:
    """Whether any channel is called massive after a random rotation of the channels (one store: both streams)."""
    for seed in range(first_seed, first_seed + count):
        turn = ortho_group.rvs(states["image"].sizes["channel"], random_state=seed).astype(np.float32)
        yield alarm({stream: state.copy(data=state.to_numpy() @ turn) for stream, state in states.items()})


def alarm(states: dict[str, xr.DataArray]) -> bool:
    """Whether any channel of these hidden states is called massive."""
    found = False
    for stream, state in states.items():
        size = np.abs(state.to_numpy()).mean(axis=3)
        coordinates = {"block": state["block"].to_numpy(), "channel": np.arange(size.shape[-1])}
        dataset = xr.Dataset({"mean_abs": (("prompt", "step", "block", "channel"), size)}, coordinates)
        found |= bool(interp.massive.find(dataset.expand_dims(stream=[stream]), resamples=0)["consensus"].any())
    return found


def rate(hits: list[bool]) -> str:
    """A share with its exact 95% interval (Clopper and Pearson 1934)."""
    n, k = len(hits), sum(hits)
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k}/{n} = {k / n:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Run it and print the table of docs/findings.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--plants", type=int, default=60)
    arguments.add_argument("--nulls", type=int, default=60)
    given = arguments.parse_args()
    warnings.simplefilter("ignore", InterpWarning)
    started = time.monotonic()
    print("| family | exact set | birth block | writer | alpha's timestep share inside | size's timestep share inside |")
    print("|---|---|---|---|---|---|")
    for family in FAMILIES:
        verdicts = list(plants(family, given.plants))
        cells = [rate([getattr(verdict, field.name) for verdict in verdicts]) for field in dataclasses.fields(Verdict)]
        print(f"| {family} | {' | '.join(cells)} |", flush=True)
    print("\n| null | false alarms |\n|---|---|")
    for family in FAMILIES:
        print(f"| unplanted {family} | {rate(list(unplanted(family, given.nulls)))} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"| demo's states, rotated | {rate(list(rotated(demo_states(Path(folder)), given.nulls)))} |")
    print(json.dumps({"seconds": round(time.monotonic() - started)}))


if __name__ == "__main__":
    main()
