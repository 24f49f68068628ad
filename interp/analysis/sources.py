"""The input of an analysis, a `Run` or a Dataset of statistics, and the checks that all analyses share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from interp.analysis.sampled import Sampled, alike
from interp.base.errors import InputError, InterpWarning, StoreError
from interp.base.prompts import same_text
from interp.base.sites import parse_indices, resolve_indices
from interp.base.streams import GENERATED, find_stream
from interp.store.reader import read_ahead
from interp.store.schema import Array
from interp.store.traced_run import Run

Source = Run | xr.Dataset
Data = TypeVar("Data", xr.Dataset, xr.DataArray)


def statistics(source: Source, stream: str | None = None) -> xr.Dataset:
    """Statistics over tokens, (prompt, step, block, [stream,] channel), of done rows; at least one row."""
    return _checked(source, "stats", "mean_abs", stream)


def gates(source: Source, stream: str | None = None) -> xr.Dataset:
    """AdaLN gates, (prompt, step, block, [stream,] gate, channel)."""
    return _checked(source, "gates", "alpha", stream)


def branches(source: Source, stream: str | None = None) -> xr.Dataset:
    """Branch outputs, (prompt, step, block, [stream,] gate, channel)."""
    return _checked(source, "branches", "branch", stream)


def hidden(source: Source, stream: str = GENERATED) -> xr.DataArray:
    """Hidden states, (prompt, step, block, token, channel)."""
    if isinstance(source, xr.Dataset):
        return _checked(source, "hidden", "hidden", None)["hidden"]
    states, stream = source.hidden, find_stream(source.streams, stream).name
    if stream not in states.children:
        raise StoreError(
            f"store {source.path} keeps no hidden states of the {stream} stream; it has {', '.join(states.children)}"
        )
    _say_if_unfinished(source)
    return _need_rows(states[stream].to_dataset())["hidden"]


def by_frame(source: Source, stream: str = GENERATED) -> xr.Dataset:
    """Statistics of latent frames, (prompt, step, block, frame, channel); attribute `rows`: rows of a frame's tokens."""
    if isinstance(source, xr.Dataset):
        _checked(source, "frames", "edge_abs", None)
        if "rows" not in source.attrs:
            raise InputError("dataset must have the attribute rows: how many rows of tokens a frame has")
        return source
    _say_if_unfinished(source)
    tree, own = source.frames, find_stream(source.streams, stream)
    if own.name not in tree.children:
        raise InputError(f"stream must be one with frames, {' or '.join(tree.children)}; got {stream!r}")
    sizes = {one["name"]: one["sizes"] for one in source.attributes["streams"]}[own.name]
    return _need_rows(tree[own.name].to_dataset()).assign_attrs(rows=sizes[1])


def _checked(source: Source, group: str, variable: str, stream: str | None) -> xr.Dataset:
    if isinstance(source, xr.Dataset):
        dataset = source
        if variable not in source:
            here = ", ".join(map(str, source.data_vars)) or "none"
            raise InputError(f"dataset has no variable {variable!r}; it has {here}")
    else:
        _say_if_unfinished(source)
        if stream is not None:
            return _need_rows(source.of_stream(group, stream))
        dataset = getattr(source, group)
    _need_rows(dataset)
    return dataset if stream is None else dataset.sel(stream=check_stream(dataset, stream))


def _need_rows(data: Data) -> Data:
    if data.sizes.get("prompt", 0) == 0:
        raise StoreError("no row of this store is done yet, so there is nothing to analyse; resume its trace first")
    return data


def _check_run(run: Run) -> None:
    if not hasattr(run, "rows_done"):
        raise InputError(f"run must be an opened run, such as interp.open_run('cache/run.zarr'); got {run!r}")


def _say_if_unfinished(run: Run) -> None:
    _check_run(run)
    if run.rows_done < run.rows_total:
        warnings.warn(
            f"{run.path} is unfinished: this is about the {run.rows_done} rows done of {run.rows_total}",
            InterpWarning,
            stacklevel=4,
        )


def rows(data: xr.DataArray) -> Iterator[Array]:
    """Each prompt's values in turn, in the order of the other axes: one row is in memory, and the next is read meanwhile."""
    data = data.transpose("prompt", ...)
    return read_ahead(range(data.sizes["prompt"]), lambda row: np.asarray(data.isel(prompt=row).to_numpy()))


def over_steps(data: xr.DataArray) -> xr.DataArray:
    """The mean over steps, (prompt, ...) float32 in memory, summed in float64; a row at a time, so a store may be larger."""
    data = data.transpose("prompt", "step", ...)
    kept = [values.mean(axis=0, dtype=np.float64).astype(np.float32) for values in rows(data)]
    coordinates = {name: c for name, c in data.coords.items() if "step" not in c.dims}
    return xr.DataArray(np.stack(kept), coordinates, [dim for dim in data.dims if dim != "step"], data.name)


def over_steps_and_texts(data: xr.DataArray) -> tuple[xr.DataArray, Array]:
    """`over_steps`, and the mean over texts at every step, (step, ...) float64; every row is read once."""
    data = data.transpose("prompt", "step", ...)
    units_here = units(data)
    texts = np.array(units_here.texts)
    weight = {text: 1.0 / (units_here.prompts * int((texts == text).sum())) for text in set(units_here.texts)}
    kept, total = [], np.zeros(data.shape[1:])
    for text, values in zip(units_here.texts, rows(data), strict=True):
        kept.append(values.mean(axis=0, dtype=np.float64).astype(np.float32))
        total += weight[text] * values
    coordinates = {name: c for name, c in data.coords.items() if "step" not in c.dims}
    return xr.DataArray(np.stack(kept), coordinates, [dim for dim in data.dims if dim != "step"], data.name), total


def counted_tokens(data: Any) -> str:
    """How many text tokens of the rows count, the others being padding; "all" where that was not told apart."""
    if "text_tokens" not in data.coords:
        return "all"
    counts = np.unique(data["text_tokens"].to_numpy())
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def choose(data: Data, axis: str, wanted: Sequence[int] | str | None, field: str | None = None) -> Data:
    """Part of an axis by its coordinate's values, in the axis's own order; -1 is the last one, `None` takes all. A
    missing value raises InputError.
    """
    if wanted is None:
        return data
    values = data[axis].to_numpy()
    indices = parse_indices(wanted, field or axis) or ()
    if values.size and np.array_equal(values, np.arange(values.size)):
        return data.isel({axis: list(resolve_indices(indices, values.size, field or axis))})
    indices = tuple(int(values[index]) if -values.size <= index < 0 else index for index in indices)
    missing = [index for index in indices if index not in values]
    if missing:
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise InputError(f"{field or axis} must be one of those stored ({shown}); got {missing[0]}")
    return data.sel({axis: [value for value in values.tolist() if value in set(indices)]})


def at(data: xr.DataArray, **places: int) -> xr.DataArray:
    """The part at one value of each of these axes."""
    for axis, value in places.items():
        data = choose(data, axis, [value]).isel({axis: 0})
    return data


def frames_of(states: xr.DataArray) -> int:
    """Latent frames of the tokens; 1 for a picture."""
    return int(states["token_frame"].max()) + 1 if "token_frame" in states.coords and states.sizes["token"] else 1


def one_frame(states: xr.DataArray, frame: int | None = None) -> xr.DataArray:
    """The tokens of one latent frame, with the coordinate `frame`; by default of the middle one. A picture is one frame."""
    count = frames_of(states)
    if frame is not None and not -count <= frame < count:
        raise InputError(f"frame must lie in {-count}..{count - 1} (latent frames of the hidden states); got {frame}")
    if "token_frame" not in states.coords:
        return states
    here = (count // 2 if frame is None else frame) % count
    tokens = np.flatnonzero(states["token_frame"].to_numpy() == here)
    if not len(tokens):
        raise InputError(f"tokens: a map needs all image tokens; 0 of frame {here} were recorded")
    return states.isel(token=tokens).drop_vars("token_frame").assign_coords(frame=here)


def stream_of(source: Source, wanted: str) -> str:
    """The name of a stream of the source, given by name or role."""
    if isinstance(source, xr.Dataset):
        return check_stream(source, wanted) if "stream" in source.dims else wanted
    _check_run(source)
    return find_stream(source.streams, wanted).name


def check_stream(data: Any, stream: str) -> str:
    """The stream, if the data have it; the generated one is the first."""
    here = [str(value) for value in data["stream"].to_numpy()]
    if stream == GENERATED:
        return here[0]
    if stream not in here:
        raise InputError(f"stream must be one of {', '.join(here)}; got {stream!r}")
    return stream


def by_text(data: xr.DataArray) -> xr.DataArray:
    """The mean over rows that share a text: seeds of one prompt are not independent samples of prompts."""
    if "prompt_text" not in data.coords:
        return data
    groups = alike([same_text(text) for text in data["prompt_text"].to_numpy()])
    if len(groups) == data.sizes["prompt"]:
        return data
    means = [data.isel(prompt=group).mean("prompt") for group in groups]
    joined = xr.concat(means, "prompt", coords="minimal", compat="override")
    first = [group[0] for group in groups]
    return joined.assign_coords(prompt=data["prompt"].to_numpy()[first]).transpose(*data.dims)


def labels(data: xr.DataArray | xr.Dataset) -> tuple[Array, Array]:
    """Every row's text, or its number where there are no texts, and its seed, or 0. Texts that are one prompt are equal."""
    texts = data["prompt_text" if "prompt_text" in data.coords else "prompt"].to_numpy().astype(str)
    texts = np.array([same_text(text) for text in texts])
    return texts, data["seed"].to_numpy() if "seed" in data.coords else np.zeros(len(texts), int)


def units(data: Any) -> Sampled:
    """The prompt text and the seed of every row of a Dataset or DataArray: what its rows are samples of."""
    if "prompt_text" not in data.coords:
        return Sampled.single(data.sizes["prompt"])
    return Sampled(data["prompt_text"].to_numpy().tolist(), data["seed"].to_numpy() if "seed" in data.coords else None)


def along(data: xr.Dataset | xr.DataArray, *axes: str) -> dict[str, xr.DataArray]:
    """The coordinates of these axes, also of several of them, for another Dataset."""
    return {str(name): c for name, c in data.coords.items() if c.dims and set(c.dims) <= set(axes)}


def facts_of(source: Source) -> dict[str, Any]:
    """Model, rows and weights of a result, for its attributes."""
    if isinstance(source, xr.Dataset):
        return {}
    return {
        "model": str(source.plan.get("model")),
        "rows": f"{source.rows_done} of {source.rows_total} done",
        "weights": str(source.plan.get("weights", "")),
    }
