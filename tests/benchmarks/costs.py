"""How the cost of a trace grows with blocks, channels, image tokens and prompts: random models of SD3's shape, one size
changed at a time. Exponents are slopes of log time against log size, with their standard error; 1 is proportional. "Added" is
what tracing adds to the plain pipeline.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Options, interval, said, shown, table, turns

import interp
from interp.models import tiny
from interp.testing import untraced
from interp.tracing.prepare import prepare

TITLE = "How the cost grows"
BASE = {"blocks": 6, "heads": 4, "head_width": 64, "resolution": 128}
STEPS = 4
AXES: dict[str, tuple[str, list[int]]] = {
    "blocks": ("blocks", [3, 6, 12]),
    "channels": ("heads", [2, 4, 8]),
    "image tokens": ("resolution", [64, 128, 192]),
    "prompts": ("prompts", [1, 2, 4]),
}


def measure(options: Options) -> dict[str, Any]:
    """Seconds by axis and size, and fitted exponents."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for axis, (field, values) in AXES.items():
            found[axis] = {}
            for value in values:
                shape = BASE if field == "prompts" else {**BASE, field: value}
                folder = Path(name) / "model"
                shutil.rmtree(folder, ignore_errors=True)
                source = tiny.build("sd3", folder, **shape)
                found[axis][_size(axis, value)] = _times(source, value if field == "prompts" else 2, Path(name), options)
            found[axis]["exponents"] = {
                which: _exponent({size: one[which]["median"] for size, one in found[axis].items()})
                for which in ("untraced", "traced", "added")
            }
    return {"base": BASE, "steps": STEPS, "rounds": options.rounds, "axes": found}


def _size(axis: str, value: int) -> int:
    return {"channels": value * BASE["head_width"], "image tokens": (value // 8) ** 2}.get(axis, value)


def _times(source: Path, prompts: int, folder: Path, options: Options) -> dict[str, Any]:
    bare, model = (interp.load(source, device=options.device, dtype=options.dtype) for _ in range(2))
    texts = [f"a red cat {number}" for number in range(prompts)]

    def traced() -> None:
        shutil.rmtree(folder / "run.zarr", ignore_errors=True)
        interp.trace(model, texts, out=folder / "run.zarr", steps=STEPS)

    def plain() -> None:
        for text in texts:
            untraced(bare, prepare(bare, [text], steps=STEPS))

    rounds = turns({"untraced": plain, "traced": traced}, options.rounds)
    times = {which: interval([one[which] for one in rounds]) for which in ("untraced", "traced")}
    return {**times, "added": interval([max(one["traced"] - one["untraced"], 1e-3) for one in rounds])}


def _exponent(times: dict[int, float]) -> dict[str, float]:
    size, time = np.log(list(times)), np.log(list(times.values()))
    (slope, _), covariance = np.polyfit(size, time, 1, cov="unscaled")
    residual = time - np.polyval(np.polyfit(size, time, 1), size)
    error = np.sqrt(covariance[0, 0] * residual @ residual / max(len(size) - 2, 1))
    return {"slope": round(float(slope), 2), "error": round(float(error), 2)}


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = []
    for axis, sizes in report["axes"].items():
        exponents = sizes["exponents"]
        measured = {size: one for size, one in sizes.items() if size != "exponents"}
        fitted = [f"{exponents[which]['slope']:g} ± {exponents[which]['error']:g}" for which in ("untraced", "traced", "added")]
        times = ", ".join(f"{size}: {shown(one['traced']['median'])}" for size, one in measured.items())
        rows.append([axis, *fitted, times])
    about = f"Base: {said(report['base'])}, 2 prompts x {report['steps']} steps, {report['rounds']} rounds."
    return about + "\n\n" + table(["", "untraced", "traced", "added", "seconds traced, by size"], rows)
