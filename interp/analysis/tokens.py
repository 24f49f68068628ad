"""Single states over image tokens: one channel, a set of channels, or one token. Needs hidden states of the image stream.

Of a video, one latent frame: by default the middle one, that of the stored picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from interp.analysis import segmentation, sources
from interp.base.streams import GENERATED
from interp.store.schema import Array
from interp.store.traced_run import Run


def state(
    source: sources.Source, *, prompt: int, step: int, block: int, frame: int | None = None, stream: str = GENERATED
) -> xr.DataArray:
    """One stored hidden state, (token, channel), lazy; prompt, step and block are those of the store."""
    stream = sources.stream_of(source, stream)
    here = sources.one_frame(sources.hidden(source, stream), frame)
    return sources.at(here, prompt=prompt, step=step, block=block)


def picture_of(run: Run, frame: int | None = None) -> int:
    """The picture of a video, counted from 0, at the time of a latent frame: the last one that it holds."""
    latent = sources.frames_of(sources.hidden(run))
    here = (latent // 2 if frame is None else frame) % latent
    return round(here * (run.images.sizes["frame"] - 1) / max(latent - 1, 1))


def channel_map(
    source: sources.Source, channel: int, *, prompt: int, step: int, block: int, frame: int | None = None
) -> xr.DataArray:
    """|hidden| of one channel over the picture: (token_y, token_x)."""
    here = state(source, prompt=prompt, step=step, block=block, frame=frame)
    here = abs(sources.at(here, channel=channel)).compute()
    return _over_picture(here, here.to_numpy(), f"|hidden| at channel {channel}", "|hidden|")


def set_map(
    source: sources.Source, channels: Sequence[int], *, prompt: int, step: int, block: int, frame: int | None = None
) -> xr.Dataset:
    """A set of channels over the picture, as clustered in Few Channels: each channel's |hidden| scaled to 0..1 over tokens.

    heat   (token_y, token_x)   sum over channels
    mask   (token_y, token_x)   boolean: the cluster of the higher mean
    """
    here = state(source, prompt=prompt, step=step, block=block, frame=frame)
    here = abs(sources.choose(here, "channel", list(channels), "channels")).compute()
    mask, heat = segmentation.cluster(here.transpose("token", "channel").to_numpy())
    named = f"channels {', '.join(map(str, list(channels)[:6]))}{' ...' if len(channels) > 6 else ''}"
    return xr.Dataset(
        {
            "heat": _over_picture(here, heat, f"heat of {named}", "sum of 0..1"),
            "mask": _over_picture(here, mask, f"foreground of {named}", "foreground"),
        }
    )


def largest(source: sources.Source, count: int, *, prompt: int, step: int, block: int, frame: int | None = None) -> list[int]:
    """The channels of largest mean |hidden| over tokens at one state, ranked per sample and block as in Few Channels."""
    here = state(source, prompt=prompt, step=step, block=block, frame=frame).compute()
    order = np.argsort(-abs(here).mean("token").to_numpy(), kind="stable")[:count]
    return [int(channel) for channel in here["channel"].to_numpy()[order]]


def token(
    source: sources.Source, y: int, x: int, *, prompt: int, step: int, block: int, frame: int | None = None
) -> xr.DataArray:
    """One image token's hidden state: (channel)."""
    here = state(source, prompt=prompt, step=step, block=block, frame=frame)
    rows, columns = segmentation.grid_of(here)
    found = sources.at(here.assign_coords(token=np.arange(rows * columns)), token=y * columns + x).compute()
    return found.assign_attrs(sources.facts_of(source), averaged_over="nothing: one token")


def _over_picture(here: xr.DataArray, values: Array, name: str, units: str) -> xr.DataArray:
    return segmentation.over_picture(here, values, name).assign_attrs(units=units, averaged_over="nothing: one state")
