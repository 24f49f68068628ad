"""Settings of Detail Guidance: the paper's (arXiv 2510.11538, Tables 4 and 5), and those from a trace of any model."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

from interp.analysis import massive
from interp.base.errors import InputError, InterpWarning
from interp.base.streams import FRAME, GENERATED

READINGS = ("output", "input")
PAPER = "Detail Guidance, arXiv 2510.11538, Tables 4 and 5"
OURS = "not from the paper"
STAS = "STAS, arXiv 2603.17825, abstract; not from our papers"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of a model. `block` is counted from 0: the output of that block is edited."""

    channels: tuple[int, ...]
    block: int
    """The paper's m - 1: its section 3 counts blocks from 1, its section 4.3 edits "the hidden state output of" block m."""
    steps: int
    alone: float
    """w, used without CFG."""
    combined: tuple[float, float] | None
    """(lambda, w) with CFG: its native scale is lambda + 1."""
    source: str
    note: str = ""
    guidance: float = 4.0
    """Scale of classifier-free guidance alone: Table 5's value, which the paper does not define as scale or lambda."""

    def at(self, reading: str) -> int:
        """The block of a reading: "output" is that of section 4.3; "input" that of equation 2, where z^m enters block m."""
        if reading not in READINGS:
            raise InputError(f"reading must be one of {', '.join(READINGS)}; got {reading!r}")
        return self.block - (reading == "input" and self.source != OURS)


# block: the depth at which guidance degrades, not the block at which `selfcheck` tests a channel (the catalog)
PRESETS: dict[str, Preset] = {
    "sd3": Preset((810,), 5, 28, 1.0, (3.0, 1.0), PAPER, "its Appendix D once says channel 293: probably an error"),
    "sd3.5": Preset((676,), 19, 28, 4.0, (3.0, 2.0), PAPER, "SD3.5 Large"),
    "flux-dedistilled": Preset(
        (154, 1446), 21, 50, 4.0, (3.0, 2.0), PAPER, "blocks numbered through, double ones first", guidance=3.5
    ),
    "dit-xl": Preset((), 6, 250, 1.0, None, OURS, "the paper gives m = 7 alone; name the channels, or use auto(run)"),
    "demo": Preset((29,), 5, 20, 1.0, None, OURS, "its one massive channel; m by a sweep over all blocks (docs/findings.md)"),
}
ANOTHER_EXPERIMENT = ("flux", "flux-schnell")


def settings(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `DetailGuidance` by a preset: its channels, block (by a `reading`), and w without CFG, unless `changes`
    give them.
    """
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}; got {name!r} (DetailGuidance.auto(run) fits any model)")
    found = PRESETS[name]
    if not changes.get("channels", found.channels):
        raise InputError(f"preset {name}: {found.note}; give channels=[...]")
    block = found.at(changes.pop("reading", "output"))
    return {"channels": found.channels, "block": block, "scale": found.alone, "source": found.source, **changes}


def name_for(model: Any) -> str:
    """The preset's name for a loaded model; warns if the paper used another variant of the model."""
    name = str(model.name).removesuffix("-early")
    if name in ANOTHER_EXPERIMENT:
        warnings.warn(
            f"{name} is guidance-distilled: the paper used the de-distilled variant, so its preset is untested on this model",
            InterpWarning,
            stacklevel=3,
        )
        name = "flux-dedistilled"
    if name not in PRESETS:
        raise InputError(
            f"guidance: no preset for {model.name}; write dg:SCALE:channels=...:block=..., or use DetailGuidance.auto(run)"
        )
    return name


def chosen_by(run: Any) -> dict[str, Any]:
    """Choose channels and block from a traced run: the massive channels of the image stream, and the first block where all of
    them are massive. Channels that become massive only in the last block are left out.
    """
    found = massive.find(run, resamples=0)
    channels = massive.channels_of(run, None, GENERATED, found)
    born = [int(found["birth"].isel(stream=0).sel(channel=channel)) for channel in channels]
    last = int(found["block"].to_numpy()[-1])
    first = [(birth, channel) for birth, channel in zip(born, channels, strict=True) if birth < last]
    if not first:
        raise InputError(f"auto: in {run.path} channels are massive only in the last block; give channels and block")
    return {
        "channels": sorted(channel for _, channel in first),
        "block": max(birth for birth, _ in first),
        "source": f"auto from {run.path.name}: {found.attrs['criterion']}",
    }


def steered_by(run: Any) -> dict[str, Any]:
    """Choose channels, block and sizes of the frames from a traced run of a video model, for `SteeredFrames`."""
    sizes = next((one["sizes"] for one in run.attributes.get("streams", []) if one["axes"] and one["axes"][0] == FRAME), None)
    if sizes is None:
        raise InputError(f"auto: {run.path} is of pictures; steering of frames needs the run of a video model")
    found = chosen_by(run)
    return {**found, "sizes": tuple(sizes), "source": f"{STAS}; {found['source']}"}


def check_run(methods: Sequence[Any], run: Any) -> None:
    """Warn if Detail Guidance edits channels that are not massive in a traced run: the paper names two for SD3."""
    found = massive.find(run, resamples=0)
    agreed = found["consensus"].isel(stream=0).to_numpy()
    here = [int(channel) for channel in found["channel"].to_numpy()[agreed]]
    for method in methods:
        if method.name == "dg" and not set(method.channels or ()) <= set(here):
            warnings.warn(
                f"guidance edits channels {list(method.channels or ())}; massive in {run.path} are {here or 'none'}",
                InterpWarning,
                stacklevel=3,
            )
