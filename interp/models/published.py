"""Published transformer configs of catalog models (from their hub repositories), so that their shapes need no network."""

from __future__ import annotations

from typing import Any

_SD3: dict[str, Any] = {
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "joint_attention_dim": 4096,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "sample_size": 128,
}
_MEDIUM = {"num_attention_heads": 24, "num_layers": 24, "caption_projection_dim": 1536}
_FLUX: dict[str, Any] = {
    "attention_head_dim": 128,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
    "axes_dims_rope": [16, 56, 56],
}
SD3, FLUX, DIT = "SD3Transformer2DModel", "FluxTransformer2DModel", "DiTTransformer2DModel"

CONFIGS: dict[str, dict[str, Any]] = {
    "sd3": {"_class_name": SD3, **_SD3, **_MEDIUM, "pos_embed_max_size": 192},
    "sd3.5": {
        "_class_name": SD3,
        **_SD3,
        "num_attention_heads": 38,
        "num_layers": 38,
        "caption_projection_dim": 2432,
        "pos_embed_max_size": 192,
        "qk_norm": "rms_norm",
    },
    "sd3.5-medium": {
        "_class_name": SD3,
        **_SD3,
        **_MEDIUM,
        "pos_embed_max_size": 384,
        "qk_norm": "rms_norm",
        "dual_attention_layers": list(range(13)),
    },
    "flux": {"_class_name": FLUX, **_FLUX, "guidance_embeds": True},
    "flux-schnell": {"_class_name": FLUX, **_FLUX, "guidance_embeds": False},
    "flux-dedistilled": {"_class_name": FLUX, **_FLUX, "guidance_embeds": False},
    "dit-xl": {
        "_class_name": DIT,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "sample_size": 32,
        "patch_size": 2,
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_zero",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
    },
}
