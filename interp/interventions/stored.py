"""Edits read back from JSON: `from_json(edit.to_json()) == edit`."""

from __future__ import annotations

from typing import Any

from interp.base.errors import InputError
from interp.interventions.conditioning import SwapConditioning
from interp.interventions.controls import Displace, DisplaceAsFar, NormsAsIfZero, ZeroNormsKept
from interp.interventions.edits import Add, Clamp, Replace, Scale, SetMean, SteerFrames, Transport, Zero
from interp.interventions.selection import Selection, Values

KINDS = (
    Zero,
    Scale,
    Add,
    Clamp,
    SetMean,
    Replace,
    Transport,
    SteerFrames,
    Displace,
    DisplaceAsFar,
    ZeroNormsKept,
    NormsAsIfZero,
)
EDITS: dict[str, type[Selection]] = {kind.__name__: kind for kind in KINDS}


def from_json(stored: dict[str, Any], values: Values | None = None, model: Any = None) -> Selection | SwapConditioning:
    """The inverse of `edit.to_json()`. The JSON holds digests of arrays: pass the arrays as `values`, or for a
    `SwapConditioning` the `model` that encodes its prompt again.
    """
    plain = dict(stored)
    kind = plain.pop("edit", None)
    if kind == SwapConditioning.__name__:
        if model is None:
            raise InputError("SwapConditioning needs the model that encodes its prompt; give from_json(..., model=model)")
        digest = plain.pop("digest")
        found = SwapConditioning.of(model, **plain)
        if found.digest != digest:
            raise InputError(f"SwapConditioning is of another model or setting: its digest is {digest}, here {found.digest}")
        return found
    if kind not in EDITS:
        raise InputError(f"edit must be one of {', '.join([*EDITS, SwapConditioning.__name__])}; got {kind!r}")
    noted = plain.pop("values", None)
    if noted is not None:
        if values is None or values.digest != noted["digest"]:
            got = "none" if values is None else values.digest
            raise InputError(f"{kind} needs its values again ({noted['source']}, digest {noted['digest']}); got {got}")
        plain["values"] = values
    return EDITS[kind](**plain)
