"""The variables of a store and their layout on disk.

    NAME.zarr/
      attributes                    schema, plan, provenance, streams (name, role, width, axes, tokens along the axes)
      prompt_text seed done         (prompt); STREAM_tokens: those that are not padding
      stats/STREAM/     mean mean_abs max_abs min_abs var    (prompt, step, block, channel); present (block)
                        median_abs                           (prompt, step, block): of all elements
      gates/STREAM/     alpha [shift scale]                  (prompt, step, block, gate, channel); present (block, gate)
      branches/STREAM/  branch (prompt, step, block, gate, channel): means over tokens; embedding, position
      frames/STREAM/    mean mean_abs max_abs edge_abs       (prompt, step, block, frame, channel): over a latent frame's tokens
      bundles/stats/STREAM bundles/gates/STREAM   in place of stats and gates: (bundle, moment, step, ...) over a few prompts
      hidden/STREAM/    hidden      (prompt, step, block, token, channel): the selected states
      recorded/NAME/    value       (prompt, step, site, ...): user-defined recorders
      outputs/          image (prompt, y, x, rgb); latents (prompt, [step,] ...); predicted_velocity, ... (prompt, step, ...)
                        of a video: video (prompt, frame, y, x, rgb), and its middle frame as the image
      analysis/NAME/    results of analyses, each with the parameters that made it
      summary/STREAM/   every statistic and alpha            (moment, step, block, ..., channel): mean and variance over prompts

Stores of schema 1 have one group of all streams, with a stream axis: stats/mean (prompt, step, block, stream, channel).

Statistics and gates: one shard per prompt, written once. Hidden: one shard per (prompt, step, block), written as it arrives. A
shard belongs to one prompt, so no two writers share one. bfloat16 is stored as float32: exact, and the zero bits compress well.
Values that do not exist (SD3's last text block) are NaN, and `present` is False there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from interp.base.streams import Stream
from interp.store.variable import Variable

SCHEMA = 2
READABLE = (1, 2)
STATISTICS = ("mean", "mean_abs", "max_abs", "min_abs", "var")
OF_FRAMES = ("mean", "mean_abs", "max_abs", "edge_abs")
OF_STREAMS = ("stats", "gates", "branches")  # groups with one group per stream
FOLDED = OF_STREAMS[:2]  # those that a summary covers
TOKENS = "_tokens"  # after a stream's name: how many of its tokens count
HIDDEN_CHUNK = (1024, 256)  # (token, channel)

Array = NDArray[Any]
Groups = dict[str, dict[str, Array]]
"""Group -> variable -> array."""


@dataclasses.dataclass(frozen=True)
class HiddenAxes:
    """Coordinates of the selected hidden states of one stream."""

    steps: tuple[int, ...]
    blocks: tuple[int, ...]
    """Only blocks in which the stream exists."""
    tokens: tuple[int, ...]
    channels: tuple[int, ...]
    places: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of the axes that the stream's tokens fill, in order; none for a text."""


@dataclasses.dataclass(frozen=True)
class StreamAxes:
    """One stream: what it is, its tokens, and where it has values."""

    stream: Stream
    sizes: tuple[int, ...]
    """Tokens along its axes; one size for a text."""
    present: Array
    """(block,) booleans."""
    gate_present: Mapping[str, Array]
    """Per kind (alpha, shift, scale), (block, gate) booleans."""
    branch_present: Array
    """(block, writer) booleans."""
    counted: tuple[int, ...] = ()
    """Tokens of each row that are not padding; () where all count."""

    def to_json(self) -> dict[str, Any]:
        """The stream and its tokens as plain JSON values."""
        return {**self.stream.to_json(), "sizes": list(self.sizes)}


@dataclasses.dataclass(frozen=True)
class RecordedAxes:
    """Sites and further axes of a user-defined recorder."""

    sites: tuple[str, ...]
    axes: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Schema:
    """Axes and coordinates of a run: everything needed to create its store."""

    prompt_text: tuple[str, ...]
    seed: tuple[int, ...]
    timestep: Array
    sigma: Array
    block_path: tuple[str, ...]
    block_kind: tuple[str, ...]
    gates: tuple[str, ...]
    streams: Mapping[str, StreamAxes]
    image: tuple[int, int]
    """Pixels, (y, x)."""
    latents: Mapping[str, int]
    latents_every_step: bool
    prediction: tuple[str, ...]
    """Parts of the transformer's output kept at every step: () or ("velocity",) or ("epsilon", "sigma")."""
    statistics: bool
    gate_kinds: tuple[str, ...]
    """AdaLN values kept: () or ("alpha",) or ("alpha", "shift", "scale")."""
    branches: bool
    """Whether branch outputs are kept."""
    hidden: Mapping[str, HiddenAxes]
    recorded: Mapping[str, RecordedAxes] = dataclasses.field(default_factory=dict)
    bundle: int = 0
    """Prompts per bundle of statistics and gates, kept as mean and variance; 0 keeps every prompt's values."""
    writers: tuple[str, ...] = ()
    """The gates, and the branches without a gate."""
    frames: int = 0  # of a video; 0 for a picture
    by_frame: bool = False  # statistics of every latent frame

    def variables(self) -> dict[str, Variable]:
        """Every large variable by its path, such as `stats/mean`."""
        prompts, steps, blocks = len(self.prompt_text), len(self.timestep), len(self.block_path)
        found: dict[str, Variable] = {}
        for name, own in self.streams.items():
            found |= self._of_stream(name, {"prompt": prompts, "step": steps, "block": blocks}, own.stream.width)
            if self.by_frame and own.stream.in_frames:
                state = {"prompt": prompts, "step": steps, "block": blocks, "frame": own.sizes[0], "channel": own.stream.width}
                each = Variable.of(state, "prompt", "block", sharded=True, compressed=False)
                found |= {f"frames/{name}/{statistic}": each for statistic in OF_FRAMES}
        for stream, axes in self.hidden.items():
            found[f"hidden/{stream}/hidden"] = _hidden_variable(prompts, axes)
        for name, seen_by in self.recorded.items():
            seen = {"prompt": prompts, "step": steps, "site": len(seen_by.sites), **seen_by.axes}
            found[f"recorded/{name}/value"] = Variable.of(seen, "prompt")
        picture = {"y": self.image[0], "x": self.image[1], "rgb": 3}
        found["outputs/image"] = Variable.of({"prompt": prompts, **picture}, "prompt", dtype="uint8")
        if self.frames:
            video = {"prompt": prompts, "frame": self.frames, **picture}
            found["outputs/video"] = Variable.of(video, "prompt", "frame", dtype="uint8")
        last, every = {"prompt": prompts, **self.latents}, {"prompt": prompts, "step": steps, **self.latents}
        found["outputs/latents"] = Variable.of(every if self.latents_every_step else last, "prompt")
        found |= {f"outputs/predicted_{name}": Variable.of(every, "prompt") for name in self.prediction}
        if not self.bundle:
            return found
        folded = {name for name in found if name.split("/")[0] in FOLDED}
        return {f"bundles/{n}" if n in folded else n: self._bundled(v) if n in folded else v for n, v in found.items()}

    def _of_stream(self, name: str, sizes: dict[str, int], width: int) -> dict[str, Variable]:
        """The variables of one stream."""
        state, found = {**sizes, "channel": width}, dict[str, Variable]()
        if self.statistics:
            each = Variable.of(state, "prompt", "block", sharded=True, compressed=False)
            found |= {f"stats/{name}/{statistic}": each for statistic in STATISTICS}
            found[f"stats/{name}/median_abs"] = Variable.of(sizes, "prompt")
        gated = {**sizes, "gate": len(self.gates), "channel": width}
        found |= {f"gates/{name}/{kind}": Variable.of(gated, "prompt", "block", sharded=True) for kind in self.gate_kinds}
        if self.branches:
            written = {**sizes, "gate": len(self.writers), "channel": width}
            found[f"branches/{name}/branch"] = Variable.of(written, "prompt", "block", sharded=True)
            entering = {axis: size for axis, size in state.items() if axis != "block"}
            found[f"branches/{name}/embedding"] = Variable.of(entering, "prompt")
            found[f"branches/{name}/position"] = Variable.of({n: size for n, size in entering.items() if n != "step"}, "prompt")
        return found

    def _bundled(self, variable: Variable) -> Variable:
        """Mean and variance over bundles of prompts."""

        def along(sizes: dict[str, int], moments: int) -> dict[str, int]:
            return {"bundle": 1, "moment": moments, **{name: size for name, size in sizes.items() if name != "prompt"}}

        bundles = {"bundle": -(-len(self.prompt_text) // self.bundle)}
        shard = None if variable.shard is None else along(variable.shard, 2)
        chunk = along(variable.chunk, 1 if shard else 2)
        return Variable({**along(variable.sizes, 2), **bundles}, chunk, shard, compressed=variable.compressed)

    def coordinates(self, path: str) -> xr.Dataset:
        """The coordinates of the group that holds `path`, and its `present`."""
        group, _, rest = path.partition("/")
        if group == "bundles":
            bundles = -(-len(self.prompt_text) // self.bundle)
            inside = self.coordinates(path.removeprefix("bundles/")).drop_vars("prompt")
            return inside.assign_coords(bundle=np.arange(bundles), moment=_texts(("mean", "variance")))
        prompt = xr.Dataset(coords={"prompt": np.arange(len(self.prompt_text))})
        if group == "hidden":
            return prompt.assign_coords(self._hidden_coordinates(self.hidden[rest.split("/")[0]]))
        if group == "recorded":
            sites = self.recorded[rest.split("/")[0]].sites
            return prompt.assign_coords({**self._steps(), "site": _texts(sites)})
        if group == "outputs":
            return prompt.assign_coords(self._steps()) if self.latents_every_step or self.prediction else prompt
        own = self.streams[rest.split("/")[0]]
        data = prompt.assign_coords({**self._steps(), **self._blocks(), "channel": np.arange(own.stream.width)})
        axes = ("block", "gate")
        if group == "branches":
            return data.assign_coords(gate=_texts(self.writers)).assign(present=(axes, own.branch_present))
        if group == "gates":
            flags = {f"{kind}_present": (axes, own.gate_present[kind]) for kind in self.gate_kinds}
            return data.assign_coords(gate=_texts(self.gates)).assign(flags).rename(alpha_present="present")
        if group == "frames":
            data = data.assign_coords(frame=np.arange(own.sizes[0]))
        return data.assign(present=("block", own.present))

    def _steps(self, steps: tuple[int, ...] | None = None) -> dict[str, Any]:
        index = np.arange(len(self.timestep)) if steps is None else np.array(steps)
        timestep = ("step", self.timestep[index], {"long_name": "scheduler timestep"})
        sigma = ("step", self.sigma[index], {"long_name": "noise level"})
        return {"step": index, "timestep": timestep, "sigma": sigma}

    def _blocks(self, blocks: tuple[int, ...] | None = None) -> dict[str, Any]:
        index = np.arange(len(self.block_path)) if blocks is None else np.array(blocks)
        paths, kinds = _texts(self.block_path)[index], _texts(self.block_kind)[index]
        return {"block": index, "block_path": ("block", paths), "block_kind": ("block", kinds)}

    def _hidden_coordinates(self, axes: HiddenAxes) -> dict[str, Any]:
        tokens = np.array(axes.tokens)
        found = self._steps(axes.steps) | self._blocks(axes.blocks)
        found |= {"token": tokens, "channel": np.array(axes.channels)}
        if axes.places:
            along = np.unravel_index(tokens, tuple(axes.places.values()))
            found |= {f"token_{name}": ("token", place) for name, place in zip(axes.places, along, strict=True)}
        return found


def _hidden_variable(prompts: int, axes: HiddenAxes) -> Variable:
    tokens, channels = len(axes.tokens), len(axes.channels)
    sizes = {"prompt": prompts, "step": len(axes.steps), "block": len(axes.blocks), "token": tokens, "channel": channels}
    one = {"prompt": 1, "step": 1, "block": 1}
    chunk = {**one, "token": _divisor(tokens, HIDDEN_CHUNK[0]), "channel": _divisor(channels, HIDDEN_CHUNK[1])}
    return Variable(sizes, chunk, {**one, "token": tokens, "channel": channels})


def _divisor(size: int, most: int) -> int:
    """The largest divisor of `size` up to `most`, so that a shard holds whole chunks; `size` if it has only small divisors."""
    best = max(d for d in range(1, min(size, most) + 1) if size % d == 0)
    return best if best >= min(size, most) // 8 else size


def _texts(values: tuple[str, ...]) -> Array:
    return np.array(values, dtype=object)
