"""DiT (`DiTTransformer2DModel`, `DiTPipeline`), as in diffusers 0.42: class-conditional, no text stream.

A block returns its image state alone. Each block embeds timestep and class itself (`norm1.emb`). The output layer reuses the
first block's embedding, through `proj_out_1`. A prompt is an ImageNet label or its number.
"""

from __future__ import annotations

from typing import Any

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap
from interp.models.families.blocks import ADALN_ZERO, image_stream, mlp_taps, numbered
from interp.models.families.calls import Settings, epsilon_and_sigma, patch_layout
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, PipelineSpec, guidance_scale
from interp.models.families.sd3 import position
from interp.models.lazy import torch


def project(block: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """AdaLN projection of a block: linear(silu(embedding of timestep and class)), (batch, 6 * channel)."""
    norm: Any = block.get_submodule("norm1")
    embedding = norm.emb(inputs["timestep"], inputs["class_labels"], hidden_dtype=inputs["hidden_states"].dtype)
    projected: torch.Tensor = norm.linear(norm.silu(embedding))
    return projected


BLOCK = Block(
    path="",
    kind="class-conditional",
    hidden={"image": None},
    reads=(
        Modulation("image", "norm1.linear", ADALN_ZERO, project),
        Tap("image", "modulated", "attn", "norm1", item=0),
        Tap("image", "branch", "attn", "attn1"),
        *mlp_taps("image", "norm3", "ff"),
    ),
    row_inputs=("hidden_states", "timestep", "class_labels"),
    state_inputs={"image": "hidden_states"},
    norms=(Norm("norm1.norm"), Norm("norm3")),
    attention=("attn1.to_v", "attn1.to_out.0"),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """Blocks embed timestep and class themselves; `hidden_states` gives only the dtype."""
    return {**inputs, "hidden_states": torch.empty(0, dtype=transformer.dtype)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `DiTTransformer2DModel`."""
    return Anatomy(
        family="dit",
        model_class="DiTTransformer2DModel",
        streams=(image_stream(transformer.inner_dim),),
        blocks=numbered(transformer, transformer_blocks=BLOCK),
        row_inputs=("hidden_states", "timestep", "class_labels"),
        reentries=(Reentry("proj_out_1", "input"),),
        position=position,
        conditioning=Conditioning({"timestep": "timestep", "text": "class_labels"}, block_conditioning),
        last_norm=Norm("norm_out"),
    )


def class_labels(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Class numbers of prompts that are ImageNet labels (one of a class's names) or numbers."""
    return {"class_labels": [class_number(pipe, text) for text in texts]}


def class_tensor(pipe: Any, texts: list[str], settings: Settings) -> dict[str, torch.Tensor]:
    """Class numbers, (batch,)."""
    return {"class_labels": torch.tensor(class_labels(pipe, texts, settings)["class_labels"], device=pipe.device)}


def unconditional(pipe: Any, negative_prompt: str, settings: Settings) -> dict[str, torch.Tensor]:
    """The null class."""
    if negative_prompt:
        raise InputError(f"negative_prompt has no meaning for a class-conditional model; got {negative_prompt!r}")
    return {"class_labels": torch.tensor([pipe.transformer.config.num_embeds_ada_norm], device=pipe.device)}


def class_number(pipe: Any, text: str) -> int:
    """One prompt's class."""
    classes = pipe.transformer.config.num_embeds_ada_norm
    if text.isdecimal():
        if int(text) < classes:
            return int(text)
        raise InputError(f"prompt: a class number must lie in 0..{classes - 1}; got {text}")
    names = {name.lower(): number for name, number in pipe.labels.items()}
    if text.lower() not in names:
        shown = ", ".join(sorted(names)[:5]) + ", ..." if names else "none: this model's folder has no labels"
        raise InputError(f"prompt must be a class number (0..{classes - 1}) or label ({shown}); got {text!r}")
    return int(names[text.lower()])


def scale(pipe: Any) -> int:
    """Pixels per latent along an axis."""
    return int(2 ** (len(pipe.vae.config.block_out_channels) - 1))


def default_size(pipe: Any) -> tuple[int, int]:
    """The model's only size, pixels."""
    side = pipe.transformer.config.sample_size * scale(pipe)
    return side, side


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens and latents of the only size; the sigma half of the output never enters the latents."""
    return patch_layout(pipe, *default_size(pipe), scale=scale(pipe), prediction=epsilon_and_sigma(pipe.transformer))


PIPELINE = PipelineSpec(
    pipeline_class="DiTPipeline",
    layout=layout,
    guidance_off={"guidance_scale": 1.0},
    prompts=class_labels,
    check_texts=lambda pipe, texts: class_labels(pipe, texts, {}),
    examples=("1", "2"),
    default_size=default_size,
    takes_size=False,
    conditions=class_tensor,
    unconditional=unconditional,
)
OWN_GUIDANCE = OwnGuidance("cond first", guidance_scale, lambda transformer: len(epsilon_and_sigma(transformer)))
FAMILY = ModelFamily("dit", "DiTTransformer2DModel", describe, (PIPELINE,), OWN_GUIDANCE)
