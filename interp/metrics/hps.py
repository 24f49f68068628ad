"""HPSv2.1 (Wu et al. 2023): a CLIP ViT-H/14 trained on human preferences, its open_clip checkpoint converted to transformers.

open_clip stores query, key and value in one matrix and projections transposed; other tensors are renamed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp.base.errors import InputError
from interp.metrics import preprocess
from interp.metrics.checkpoints import Weights, fill, tensors_of, tokenizer_of
from interp.metrics.towers import Clip, device_of, dtype_of, reading
from interp.store.schema import Array

HEAD = {"vision": 80, "text": 64}
"""Channels of an attention head of ViT-H/14, 16 heads in each tower; checkpoints do not store it."""
RENAMED = (
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
    (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),
    (r"^visual\.ln_post", "vision_model.post_layernorm"),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding", "text_model.embeddings.token_embedding"),
    (r"^ln_final", "text_model.final_layer_norm"),
    (r"^text_projection$", "text_projection.weight"),
)
"""Names of tensors, open_clip's and transformers'."""


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
    """open_clip's tensors under transformers' names; those that transformers lacks, such as the mask, keep their names."""
    found: dict[str, Tensor] = {}
    for old, value in tensors.items():
        name = old
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if ".in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[name.replace(".in_proj_", f".{letter}_proj.")] = part.contiguous()
        else:
            found[name] = value.T.contiguous() if old in ("visual.proj", "text_projection") else value
    return found
