"""What a scheduler does: its class, its config, and the values it uses that differ from them; and watching its steps."""

from __future__ import annotations

import contextlib
import copy
import dis
import functools
import inspect
import json
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from interp.base.errors import ModelError
from interp.models.values import Reader

TABLES = ("betas", "alphas", "alphas_cumprod")
"""A scheduler's tables of noise levels over training steps; runs may move them to another device."""


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """The scheduler's class and the values it uses: its config, with what was set on the object since (`set_shift`), and what
    differs from a fresh scheduler of that config.
    """
    if not hasattr(scheduler, "config"):
        raise ModelError(f"model: the pipeline's scheduler must be one of diffusers'; got {scheduler!r}")
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str, sort_keys=True))
    configured = {}
    for key in plain:
        for name in (f"_{key}", key):
            live = vars(scheduler).get(name)
            if isinstance(live, int | float | str) and live != plain[key]:
                configured[key], plain[key] = plain[key], live
    reader, fresh = Reader(), vars(type(scheduler).from_config(scheduler.config))
    empty = [name for name, value in fresh.items() if isinstance(value, list) and not any(one is not None for one in value)]
    filled = [name for name in empty if name not in plain]  # by runs
    changed, written = {}, {*written_by_runs(type(scheduler)), *filled, "_internal_dict"}
    for name, value in vars(scheduler).items():
        if name in TABLES or name not in written:
            live = Reader()
            described = live.describe(value, "scheduler")
            if name not in fresh or Reader().describe(fresh[name], "scheduler") != described:
                changed[name] = described
                reader.unverifiable += live.unverifiable
    methods = reader.class_of(type(scheduler), "scheduler")
    changed |= {"methods": methods} if isinstance(methods, list) else {}
    found = {"class": type(scheduler).__name__, **plain, **({"configured": configured} if configured else {})}
    found |= {"changed": changed} if changed else {}
    return {**found, "unverifiable": reader.unverifiable} if reader.unverifiable else found


def written_by_runs(kind: type) -> frozenset[str]:
    """Attributes that the methods of a scheduler's class write, other than when it is made."""
    values = [value for base in kind.__mro__ for value in vars(base).values()]
    methods = [value for value in values if isinstance(value, types.FunctionType) and value.__name__ != "__init__"]
    steps = [step for method in methods for step in dis.get_instructions(inspect.unwrap(method))]
    return frozenset(str(step.argval) for step in steps if step.opname == "STORE_ATTR")


class Watched:
    """A scheduler's `step` with something done around it. A copy of the scheduler, as a pipeline may make, has a plain one."""

    def __init__(self, step: Callable[..., Any], around: Callable[..., Any]) -> None:
        functools.update_wrapper(self, step, updated=())  # pipelines inspect its parameters
        self.step, self.around = step, around

    def __call__(self, *given: Any, **named: Any) -> Any:
        """One step."""
        return self.around(self.step, *given, **named)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self.step, memo)


@contextlib.contextmanager
def watched_steps(scheduler: Any, around: Callable[..., Any]) -> Iterator[None]:
    """Inside, a scheduler's `step` is `around(step, ...)`."""
    with patch.object(scheduler, "step", Watched(scheduler.step, around)):
        yield
