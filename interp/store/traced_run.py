"""A store opened for reading: `Run`. Needs no torch and no model."""

from __future__ import annotations

import functools
import html
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from interp.base.errors import StoreError
from interp.base.streams import Stream, find_stream
from interp.store.failures import failures
from interp.store.reader import StoreReader
from interp.store.saved_results import Described
from interp.store.summary import joined_summary, summarise

WHAT = {
    "stats": "statistics over tokens; record=Record(stats=True) keeps them",
    "gates": "AdaLN gates; record=Record(gates=True) keeps them, where the model has any",
    "branches": "branches; record=Record(branches=True) keeps them (--record stats,gates,branches)",
    "hidden": "hidden states; record=Record(hidden=True) keeps them (--record stats,gates,hidden)",
    "frames": "statistics of latent frames; record=Record(frames=True) keeps them, of a video (--record stats,gates,frames)",
}


class Run(Described):
    """A traced run. Everything is lazy xarray and holds done rows only.

    run.stats      mean, mean_abs, max_abs, min_abs, var    (prompt, step, block, stream, channel)
    run.gates      alpha [shift, scale]                     (prompt, step, block, stream, gate, channel)
    run.branches   branch                                   (prompt, step, block, stream, gate, channel); embedding
    run.hidden     a DataTree: run.hidden["image"]["hidden"] (prompt, step, block, token, channel), and ["text"]
    run.frames     a DataTree: run.frames["image"], statistics of latent frames (prompt, step, block, frame, channel)
    run.images     image (prompt, y, x, rgb) uint8 and latents
    run.summary    mean and variance over prompts           (moment, step, block, stream, ..., channel)
    run.result(NAME)  the result of an analysis; run.results lists the names
    run.data       everything as one DataTree

    Streams of different widths: channels that a stream lacks are NaN; run.of_stream("stats", "text") has its own alone.
    Coordinates: prompt_text and seed per prompt; timestep and sigma per step; block_path and block_kind per block.
    """

    def __init__(self, path: str | Path) -> None:
        self._reader = StoreReader(path)
        self.path, self.attributes = self._reader.path, self._reader.attributes
        self.rows_total = int(self._reader.done.size)
        """Number of rows in the plan."""
        self.rows_done = int(self._reader.done.sum())
        """Number of complete rows; other rows are not read."""
        self.bundled = "bundles" in self._reader
        """Whether only means and variances over bundles of prompts are kept (`--record summary`)."""

    @property
    def failed(self) -> dict[int, str]:
        """Failed rows and their reasons; `--retry-failed` tries them again."""
        return failures(self.path)

    @property
    def prompts(self) -> list[str]:
        """The texts of the done rows."""
        return [str(text) for text, done in zip(self._reader.prompt_text, self._reader.done, strict=True) if done]

    @functools.cached_property
    def stats(self) -> xr.Dataset:
        """Statistics over tokens, (prompt, step, block, stream, channel)."""
        return self._joined("stats")

    @functools.cached_property
    def gates(self) -> xr.Dataset:
        """AdaLN alpha (and shift, scale), (prompt, step, block, stream, gate, channel)."""
        return self._joined("gates")

    @functools.cached_property
    def branches(self) -> xr.Dataset:
        """Branch outputs before alpha multiplies them, as means over tokens; the embedding and its positional part."""
        return self._joined("branches")

    @functools.cached_property
    def hidden(self) -> xr.DataTree:
        """Selected hidden states, one child per stream."""
        return self._by_stream("hidden")

    @functools.cached_property
    def frames(self) -> xr.DataTree:
        """Statistics over the tokens of every latent frame of a video, one child per stream that has frames."""
        return self._by_stream("frames")

    def _by_stream(self, group: str) -> xr.DataTree:
        self._need(group)
        streams = [stream.name for stream in self.streams if f"{group}/{stream.name}" in self._reader]
        return xr.DataTree.from_dict({stream: self._reader.dataset(f"{group}/{stream}") for stream in streams})

    @functools.cached_property
    def recorded(self) -> xr.DataTree:
        """Values of your own recorders: run.recorded[NAME]["value"], (prompt, step, site, ...)."""
        own = self.plan.get("record", {}).get("recorders", [])
        names = [recorder["name"] for recorder in own]
        return xr.DataTree.from_dict({name: self._reader.dataset(f"recorded/{name}") for name in names})

    @functools.cached_property
    def images(self) -> xr.Dataset:
        """Pictures, (prompt, y, x, rgb) uint8, and latents."""
        return self._reader.dataset("outputs")

    @functools.cached_property
    def summary(self) -> xr.Dataset:
        """Mean and variance over done rows: the stored summary if it is up to date, else computed now."""
        current = self._reader.summary_rows == self.rows_done
        return (self.stored_summary if current else None) or self.summarise()

    @property
    def stored_summary(self) -> xr.Dataset | None:
        """The stored summary; its attribute `rows` is the number of rows in it. `None` if there is none."""
        rows = self._reader.summary_rows
        return None if rows is None else self._reader.joined("summary").assign_attrs(rows=rows)

    @property
    def summary_bytes(self) -> int:
        """Bytes read to compute the summary."""
        groups = [self._reader.joined(name) for name in ("stats", "gates") if name in self._reader]
        return sum(int(v.nbytes) for group in groups for v in group.data_vars.values() if "prompt" in v.dims)

    def summarise(self) -> xr.Dataset:
        """Compute means and variances over the done rows."""
        return joined_summary(summarise(self._reader))

    @functools.cached_property
    def data(self) -> xr.DataTree:
        """Everything as one DataTree."""
        groups = {name: self._reader.joined(name) for name in ("stats", "gates", "branches") if name in self._reader}
        for name in (name for name in ("hidden", "frames") if name in self._reader):
            groups |= {f"{name}/{stream}": child.to_dataset() for stream, child in getattr(self, name).children.items()}
        groups |= {f"recorded/{name}": child.to_dataset() for name, child in self.recorded.children.items()}
        return xr.DataTree.from_dict({**groups, "outputs": self.images, "summary": self.summary}, name=self.path.name)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The model's streams; the generated one first."""
        return self._reader.streams

    def of_stream(self, group: str, stream: str) -> xr.Dataset:
        """One stream's part of `stats`, `gates` or `branches`, with its own channels: (prompt, step, block, ..., channel). The
        stream is given by name or by role: "generated", "conditioning".
        """
        self._need(group)
        return self._reader.of_stream(group, find_stream(self.streams, stream).name)

    def _joined(self, name: str) -> xr.Dataset:
        self._need(name)
        return self._reader.joined(name)

    def _need(self, name: str) -> None:
        if name not in self._reader:
            if f"bundles/{name}" in self._reader:
                raise StoreError(
                    f"store {self.path} keeps no {name} of single prompts (--record summary); use run.summary for means and "
                    "variances over prompts, and interp.glance for findings from them"
                )
            raise StoreError(f"store {self.path} keeps no {WHAT[name]}")

    def facts(self) -> dict[str, str]:
        """The lines of the readable representation."""
        plan, origin = self.plan, self.provenance
        kept = ("stats", "gates", "branches", "hidden", "frames", "outputs", "summary")
        failed = self.failed
        waiting = self.rows_total - self.rows_done - len(failed)
        state = "  (unfinished: the same command continues it)" if waiting else ""
        state += f"  ({len(failed)} failed, row {min(failed)}: {failed[min(failed)]}; --retry-failed)" if failed else ""
        facts = {
            "model": f"{plan.get('model')} ({origin.get('model_class')}, {plan.get('dtype')} on {origin.get('device')})",
            "rows": f"{self.rows_done} of {self.rows_total} done{state}",
            **({"quantised": _quantized(origin["quantization"])} if origin.get("quantization") else {}),
            "picture": f"{plan.get('width')} x {plan.get('height')} pixels, {plan.get('steps')} steps",
            "keeps": ", ".join(name for name in kept if name in self._reader),
        }
        if self.results:
            facts["results"] = ", ".join(self.results)
        sizes: dict[str, Mapping[Hashable, int]] = {}
        for name in (name for name in ("stats", "gates") if name in self._reader):
            sizes |= {f"{name}/{one.name}": self._reader.of_stream(name, one.name).sizes for one in self.streams}
        for name in (name for name in ("hidden", "frames") if name in self._reader):
            sizes |= {f"{name}/{stream}": child.sizes for stream, child in getattr(self, name).children.items()}
        return facts | {name: ", ".join(f"{axis} {size}" for axis, size in axes.items()) for name, axes in sizes.items()}

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        cells = "".join(
            f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(value)}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<b>interp.Run</b> <code>{html.escape(str(self.path))}</code><table>{cells}</table>"


def _quantized(found: dict[str, Any]) -> str:
    layers = ", ".join(f"{count} layers {kind}" for kind, count in found["layers"].items())
    return f"{layers}; gates {found['gates']}"


def open_run(path: str | Path) -> Run:
    """Open a store for reading; it may be unfinished."""
    return Run(path)
