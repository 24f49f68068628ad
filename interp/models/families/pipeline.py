"""A family and its diffusers pipeline: how to call it with its own guidance off, and the sizes of its tokens and latents."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.base.errors import InputError
from interp.models import picture_files
from interp.models.anatomy import Describe, Inputs
from interp.models.families.schedules import Levels


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of one traced picture."""

    sizes: Mapping[str, tuple[int, ...]]
    """Tokens of every stream along its axes, such as (y, x); the generated stream first. A text has one size."""
    latents: Mapping[str, int]
    """Latents by axis name, without the batch."""
    pixel_multiple: int
    """Height and width must be multiples of this many pixels."""
    prediction: tuple[str, ...] = ("velocity",)
    """The equal parts of the transformer's output, in order along its second axis. The first is `velocity`, `minus_velocity`,
    `epsilon` or `v` (see `interp.models.noise`)."""
    frames: int = 0
    """Pictures in a video; 0 for an image pipeline."""
    leading: int = 0
    """How many tokens of a text lie before the latents, along axis 1, in the transformer's argument and in its output."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Tokens of every stream."""
        return {stream: math.prod(sizes) for stream, sizes in self.sizes.items()}

    @property
    def generated(self) -> str:
        """The generated stream."""
        return next(iter(self.sizes))

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of one picture or frame of the generated stream, (y, x); (1, time) of sound."""
        *_, y, x = (1, *self.sizes[self.generated])
        return y, x

    @property
    def token_frames(self) -> int:
        """Frames of a video's tokens: one grid each, in order."""
        return self.tokens(self.generated) // math.prod(self.grid)

    def span(self, parts: int = 1) -> slice:
        """Where the latents are along axis 1 of the transformer's argument; in its output, all of these equal parts."""
        return slice(self.leading, self.leading + parts * next(iter(self.latents.values())))

    def everywhere(self, places: Sequence[int]) -> tuple[int, ...]:
        """Tokens of the generated stream at some places of the grid, in every frame."""
        size = math.prod(self.grid)
        return tuple(frame * size + place for frame in range(self.token_frames) for place in places)

    def tokens(self, stream: str) -> int:
        """Tokens of a stream."""
        return math.prod(self.sizes[stream])


def text_prompts(pipe: Any, texts: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Pass the prompts unchanged."""
    return {"prompt": texts}


def pipeline_size(pipe: Any) -> tuple[int, int]:
    """The pipeline's own default height and width, pixels."""
    side = pipe.default_sample_size * pipe.vae_scale_factor
    return side, side


OWN_LEVELS = Levels()


@dataclasses.dataclass(frozen=True)
class PipelineSpec:
    """How to call a pipeline class as a sampler without guidance."""

    pipeline_class: str
    layout: Callable[[Any, int, int, Mapping[str, Any]], Layout]
    """(pipe, height, width, settings) -> Layout."""
    guidance_off: Mapping[str, Any]
    """Arguments that turn off the pipeline's own guidance, and its changes of size or prompt."""
    prompts: Callable[[Any, list[str], Mapping[str, Any]], dict[str, Any]] = text_prompts
    """(pipe, texts, settings) -> the arguments that carry the prompts."""
    check_texts: Callable[[Any, list[str]], Any] = lambda pipe, texts: None
    """(pipe, texts): raises an error for an invalid prompt, such as an unknown class."""
    examples: tuple[str, str] = ("a red circle", "a photo of a dog")
    """Two prompts that any model of the pipeline accepts."""
    default_size: Callable[[Any], tuple[int, int]] = pipeline_size
    takes_size: bool = True
    """Whether height and width are arguments; otherwise the default size is the only one."""
    settings: Callable[[Any], dict[str, Any]] = lambda pipe: {}
    """(pipe) -> further arguments that its weights use, with their defaults."""
    argument_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The pipeline's name for a setting, where it differs."""
    tokenizers: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Tokenizers, each with the setting that limits its length (`None`: its own limit)."""
    pictures: tuple[str, ...] = ()
    """Settings that are pictures; the same ones are given for every prompt."""
    settings_maximum: Mapping[str, int] = dataclasses.field(default_factory=dict)
    conditions: Callable[[Any, list[str], Mapping[str, Any]], Mapping[str, Any]] | None = None
    """(pipe, texts, settings) -> the transformer's arguments that carry the text, or a guidance value, to the gates."""
    text_states: Callable[[Any, list[str], Mapping[str, Any]], Mapping[str, Any]] | None = None
    """(pipe, texts, settings) -> the transformer's argument that carries the text tokens, where there are any."""
    own_tokens: Callable[[Any, list[str], Mapping[str, Any]], np.ndarray[Any, Any]] | None = None
    """(pipe, texts, settings) -> which tokens of the text stream are not padding, (text, token) boolean; `None`: all count."""
    unconditional: Callable[[Any, str, Mapping[str, Any]], Mapping[str, Any]] | None = None
    """(pipe, negative prompt, settings) -> the arguments that make a row unconditional."""
    unpack: Callable[[Any, Any, int, int], Any] = lambda pipe, latents, height, width: latents
    """(pipe, the scheduler's latents, height, width) -> latents in the autoencoder's layout, (row, channel, y, x)."""
    pack: Callable[[Any, Any], Any] = lambda pipe, latents: latents
    """(pipe, the autoencoder's latents) -> the scheduler's."""
    set_by_calls: tuple[str, ...] = ()
    """Settings of the tokenizer that the pipeline sets at every call."""
    levels: Levels = OWN_LEVELS
    """How it sets its noise levels."""
    to_autoencoder: Callable[[Any, Any], Any] = lambda pipe, latents: scaled_out(pipe, latents)
    """(pipe, unpacked latents) -> what the autoencoder decodes."""
    from_autoencoder: Callable[[Any, Any], Any] = lambda pipe, latents: scaled_in(pipe, latents)
    """Its inverse."""
    reference: Callable[[Inputs], int] | None = None
    """The transformer's arguments -> tokens of a picture that it holds behind the generated ones, where it does."""
    of_size: Callable[[int, int], Mapping[str, Any]] = lambda height, width: {}
    """(height, width) -> further arguments that depend on them."""
    left_out: tuple[str, ...] = ()
    """Components that loading removes: guiders that no argument turns off."""
    after_loading: Callable[[Any], None] = lambda pipe: None
    """(pipe): what loading changes besides, such as a guider that no argument turns off and that cannot be left out."""
    moving: bool = False
    """Whether the autoencoder takes videos: (row, channel, frame, y, x)."""

    def arguments(self, pipe: Any, texts: list[str], height: int, width: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The pipeline's arguments for these prompts, except steps, generators and the kind of output."""
        size = {"height": height, "width": width, **self.of_size(height, width)} if self.takes_size else {}
        given = {
            name: [picture_files.opened(name, value, height, width)] * len(texts) if name in self.pictures else value
            for name, value in settings.items()
        }
        named = {self.argument_of.get(name, name): value for name, value in given.items()}
        return {**self.prompts(pipe, texts, settings), **size, **self.guidance_off, **named}

    def check_pictures(self, name: str, settings: Mapping[str, Any]) -> None:
        """Raise InputError unless every picture of a run is given."""
        missing = next((picture for picture in self.pictures if not settings[picture]), None)
        if missing is not None:
            raise InputError(
                f"settings: {name} draws from a picture, and {missing} is not given; add --settings {missing}=PATH"
            )

    def checked(self, name: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The given settings of a model, if it has them and their values are in their range."""
        unknown = given.keys() - own.keys()
        if unknown:
            raise InputError(f"{sorted(unknown)[0]} has no effect on {name}; its settings: {', '.join(sorted(own)) or 'none'}")
        for key, value in given.items():
            if key in self.pictures:
                if not isinstance(value, str | Path) and not (isinstance(value, Mapping) and "path" in value):
                    raise InputError(f"{key} must be the path of a picture, such as --settings {key}=cat.png; got {value!r}")
                continue
            least, most = 0 if isinstance(own[key], float) else 1, self.settings_maximum.get(key, math.inf)
            if isinstance(value, bool) or not isinstance(value, type(own[key]) | int) or not least <= value <= most:
                bounds = f"at least {least}" if most == math.inf else f"in {least}..{most}"
                raise InputError(f"{key} must be a number {bounds}; got {value!r}")
        return dict(given)


def guidance_scale(given: Mapping[str, Any]) -> float | None:
    """The argument `guidance_scale` of a pipeline's call; `None` where it turns guidance off."""
    return given["guidance_scale"] if given["guidance_scale"] > 1 else None


def scale_without_rescaling(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it rescales its guided prediction."""
    scale = guidance_scale(given)
    if scale is not None and given["guidance_rescale"] > 0:
        raise InputError(
            "guided: with guidance_rescale the pipeline rescales its own guidance, so no guidance can be added to it; leave it "
            "at 0, or use interp.generate(guidance=...)"
        )
    return scale


@dataclasses.dataclass(frozen=True)
class OwnGuidance:
    """How a family's pipelines run their own classifier-free guidance, u + scale (c - u)."""

    rows: str
    """"uncond first" or "cond first" in one batch, or "calls": a call for cond, then one for uncond."""
    scale: Callable[[Mapping[str, Any]], float | None] = guidance_scale
    """The arguments of a pipeline's call -> its scale; `None` where it is off."""
    parts: Callable[[Any], int] = lambda transformer: 1
    """(transformer) -> equal parts of its output; the first is guided."""
    follows: bool = False
    """Whether its loop reads `pipe.guidance_scale` at every step, so that a callback may change it."""


@dataclasses.dataclass(frozen=True)
class ModelFamily:
    """One model family."""

    name: str
    """Equal to its anatomy's `family`."""
    transformer: str
    """The transformer's class in diffusers."""
    describe: Describe
    """(transformer) -> its anatomy."""
    pipelines: tuple[PipelineSpec, ...]
    own_guidance: OwnGuidance


def scaled_out(pipe: Any, latents: Any) -> Any:
    """Divide latents by the autoencoder's scale and add its shift."""
    config = pipe.vae.config
    return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)


def scaled_in(pipe: Any, latents: Any) -> Any:
    """The inverse of `scaled_out`."""
    config = pipe.vae.config
    return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
