"""What an experiment costs over the bare forwards that it needs: the transformer and the decoder called as often, and with as
many rows, as the arms need when steps shared with the clean run are drawn once; no pipeline, no edit, no store. Beside it,
what is left of the forwards that drawing every arm from its first step would take. A random model of SD3's shape (12 blocks,
512 channels).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Options, interval, ratio, shown, table, turns
from tracing import SHAPE

from interp.base.executor import Execution
from interp.base.plan import Record
from interp.experiments.clean import clean_run
from interp.experiments.design import Drawing
from interp.experiments.draw import Arm, ByArms
from interp.interventions import Zero, ZeroNormsKept
from interp.models import autoencoder, tiny
from interp.models.load import adopt
from interp.models.quiet import quiet
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

TITLE = "Experiments"
STEPS, SIZE, BLOCKS = 10, 8, SHAPE["blocks"]


def disruption() -> list[Arm]:
    """One block, all steps: what `interp disrupt` does."""
    arms = [Arm("original")]
    arms += [Arm(f"zero {n}", (Zero(channels=[n], blocks=4),)) for n in range(4)]
    return [*arms, Arm("norms kept", (ZeroNormsKept(channels=[0], blocks=4),))]


def grid() -> list[Arm]:
    """Blocks x windows of steps: the shape of `interp patch`."""
    windows = np.array_split(np.arange(STEPS), 3)
    edits = [(b, s, Zero(channels=[3], blocks=b, steps=[int(i) for i in s])) for s in windows for b in (1, 7)]
    return [Arm("original"), *(Arm(f"{b} {s[0]}", (edit,)) for b, s, edit in edits)]


def experiment(prepared: Prepared, arms: Sequence[Arm]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        design(prepared, arms, Path(folder) / "e.zarr").run()


def design(prepared: Prepared, arms: Sequence[Arm], out: Path) -> Drawing:
    own: dict[str, Any] = {"kind": "bench", "out": out, "parameters": {}, "execution": Execution(SIZE)}
    units = lambda size: ByArms(prepared, arms, size)  # noqa: E731
    return Drawing(prepared=prepared, arms=tuple(arms), units=units, measure=lambda made: {}, **own)


def bare(prepared: Prepared, arms: Sequence[Arm], arguments: dict[str, Any]) -> None:
    pipe, anatomy = prepared.model.pipe, prepared.model.anatomy
    latents = arguments[anatomy.row_inputs[0]]

    def forwards(rows: int) -> None:
        wide = {name: arguments[name].expand(rows, *arguments[name].shape[1:]) for name in anatomy.row_inputs}
        pipe.transformer(**{**arguments, **wide})

    def decode(rows: int) -> None:
        plan = prepared.plan
        autoencoder.decode(pipe, prepared.model.loaded.spec, latents.expand(rows, *latents.shape[1:]), plan.height, plan.width)

    with torch.no_grad(), quiet():
        for _ in range(STEPS):
            forwards(1)
        decode(1)
        for batch in ByArms(prepared, arms, SIZE).batches(range(len(arms))):
            starts = [place for number in batch if (place := arms[number].leaves) is not None]
            for step in range(STEPS):
                active = sum(place[0] < step for place in starts)
                forks = sorted((BLOCKS - block - part) / BLOCKS for begin, block, part in starts if begin == step)
                rows = active + (1 + round(sum(forks[:-1])) if forks else 0)  # the shared prefix, and the parts after forks
                if rows:
                    forwards(rows)
            if starts:
                decode(len(starts))


def measure(options: Options) -> dict[str, Any]:
    """An experiment's time over bare forwards, and its forwards over those of all arms."""
    with quiet():
        pipe, defaults = tiny.make("sd3", **SHAPE)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(options.device, getattr(torch, options.dtype))
    model = Model(adopt(pipe, "bench", defaults=defaults, device=options.device))
    prepared = prepare(model, ["a red cat"], steps=STEPS, record=Record(stats=False, gates=False))
    arguments = clean_run(prepared, prepared.plan.rows()[0]).calls.arguments[0]
    found: dict[str, Any] = {}
    for name, arms in (("disruption", disruption()), ("patch grid", grid())):
        works = {
            "experiment": lambda arms=arms: experiment(prepared, arms),
            "bare": lambda arms=arms: bare(prepared, arms, arguments),
        }
        rounds = turns(works, max(options.rounds // 2, 3))  # type: ignore[arg-type]
        found[name] = {
            "experiment / bare": ratio(rounds, "experiment", "bare"),
            "forwards / all steps of all arms": round(
                design(prepared, arms, Path("bench.zarr")).cost.forwards / (STEPS * len(arms)), 3
            ),
            "seconds": interval([one["experiment"] for one in rounds], 1),
        }
    return {"steps": STEPS, "rounds": max(options.rounds // 2, 3), "experiments": found}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = []
    for name, one in report["experiments"].items():
        value = one["experiment / bare"]
        verdict = "met" if value["high"] <= 1.1 else "met by the median" if value["median"] <= 1.1 else "**not met**"
        rows.append([name, shown(value), verdict, one["forwards / all steps of all arms"], shown(one["seconds"])])
    about = f"{report['steps']} steps, {report['rounds']} rounds."
    return about + "\n\n" + table(["", "experiment / bare", "target 1.10", "forwards over those of all arms", "seconds"], rows)
