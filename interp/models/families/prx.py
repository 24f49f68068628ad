"""PRX (`PRXTransformer2DModel`, `PRXPipeline`), as in diffusers 0.42: one stream, and text that the blocks do not change.

A block returns its image state alone. Image tokens attend to text tokens and to each other in one attention. The block's own
projection (`modulation.lin`) of the timestep gives the gates. Text does not enter the gates. `temb` enters again in
`final_layer`. One layer computes queries, keys and values, so attention cannot be perturbed.

The pipeline gives the transformer one timestep for all rows. With its own guidance on it gives two, whatever the batch, so that
guidance draws one prompt at a time.

It cleans prompts with ftfy, which may not be installed, and makes them lower case. Here prompts are encoded as they are given.
"""

from __future__ import annotations

from typing import Any

from interp.models.anatomy import Anatomy, Block, Conditioning, Inputs, Modulation, Norm, Reentry, Tap, Timestep
from interp.models.families.blocks import ADALN_ZERO, image_stream, numbered
from interp.models.families.calls import Settings, patch_layout, text_pipeline
from interp.models.families.pipeline import ModelFamily, OwnGuidance
from interp.models.lazy import torch

TEXT = ("encoder_hidden_states", "attention_mask")
NORM = "post_attention_layernorm"


def project(block: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """AdaLN projection of a block: lin(silu(temb)), (batch, chunk * channel)."""
    layer: Any = block.get_submodule("modulation.lin")
    values: torch.Tensor = layer(torch.nn.functional.silu(inputs["temb"]))
    return values


CROSS = Block(
    path="",
    kind="cross",
    hidden={"image": None},
    reads=(
        Modulation("image", "modulation.lin", ADALN_ZERO, project),
        Tap("image", "modulated", "attn", "attention", "input"),
        Tap("image", "branch", "attn", "attention"),
        Tap("image", "mid", None, NORM, "input"),
        Tap("image", "modulated", "mlp", "gate_proj", "input"),
        Tap("image", "branch", "mlp", "down_proj"),
    ),
    row_inputs=("hidden_states", *TEXT, "temb", "image_rotary_emb"),
    state_inputs={"image": "hidden_states"},
    norms=(Norm("img_pre_norm"), Norm(NORM)),
)


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """`temb` as the transformer's forward computes it."""
    return {"temb": transformer._compute_timestep_embedding(inputs["timestep"], dtype=transformer.dtype)}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of a `PRXTransformer2DModel`. Where the picture's size enters the gates, they need a whole call."""
    sized = transformer.resolution_embedder is not None
    return Anatomy(
        family="prx",
        model_class="PRXTransformer2DModel",
        streams=(image_stream(transformer.hidden_size),),
        blocks=numbered(transformer, blocks=CROSS),
        row_inputs=("hidden_states", "timestep", *TEXT),
        reentries=(Reentry("final_layer", "vec"),),
        timestep=Timestep(scale=1000.0),
        conditioning=None if sized else Conditioning({"timestep": "timestep"}, block_conditioning),
        last_norm=Norm("final_layer.norm_final"),
        forks=False,
    )


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Text tokens (batch, token, channel) and their mask (batch, token), of texts that are not cleaned."""
    length = settings["max_sequence_length"]
    given = pipe.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    tokens, mask = (given[name].to(pipe._execution_device) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        states = pipe.text_encoder(input_ids=tokens, attention_mask=mask.bool())["last_hidden_state"]
    return dict(zip(TEXT, (states, mask.bool()), strict=True))


def prompts(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """Prompts as encoded text."""
    return dict(zip(("prompt_embeds", "prompt_attention_mask"), encode(pipe, texts, settings).values(), strict=True))


PIPELINE = text_pipeline(
    "PRXPipeline",
    lambda pipe, height, width, settings: patch_layout(pipe, height, width),
    encode,
    guidance_off={"guidance_scale": 1.0, "use_resolution_binning": False},
    default_size=lambda pipe: (pipe.get_default_resolution(),) * 2,
    settings=lambda pipe: {"max_sequence_length": pipe.tokenizer.model_max_length},
    argument_of={"max_sequence_length": "tokenizer_max_length"},
    prompts=prompts,
)
FAMILY = ModelFamily("prx", "PRXTransformer2DModel", describe, (PIPELINE,), OwnGuidance("uncond first"))
