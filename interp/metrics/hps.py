"""HPSv2.1 (Wu et al. 2023): a CLIP ViT-H/14 trained on human preferences, its open_clip checkpoint converted to transformers.

open_clip stores query, key and value in one matrix and projections transposed; other tensors are renamed.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp.base.errors import InputError
from interp.metrics import preprocess
from interp.metrics.checkpoints import Weights, tokenizer_of
from interp.metrics.preprocess import Array
from interp.metrics.tensors import fill, tensors_of
from interp.metrics.towers import Clip, device_of, dtype_of, reading

HEAD = {"vision": 80, "text": 64}
"""Channels of an attention head of ViT-H/14, 16 heads in each tower; checkpoints do not store it."""
NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Names in a block, open_clip's and transformers'."""
WHOLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}


class Hps(Clip):
    """HPSv2.1's towers. `tokenizer` is CLIP's (open_clip's is the same), by default the one that `tokenizer_of` finds."""

    def __init__(
        self,
        weights: Weights,
        *,
        tokenizer: Weights | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

        tensors = tensors_of(weights)
        self.weights, self.device = weights, device_of(device)
        try:
            model = CLIPModel(CLIPConfig(**configuration(tensors)))
        except KeyError as error:
            raise InputError(f"weights hps={weights.path} are not an open_clip checkpoint: they lack {error.args[0]}") from None
        fill(model, converted(tensors), weights)
        self.model = model.to(self.device, dtype_of(dtype)).eval()
        words = tokenizer or tokenizer_of(weights)
        with reading(words):
            self.tokenizer = CLIPTokenizer.from_pretrained(words.path)
        self.prepared = preprocess.letterbox

    def read(self, prompts: Sequence[str]) -> Tensor:
        """As `Clip` does, after unescaping entities such as &amp;, as in open_clip."""
        return super().read([html.unescape(html.unescape(prompt)).strip() for prompt in prompts])


def hps_score(hps: Hps, images: Array, prompts: Sequence[str]) -> Array:
    """100 times the cosine: (picture). hpsv2's `score` gives the cosine; its tables and the papers use 100 times that."""
    return np.asarray(100 * hps.cosine(images, prompts))


def configuration(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """transformers' configuration for an open_clip checkpoint, from its shapes; KeyError if it is not one."""
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    patches = tensors["visual.positional_embedding"].shape[0] - 1  # the first position is the class token's
    longest, text_width = tensors["positional_embedding"].shape
    common = {"projection_dim": tensors["text_projection"].shape[1], "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    vision = {
        **_depth(tensors, "visual.transformer.resblocks."),
        **common,
        "hidden_size": width,
        "num_attention_heads": width // HEAD["vision"],
        "patch_size": patch,
        "image_size": round(patches**0.5) * patch,
    }
    text = {
        **_depth(tensors, "transformer.resblocks."),
        **common,
        "hidden_size": text_width,
        "num_attention_heads": text_width // HEAD["text"],
        "max_position_embeddings": longest,
        "vocab_size": tensors["token_embedding.weight"].shape[0],
        "eos_token_id": 2,  # makes transformers pool at the highest id, the end of text, as open_clip does
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    return {"vision_config": vision, "text_config": text, "projection_dim": common["projection_dim"]}


def _depth(tensors: Mapping[str, Tensor], tower: str) -> dict[str, int]:
    blocks = {name.removeprefix(tower).split(".")[0] for name in tensors if name.startswith(tower)}
    wide = tensors[f"{tower}0.mlp.c_fc.weight"].shape[0]
    return {"num_hidden_layers": len(blocks), "intermediate_size": wide}


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors under transformers' names; tensors without one, such as the mask, are dropped."""
    found = {new: tensors[old] for old, new in WHOLE.items() if old in tensors}
    if "visual.proj" in tensors and "text_projection" in tensors:
        found["visual_projection.weight"] = tensors["visual.proj"].T.contiguous()
        found["text_projection.weight"] = tensors["text_projection"].T.contiguous()
    for name, value in tensors.items():
        tower = next((tower for tower in TOWERS if name.startswith(tower)), None)
        if tower is None:
            continue
        number, rest = name.removeprefix(tower).split(".", 1)
        block = f"{TOWERS[tower]}.encoder.layers.{number}"
        if rest.startswith("attn.in_proj_"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{block}.self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}"] = part.contiguous()
            continue
        module, _, kind = rest.rpartition(".")
        if module in NAMES:
            found[f"{block}.{NAMES[module]}.{kind}"] = value
    return found
