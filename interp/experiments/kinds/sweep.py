"""Sweeps over guidances: every sample under every setting, in one store. Detail Guidance, Fig. 8 (arXiv 2510.11538).

    sweep(model, prompts, ["none", "cfg:4", "cfg:4+dg:{0.5,1,2}:block={0,1,2}"], out="cache/sweep.zarr").run()

Braces are expanded to all combinations. The first setting is the baseline of all comparisons.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from interp import analysis, experiments
from interp.analysis.table import table
from interp.base.errors import InputError
from interp.base.options import Prompts
from interp.base.plan import as_json
from interp.experiments.arguments import Reference, pictures_of
from interp.experiments.kind import Figure, Kind, Request, Shown

if TYPE_CHECKING:
    import xarray as xr


NONE = "none"
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings to compare."""

    prompts: Prompts
    guidance: Annotated[
        Sequence[str],
        Doc('A setting; braces for several: "cfg:{1,2,4}+dg:{0.5,1}:block={0,1}"; repeat for more; the first is the baseline.'),
    ]
    reference: Reference = None


def design(request: Request) -> experiments.design.Drawing:
    """One arm per setting."""
    options: Options = request.options
    real = pictures_of(options.reference)
    expanded = [pair for text in options.guidance for pair in expand(text)]
    settings, values = [text for text, _ in expanded], [value for _, value in expanded]
    if len(set(settings)) != len(settings) or len(settings) < 2:
        raise InputError(f"guidance must be two or more different settings; got {settings}")
    prepared = [request.prepare(options.prompts, guided=True, guidance=None if text == NONE else text) for text in settings]
    as_json([one.plan.to_json() for one in prepared], "guidance")
    widest = max(len(value) for value in values)
    labels = [{f"value{n}": (v[n] if n < len(v) else "") for n in range(widest)} for v in values]
    arms = [experiments.draw.Arm(text, (), {"guidance": text, **label}) for text, label in zip(settings, labels, strict=True)]
    return request.drawing(
        dataclasses.replace(prepared[0], plan=dataclasses.replace(prepared[0].plan, guidance=None)),
        arms,
        {"guidance": [one.plan.to_json()["guidance"] for one in prepared]},
        lambda made: {"sweep": analysis.sweep_effects.compare(made, real)},
        units=lambda size: experiments.generation.BySettings(tuple(prepared), size),
    )


def expand(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Expand braces: every setting, and its values. "cfg:{1,2}" is cfg:1 and cfg:2."""
    choices = [[value.strip() for value in found.split(",")] for found in BRACES.findall(text)]
    if any(not value for values in choices for value in values):
        raise InputError(f"guidance: braces must hold values between commas, such as cfg:{{1,2,4}}; got {text!r}")
    found = []
    for values in itertools.product(*choices):
        remaining = iter(values)
        found.append((BRACES.sub(lambda match, remaining=remaining: next(remaining), text), tuple(values)))  # type: ignore[misc]
    return found


def _wins(one: xr.Dataset) -> xr.Dataset:
    """The wins of one measure; without them for measures that have none."""
    measure = str(one["measure"].item())
    return one.sel(won=measure) if measure in one["won"].to_numpy() else one.drop_dims("won")


sweep = Kind(
    "sweep",
    "Draw every prompt under every guidance setting, in one store, and compare each setting with the first.",
    Options,
    design,
    {"sweep": Shown("sweep", table("sweep", _wins), per="measure")},
    {"sweep": Figure("guidance.sweep", "sweep")},
    papers=("guidance",),
    page="guidance",
)
