"""What pages show, each with the Python that makes it: a call that runs is the call that is printed.

Results that read every row are read from the store if present, computed at once if quick, else behind a button.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
import xarray as xr

import interp
from interp.analysis import criteria, sources
from interp.dashboard import cached_stores, panel
from interp.dashboard.pickers import plain
from interp.store.experiment import Experiment
from interp.store.traced_run import Run


@dataclasses.dataclass(frozen=True)
class Made:
    """A value, and the Python that makes it."""

    value: Any
    name: str
    """What stands for it in Python: the variable that the last line of the code sets, or an expression."""
    code: tuple[str, ...]
    path: Path
    """The store that it is of."""

    def named(self, name: str, text: str, value: Any) -> Made:
        """A further value, made by this text."""
        return dataclasses.replace(self, value=value, name=name, code=(*self.code, f"{name} = {text}"))

    def cached(self, text: str, work: Callable[[], Any], also: Any = None) -> Made:
        """`found`, made by this text, computed by `work` and cached until the store or `also` changes."""
        key = "\n".join((*self.code, text))
        return self.named("found", text, cached_stores.computed(self.path, key, (also,), work))

    def ask(self, function: str, *arguments: Any, **options: Any) -> Made:
        """`interp.FUNCTION(this value, ...)`, cached."""
        call = Call(function, (self, *arguments), options)
        return self.cached(str(call), call)

    def draw(
        self,
        key: str,
        figure: str,
        *arguments: Any,
        data: panel.Data | None = None,
        clicked: Callable[..., None] | None = None,
        height: int | None = None,
        **options: Any,
    ) -> None:
        """A panel with `interp.figures.FIGURE(this value, ...)`; its data is by default the value itself."""
        call = Call(f"figures.{figure}", (self, *arguments), options)
        shown = self.value if data is None else data
        panel.panel(key, call, shown, call.code, clicked=clicked, height=height)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a public function: to run, and as Python text."""

    function: str
    """Its dotted name without `interp.`."""
    arguments: Sequence[Any]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self) -> Any:
        """The function's value."""
        given = [one.value if isinstance(one, Made) else one for one in self.arguments]
        return operator.attrgetter(self.function)(interp)(*given, **self.options)

    def __str__(self) -> str:
        """The call alone."""
        given = [one.name if isinstance(one, Made) else repr(one) for one in self.arguments]
        given += [f"{name}={value!r}" for name, value in self.options.items()]
        return f"interp.{self.function}({', '.join(given)})"

    @property
    def code(self) -> list[str]:
        """The call, below the lines that make its arguments."""
        before = [line for one in self.arguments if isinstance(one, Made) for line in one.code]
        return [*dict.fromkeys(before), str(self)]


def opened(store: Run | Experiment) -> Made:
    """A store, opened in Python."""
    name = "experiment" if isinstance(store, Experiment) else "run"
    path = Path(store.path)
    return Made(store, name, ("import interp", "", f"{name} = interp.open_{name}({str(path)!r})"), path)


def result(
    run: Made, name: str, function: str, *, reads: float, stored: Mapping[str, Any] | None = None, **options: Any
) -> Made | None:
    """A result of a run by `interp.FUNCTION(run, **options)`, or `None` until a button is pressed.

    A stored one of this name is used if its attributes equal the options and those in `stored`. `reads` is in bytes.
    """
    found = _stored(run, name, {**options, **(stored or {})})
    return found or on_request(name, run, Call(function, (run,), options), reads)


def massive(run: Made, criterion: str = "robust") -> Made:
    """Massive channels: the stored result with intervals if present, else the summary's."""
    stored = _stored(run, "massive", {"steps": "all", "criterion": str(criteria.parse(criterion))})
    return stored or run.ask("glance.massive", criterion)


def _stored(run: Made, name: str, wanted: Mapping[str, Any]) -> Made | None:
    """A result that the store has, if it covers all rows and its attributes are those wanted."""
    if name not in run.value.results:
        return None
    found = cached_stores.computed(run.path, f"stored {name}", (), lambda: run.value.result(name))
    if not (current(run.value, found) and all(_fits(found, key, value) for key, value in wanted.items())):
        return None
    text = f"run.result({name!r})"
    if "channels" in wanted:
        text += f".sel(channel={wanted['channels']})"
        found = found.sel(channel=wanted["channels"])
    return run.named("found", text, found)


def on_request(name: str, of: Made, call: Call, reads: float, also: Any = None) -> Made | None:
    """The value of a call that reads so many bytes: at once if few, else when a button is pressed."""
    asked = (str(of.path), str(call))
    if reads > cached_stores.QUICK and asked not in st.session_state.setdefault("interp:asked", set()):
        text = f"Read {reads / 1e9:.1f} GB and compute (about {max(reads / cached_stores.SPEED, 1):.0f} s)"
        if not st.button(text, key=f"ask:{name}:{call}"):
            st.caption(f"{plain(name)} reads every row of the store. A result stored by the command line is shown at once.")
            return None
        st.session_state["interp:asked"].add(asked)
    return of.cached(str(call), call, also)


def current(run: Run, stored: xr.Dataset) -> bool:
    """Whether a stored result covers the rows that are done now."""
    return bool(stored.attrs.get("rows") == sources.facts_of(run)["rows"])


def _fits(stored: xr.Dataset, key: str, wanted: Any) -> bool:
    """Whether a stored result was made with this setting; channels may be in any order."""
    here = stored.attrs.get(key)
    if key == "channels":
        return here is not None and "channel" in stored.dims and set(wanted) == set(stored["channel"].to_numpy().tolist())
    return bool(np.array_equal(np.asarray(here), np.asarray(wanted)))


def consensus(found: Made, stream: str) -> tuple[list[int], int]:
    """The massive channels of a stream, largest first, and the channel with the largest score."""
    here = found.value.sel(stream=stream)
    score = here["score"].max("block").fillna(-np.inf).to_numpy()
    agreed = np.flatnonzero(here["consensus"].to_numpy())
    ordered = agreed[np.argsort(-score[agreed], kind="stable")]
    channels = here["channel"].to_numpy()
    return [int(channels[place]) for place in ordered], int(channels[int(score.argmax())])
