"""Segmentation by massive channels: image tokens in two clusters by a few channels. Few Channels (arXiv 2605.13974).

Per sample: each channel scaled to 0..1 over tokens, k-means with two clusters (scikit-learn), foreground = the cluster of the
higher mean. Needs hidden states of the image stream. Of a video, one latent frame: by default the middle one, that of the
stored picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from interp.analysis import massive, sources
from interp.analysis.overlap import centre_disc, enlarge, iou
from interp.analysis.result import Estimate, result
from interp.base.errors import InputError
from interp.base.streams import GENERATED
from interp.store.schema import Array

STRATEGIES = ("top", "bottom", "random")
VALUES = ("magnitude", "signed")


def masks(
    source: sources.Source,
    channels: Sequence[int] | str | None = None,
    *,
    steps: Sequence[int] | str | None = "-1",
    blocks: Sequence[int] | str | None = None,
    values: str = "magnitude",
    frame: int | None = None,
) -> xr.Dataset:
    """Foreground mask and heat map of every sample, from the given channels or the massive ones.

    mask      (prompt, step, block, token_y, token_x)   boolean
    heat      (prompt, step, block, token_y, token_x)   sum of the scaled channels
    `values`: "magnitude" clusters |x|, "signed" clusters x.
    """
    states = _states(source, steps, blocks, values, frame)
    chosen = massive.channels_of(source, channels, GENERATED)
    data = sources.choose(states, "channel", chosen, "channels").to_numpy()
    shape, axes = (*states.shape[:3], *grid_of(states)), ("prompt", "step", "block", "token_y", "token_x")
    mask, heat = np.zeros(shape, bool), np.zeros(shape)
    for place in np.ndindex(*shape[:3]):
        mask[place], heat[place] = (found.reshape(shape[3:]) for found in cluster(data[place]))
    return result(
        "segmentation",
        {"mask": (axes, mask), "heat": (axes, heat)},
        {str(name): c for name, c in states.coords.items() if not {"token", "channel"} & set(c.dims)},
        averaged_over="nothing: each sample by itself",
        interval="none: each sample by itself",
        control="score() compares with bottom and random channels and with trivial masks",
        channels=chosen,
        values=values,
        **sources.facts_of(source),
    )


def score(
    source: sources.Source,
    truth: Array,
    *,
    k: int = 12,
    steps: Sequence[int] | str | None = "-1",
    blocks: Sequence[int] | str | None = None,
    values: str = "magnitude",
    repeats: int = 5,
    seed: int = 0,
    frame: int | None = None,
) -> xr.Dataset:
    """IoU of the masks of top, bottom and random channels with true masks, over blocks, and of masks that need no model.

    `truth` is (prompt, y, x) boolean, in the order of the run's rows. Channels are ranked per sample and block by mean |x|, as
    Few Channels does; k = 12 is what its followers use. Masks are enlarged to the truth's size by repeating tokens.

    iou, iou_low, iou_high   (strategy, step, block)   mean over prompts; random: mean over `repeats` draws
    either, _low, _high      (strategy, step, block)   the same when the truth selects which cluster is the foreground
    trivial                  (baseline)                everything is foreground; a centred disc of the true masks' mean area
    """
    states = _states(source, steps, blocks, values, frame)
    rows, channels = states.sizes["prompt"], states.sizes["channel"]
    truth = np.asarray(truth).astype(bool)
    if truth.ndim != 3 or len(truth) != rows:
        raise InputError(f"masks must be (prompt, y, x), one for each of the {rows} rows done; got shape {truth.shape}")
    if not 1 <= k < channels:
        raise InputError(f"k must lie in 1..{channels - 1}; got {k}")
    found = _scored(states, truth, k, repeats, np.random.default_rng(seed))
    axes = ("strategy", "step", "block")
    by_row, either = np.moveaxis(found, 2, 1)  # (prompt, strategy, step, block) each
    units = sources.units(states)
    trivial = [iou(np.ones_like(truth), truth).mean(), np.mean([iou(centre_disc(truth), mask) for mask in truth])]
    return result(
        "segmentation_score",
        {
            "iou": (axes, Estimate.mean(by_row, units)),
            "either": (axes, Estimate.mean(either, units)),
            "trivial": ("baseline", np.array(trivial)),
        },
        {
            "strategy": list(STRATEGIES),
            "baseline": ["everything", "centre disc"],
            **{str(name): c for name, c in states.coords.items() if not {"token", "channel", "prompt"} & set(c.dims)},
        },
        averaged_over="seeds, then prompt texts",
        interval=units.said(),
        control="bottom and random channels; everything; a centred disc",
        k=k,
        values=values,
        repeats=repeats,
        **sources.facts_of(source),
    )


def _scored(states: xr.DataArray, truth: Array, k: int, repeats: int, draw: np.random.Generator) -> Array:
    """IoU of every strategy's masks, (side, strategy, prompt, step, block): by the rule, and of the better side."""
    grid, channels = grid_of(states), states.sizes["channel"]
    magnitude = abs(states).mean("token").to_numpy()
    found = np.zeros((2, len(STRATEGIES), *states.shape[:3]))
    for place in np.ndindex(*states.shape[:3]):
        here = states.to_numpy()[place]
        order = np.argsort(-magnitude[place], kind="stable")
        random = [draw.choice(channels, k, replace=False) for _ in range(repeats)]
        for number, sets in enumerate(([order[:k]], [order[-k:]], random)):  # `STRATEGIES`
            drawn = [enlarge(cluster(here[:, chosen])[0].reshape(grid), truth.shape[1:]) for chosen in sets]
            scores = np.array([[iou(mask, truth[place[0]]), iou(~mask, truth[place[0]])] for mask in drawn])
            found[(slice(None), number, *place)] = scores[:, 0].mean(), scores.max(axis=1).mean()
    return found


def cluster(tokens: Array) -> tuple[Array, Array]:
    """Foreground and heat, (token,) each, of (token, channel): min-max over tokens, k-means(2), foreground = higher mean."""
    low, high = tokens.min(axis=0), tokens.max(axis=0)
    scaled = np.divide(tokens - low, high - low, out=np.zeros(tokens.shape), where=high > low)
    heat = scaled.sum(axis=1)
    if len(np.unique(scaled, axis=0)) < 2:
        return np.zeros(len(tokens), bool), heat
    labels = KMeans(2, n_init=3, random_state=0).fit(scaled).labels_
    means = [heat[labels == label].mean() for label in (0, 1)]
    return np.asarray(labels == int(np.argmax(means))), heat


def similarity(
    source: sources.Source, token: int, *, prompt: int = 0, step: int = -1, block: int = -1, frame: int | None = None
) -> xr.DataArray:
    """Cosine similarity of every image token's state to one token's, of the same frame: (token_y, token_x)."""
    here = _one_state(source, prompt, step, block, frame)
    if not 0 <= token < here.sizes["token"]:
        raise InputError(f"token must lie in 0..{here.sizes['token'] - 1}; got {token}")
    unit = here.to_numpy() / np.linalg.norm(here.to_numpy(), axis=-1, keepdims=True)
    return over_picture(here, unit @ unit[token], "cosine similarity")


def principal_map(
    source: sources.Source,
    components: int = 3,
    *,
    prompt: int = 0,
    step: int = -1,
    block: int = -1,
    frame: int | None = None,
) -> xr.DataArray:
    """Image tokens along their first principal components: (component, token_y, token_x); attribute `explained`."""
    here = _one_state(source, prompt, step, block, frame)
    fitted = PCA(components, random_state=0)
    scores = fitted.fit_transform(here.to_numpy())
    maps = [over_picture(here, score, "component score") for score in scores.T]
    explained = [float(share) for share in fitted.explained_variance_ratio_]
    return xr.concat(maps, "component").assign_attrs(analysis="principal_map", explained=explained)


def read_masks(folder: str | Path, rows: Sequence[int]) -> Array:
    """Masks of a folder, (prompt, y, x) boolean, for the given rows: `00003-mask.png`, as `interp demo world` writes, or
    `00003.png`; white is foreground.
    """
    from PIL import Image

    found = []
    for row in rows:
        paths = [Path(folder) / name for name in (f"{row:05d}-mask.png", f"{row:05d}.png", f"{row}.png")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise InputError(f"masks: {folder} has none for row {row}; it must be called {paths[0].name} or {paths[1].name}")
        found.append(np.asarray(Image.open(path).convert("L")) > 127)
    if len({mask.shape for mask in found}) > 1:
        raise InputError(f"masks: those in {folder} must be of one size; got {sorted({mask.shape for mask in found})}")
    return np.stack(found)


def grid_of(states: xr.DataArray) -> tuple[int, int]:
    """The grid of image tokens, (y, x); if only some were recorded, InputError."""
    if "token_y" not in states.coords:
        raise InputError("hidden states must carry token_y and token_x (image stream)")
    if (frames := sources.frames_of(states)) > 1:
        raise InputError(f"frame: hidden states are of {frames} latent frames, a map is of one; take sources.one_frame")
    grid = int(states["token_y"].max()) + 1, int(states["token_x"].max()) + 1
    if grid[0] * grid[1] != states.sizes["token"]:
        raise InputError(f"tokens: a map needs all {grid[0]} x {grid[1]} image tokens; {states.sizes['token']} were recorded")
    return grid


def _states(source: sources.Source, steps: Any, blocks: Any, values: str, frame: int | None) -> xr.DataArray:
    if values not in VALUES:
        raise InputError(f"values must be one of {', '.join(VALUES)}; got {values!r}")
    states = sources.one_frame(_all_tokens(source), frame)
    states = sources.choose(sources.choose(states, "block", blocks, "blocks"), "step", steps, "steps")
    states = states.compute().transpose("prompt", "step", "block", "token", "channel")
    grid_of(states)
    return abs(states) if values == "magnitude" else states


def _all_tokens(source: sources.Source) -> xr.DataArray:
    """The image's hidden states; if only some tokens were kept, InputError: the first rows could be a smaller picture."""
    kept = None if isinstance(source, xr.Dataset) else (source.plan.get("record", {}).get("hidden") or {}).get("tokens")
    if kept is not None:
        raise InputError(
            f"tokens: a map needs all image tokens; {len(kept)} were recorded (trace without a selection of tokens)"
        )
    return sources.hidden(source)


def _one_state(source: sources.Source, prompt: int, step: int, block: int, frame: int | None) -> xr.DataArray:
    states = sources.one_frame(_all_tokens(source), frame)
    places = {"prompt": prompt, "step": step, "block": block}
    for axis, place in places.items():
        if not -states.sizes[axis] <= place < states.sizes[axis]:
            raise InputError(f"{axis} must lie in 0..{states.sizes[axis] - 1} (places among those stored); got {place}")
    here = states.isel(places).compute()
    grid_of(here)
    return here


def over_picture(here: xr.DataArray, values: Array, what: str) -> xr.DataArray:
    """Values of one state's image tokens, (token), over the picture: (token_y, token_x)."""
    kept = {name: c for name, c in here.coords.items() if not c.dims}
    return xr.DataArray(values.reshape(grid_of(here)), kept, ("token_y", "token_x"), attrs={"long_name": what})
