"""Edits read back from JSON: `from_json(edit.to_json()) == edit`."""

from __future__ import annotations

from typing import Any

from interp.errors import InputError
from interp.interventions.controls import Displace, NormsAsIfZero, ZeroNormsKept
from interp.interventions.edits import Add, Clamp, Replace, Scale, SetMean, Transport, Zero
from interp.interventions.selection import Selection
from interp.interventions.values import Values

KINDS = (Zero, Scale, Add, Clamp, SetMean, Replace, Transport, Displace, ZeroNormsKept, NormsAsIfZero)
EDITS: dict[str, type[Selection]] = {kind.__name__: kind for kind in KINDS}


def from_json(stored: dict[str, Any], values: Values | None = None) -> Selection:
    """The inverse of `edit.to_json()`. Arrays are not in it, only their digest: give them as `values`."""
    plain = dict(stored)
    kind = plain.pop("edit", None)
    if kind not in EDITS:
        raise InputError(f"edit must be one of {', '.join(EDITS)}; got {kind!r}")
    noted = plain.pop("values", None)
    if noted is not None:
        if values is None or values.digest != noted["digest"]:
            got = "none" if values is None else values.digest
            raise InputError(f"{kind} needs its values again ({noted['source']}, digest {noted['digest']}); got {got}")
        plain["values"] = values
    return EDITS[kind](**plain)
