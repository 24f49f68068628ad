"""Pipelines that take a picture besides the prompt: each with the parts of its family's tiny text-to-image pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
from PIL import Image
from test_flux import TestFlux as _Flux
from test_qwenimage import TestQwenImage as _QwenImage
from test_sd3 import TestSD3 as _SD3

import interp
from interp.models import tiny
from interp.models.quiet import quiet
from interp.testing import FamilyTests

STRENGTH = 0.64  # leaves out one step of 3, 4 and 5
PICTURES = ("image", "mask")
SIDE = 64  # pixels that the tiny models draw by default


def picture(path: Path, seed: int = 0) -> Path:
    """A picture of random colours in squares, of another shape than any run's."""
    squares = np.random.default_rng(seed).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(squares.repeat(16, axis=0).repeat(16, axis=1)).save(path)
    return path


class FromPicture(FamilyTests):
    """The laws with a picture. The plain pipeline receives it resized, once for every prompt."""

    pipeline: str = ""
    given: ClassVar[dict[str, Any]] = {"strength": STRENGTH}
    published: ClassVar[dict[str, Any]] = {}
    pictures_given: Sequence[str] = ("image",)
    leaves_out = 1

    def load(self, folder: Path) -> interp.Model:
        """Its folder's own settings give a picture."""
        if not (folder / "model_index.json").exists():
            folder.mkdir(exist_ok=True)
            with quiet():
                text, defaults = tiny.make(self.kind, **self.sizes)
                pipe = getattr(diffusers, self.pipeline)(**text.components)
            pictures = {name: str(picture(folder / f"{name}.png", seed)) for seed, name in enumerate(self.pictures_given)}
            settings = {**defaults.settings, **pictures, **self.given}
            tiny.save(pipe, folder, dataclasses.replace(defaults, settings=settings))
        return interp.load(folder)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return super().no_prompt(pipe, self.of_text(settings))

    def of_text(self, settings: Any) -> dict[str, Any]:
        """The settings of the text-to-image pipeline."""
        return {name: value for name, value in settings.items() if name not in (*PICTURES, *self.given)}

    def pictures_of(self, settings: Any, count: int, height: int, width: int) -> dict[str, Any]:
        """The pipeline's arguments that carry the pictures of a call."""
        opened = {name: Image.open(settings[name]["path"]) for name in PICTURES if name in settings}
        names = {"image": "image", "mask": "mask_image"}
        return {names[name]: [one.resize((width, height), Image.Resampling.BICUBIC)] * count for name, one in opened.items()}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        own = {name: value for name, value in settings.items() if name in self.given}
        text = super().arguments(pipe, prompts, self.of_text(settings), scale)
        return {**text, **self.pictures_of(settings, len(prompts), SIDE, SIDE), **own}

    def draw(self, pipe: Any, prompts: Sequence[str], settings: Any, scale: float, **more: Any) -> Any:
        pictures = self.pictures_of(settings, len(prompts), more.get("height", SIDE), more.get("width", SIDE))
        return super().draw(pipe, prompts, settings, scale, **{**pictures, **more})


class TestFluxImg2Img(FromPicture, _Flux):
    name, pipeline = "flux-img2img", "FluxImg2ImgPipeline"


class TestFluxKontext(FromPicture, _Flux):
    """Kontext holds the picture's tokens behind as many generated ones, in every block."""

    name, pipeline = "flux-kontext", "FluxKontextPipeline"
    given: ClassVar[dict[str, Any]] = {}
    published: ClassVar[dict[str, Any]] = {
        "flux-kontext": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
    }
    leaves_out = 0

    def hooks(self, transformer: Any, seen: Any) -> None:
        doubles = list(transformer.transformer_blocks)
        for index, block in enumerate([*doubles, *transformer.single_transformer_blocks]):
            seen.after(block, partial(self.keep, seen, index))
            if index < len(doubles):
                seen.gates_after(block.norm1, index, ["image", "reference"], {"attn": 1, "mlp": 4})
                seen.gates_after(block.norm1_context, index, ["text"], {"attn": 1, "mlp": 4})
            else:
                seen.gates_after(block.norm, index, ["image", "text", "reference"], {"attn": 1})

    def keep(self, seen: Any, index: int, output: Any) -> None:
        text, both = output
        for stream, state in zip(("text", "image", "reference"), (text, *both.chunk(2, dim=1)), strict=True):
            seen.keep_state(stream, index, state)

    def pictures_of(self, settings: Any, count: int, height: int, width: int) -> dict[str, Any]:
        return {**super().pictures_of(settings, count, height, width), "max_area": height * width, "_auto_resize": False}


class TestSD3Img2Img(FromPicture, _SD3):
    name, pipeline = "sd3-img2img", "StableDiffusion3Img2ImgPipeline"


class TestQwenImageImg2Img(FromPicture, _QwenImage):
    name, pipeline = "qwenimage-img2img", "QwenImageImg2ImgPipeline"


class TestFluxInpaint(FromPicture, _Flux):
    name, pipeline, pictures_given = "flux-inpaint", "FluxInpaintPipeline", PICTURES
    decodes = False  # the scheduler's last latents are not yet those of the picture outside the mask


class TestSD3Inpaint(FromPicture, _SD3):
    name, pipeline, pictures_given = "sd3-inpaint", "StableDiffusion3InpaintPipeline", PICTURES
    sizes: ClassVar[dict[str, Any]] = {"latent_channels": 16}  # the pipeline takes no other number
    decodes = False  # the same
