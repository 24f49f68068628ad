"""Pipelines that take a picture besides the prompt, each from its family's text-to-image pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from interp.base.streams import REFERENCE
from interp.models.anatomy import Inputs
from interp.models.families.calls import Settings
from interp.models.families.pipeline import Layout, PipelineSpec
from interp.models.families.schedules import Levels, after_strength


def from_picture(
    text: PipelineSpec, pipeline_class: str, *pictures: str, levels: Levels | None = None, **further: Any
) -> PipelineSpec:
    """The pipeline of the same weights that begins with a picture under noise, of a `strength` in 0..1: at 1 noise alone.

    `pictures` are the settings that it takes besides `image`, `levels` are those of its schedule where they differ.
    """
    named = ("image", *pictures)
    return dataclasses.replace(
        text,
        pipeline_class=pipeline_class,
        pictures=named,
        settings=lambda pipe: {**text.settings(pipe), **dict.fromkeys(named, ""), "strength": 0.6},
        settings_maximum={**text.settings_maximum, "strength": 1},
        levels=dataclasses.replace(levels or text.levels, begins=after_strength),
        **further,
    )


def inpainting(text: PipelineSpec, pipeline_class: str, **further: Any) -> PipelineSpec:
    """The same with a mask, white where the picture is generated again. After every step of the scheduler the pipeline puts the
    picture's own latents back elsewhere.
    """
    return from_picture(text, pipeline_class, "mask", argument_of={**text.argument_of, "mask": "mask_image"}, **further)


def beside_picture(text: PipelineSpec, pipeline_class: str, reference: Callable[[Inputs], int], **further: Any) -> PipelineSpec:
    """The pipeline of the same transformer that holds a picture's tokens, as many as the generated ones, behind those."""

    def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
        own = text.layout(pipe, height, width, settings)
        return dataclasses.replace(own, sizes={**own.sizes, REFERENCE: own.sizes[own.generated]})

    return dataclasses.replace(
        text,
        pipeline_class=pipeline_class,
        layout=layout,
        reference=reference,
        pictures=("image",),
        settings=lambda pipe: {**text.settings(pipe), "image": ""},
        **further,
    )
