"""Compare two plans: whether rows of one may join a store of the other, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interp.base.errors import PlanError

EVERY = 2  # streams in the plans of earlier versions that select all
DIGEST = "sha256"
"""In a plan, what identifies a picture, wherever its file is."""
LATER = ("sampled", "state")  # fields that stores of earlier versions lack


def same_weights(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether two plans' fingerprints of weights agree: both full, or both of a sample where one has no other."""
    return wanted.get("weights") == stored.get("weights") or wanted.get("sampled", "?") == stored.get("weights")


def check_same(wanted: Mapping[str, Any], stored: Mapping[str, Any], store: str) -> None:
    """Raise PlanError if a store has another plan, naming the first field that differs.

    The model's name may differ (a folder has many spellings); its weights may not.
    """
    wanted = _comparable(wanted, stored)
    for field in dict.fromkeys([*wanted, *stored]):
        if field != "model" and wanted.get(field) != stored.get(field):
            place, yours, its = difference(field, wanted.get(field), stored.get(field))
            raise PlanError(
                f"{store} holds another run: its {place} is {_short(its)}, yours {_short(yours)}; "
                "give another --out, or delete the store, or use the same arguments"
            )


def _comparable(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies the model, and those of its guidance, in the terms of the store: without fields that it lacks."""
    found = dict(wanted)
    if "weights" in wanted and same_weights(wanted, stored):
        found |= {name: stored[name] for name in ("weights", "sampled") if name in stored}
    found = {name: value for name, value in found.items() if name not in LATER or name in stored}
    if isinstance(found.get("settings"), Mapping) and isinstance(stored.get("settings"), Mapping):
        found["settings"] = {name: _same_picture(one, stored["settings"].get(name)) for name, one in found["settings"].items()}
    states, others = (_hidden(plan) for plan in (found, stored))
    if states and others and states["streams"] is None and len(others["streams"] or ()) == EVERY:
        found["record"] = {**found["record"], "hidden": {**states, "streams": others["streams"]}}
    methods, others = found.get("guidance"), stored.get("guidance")
    if isinstance(methods, list) and isinstance(others, list) and len(methods) == len(others):
        found["guidance"] = [_comparable(method, other) for method, other in zip(methods, others, strict=True)]
    return found


def _same_picture(wanted: Any, stored: Any) -> Any:
    """A setting, where both are pictures at the place of the store's: their content alone must be equal."""
    both = isinstance(wanted, Mapping) and isinstance(stored, Mapping) and DIGEST in wanted and DIGEST in stored
    return {**stored, DIGEST: wanted[DIGEST]} if both else wanted


def _hidden(plan: Mapping[str, Any]) -> Any:
    """The selection of hidden states."""
    record = plan.get("record")
    return record.get("hidden") if isinstance(record, Mapping) else None


def unverifiable(plan: Mapping[str, Any]) -> list[str]:
    """What of a pipeline cannot be described, so that a change of it would go unseen."""
    state = plan.get("state", {})
    return [
        name for part in (state, plan.get("scheduler", {}), state.get("recorders", {})) for name in part.get("unverifiable", [])
    ]


def check_verifiable(plan: Mapping[str, Any], store: str) -> None:
    """Raise PlanError if rows of this plan cannot be known to be those that a store holds."""
    unknown = unverifiable(plan)
    if unknown:
        raise PlanError(
            f"{store} cannot be continued: {unknown[0]} cannot be compared with the one that its rows were drawn with; "
            "use a plain function that holds no objects, or give another --out"
        )


def difference(place: str, wanted: Any, stored: Any) -> tuple[str, Any, Any]:
    """The first place inside two values that differs: its dotted name, and both values there."""
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        for name in dict.fromkeys([*wanted, *stored]):
            if wanted.get(name) != stored.get(name):
                return difference(f"{place}.{name}", wanted.get(name), stored.get(name))
    return place, wanted, stored


def _short(value: Any, limit: int = 120) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."
