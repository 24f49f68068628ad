"""Published transformer configs of catalog models, so that their shapes need no network.

Of Stable Diffusion 3, FLUX.1 and DiT from their hub repositories. Of FLUX.2 klein, SANA, PixArt, Wan, LTX-Video, CogVideoX,
HunyuanImage, HunyuanVideo and Mochi from diffusers' own conversion scripts (`scripts/convert_{flux2,wan,...}_to_diffusers.py`).
Of Qwen-Image, AuraFlow, Chroma and Stable Audio the defaults of diffusers' classes. Of Hunyuan-DiT its authors' DiT-g/2 (40
blocks, 1408 channels, mlp_ratio 4.3637). Of HiDream the class's defaults, and what these leave open as loaders of its weights
have it: its own config was not seen. Where the hub's own config is on the machine, `interp inspect` uses that one.
"""

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
FLUX2, QWEN, SANA = "Flux2Transformer2DModel", "QwenImageTransformer2DModel", "SanaTransformer2DModel"
HUNYUANIMAGE = "HunyuanImageTransformer2DModel"
MOCHI, HUNYUANVIDEO = "MochiTransformer3DModel", "HunyuanVideoTransformer3DModel"
HIDREAM = "HiDreamImageTransformer2DModel"
LTX, COGVIDEOX = "LTXVideoTransformer3DModel", "CogVideoXTransformer3DModel"
CHROMA, HUNYUANDIT = "ChromaTransformer2DModel", "HunyuanDiT2DModel"
PIXART, WAN = "PixArtTransformer2DModel", "WanTransformer3DModel"
_KLEIN: dict[str, Any] = {
    "in_channels": 128,
    "attention_head_dim": 128,
    "timestep_guidance_channels": 256,
    "axes_dims_rope": [32, 32, 32, 32],
    "guidance_embeds": False,
}
_SANA: dict[str, Any] = {
    "in_channels": 32,
    "out_channels": 32,
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
    "mlp_ratio": 2.5,
    "sample_size": 32,
    "qk_norm": "rms_norm_across_heads",
}
_PIXART: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "sample_size": 128,
}
_WAN: dict[str, Any] = {
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "patch_size": [1, 2, 2],
}

_COGVIDEOX: dict[str, Any] = {
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 226,
    "sample_height": 60,
    "sample_width": 90,
    "sample_frames": 49,
}

_HUNYUANIMAGE: dict[str, Any] = {
    "in_channels": 64,
    "out_channels": 64,
    "num_attention_heads": 28,
    "attention_head_dim": 128,
    "num_layers": 20,
    "num_single_layers": 40,
    "num_refiner_layers": 2,
    "patch_size": [1, 1],
    "qk_norm": "rms_norm",
    "text_embed_dim": 3584,
    "text_embed_2_dim": 1472,
    "rope_theta": 256.0,
    "rope_axes_dim": [64, 64],
}

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
    "flux2-klein": {
        "_class_name": FLUX2,
        **_KLEIN,
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
    },
    "flux2-klein-9b": {
        "_class_name": FLUX2,
        **_KLEIN,
        "num_layers": 8,
        "num_single_layers": 24,
        "num_attention_heads": 32,
        "joint_attention_dim": 12288,
    },
    "qwen-image": {
        "_class_name": QWEN,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
        "axes_dims_rope": [16, 56, 56],
    },
    "sana1.5": {"_class_name": SANA, **_SANA, "num_layers": 20},
    "sana1.5-4.8b": {"_class_name": SANA, **_SANA, "num_layers": 60},
    "pixart": {"_class_name": PIXART, **_PIXART, "use_additional_conditions": True},
    "pixart-sigma": {"_class_name": PIXART, **_PIXART, "use_additional_conditions": False},
    "wan2.1": {"_class_name": WAN, **_WAN, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    "auraflow": {
        "_class_name": "AuraFlowTransformer2DModel",
        "num_mmdit_layers": 4,
        "num_single_dit_layers": 32,
        "attention_head_dim": 256,
        "num_attention_heads": 12,
        "joint_attention_dim": 2048,
        "caption_projection_dim": 3072,
    },
    "chroma": {"_class_name": CHROMA, "num_layers": 19, "num_single_layers": 38},
    "hunyuandit": {
        "_class_name": HUNYUANDIT,
        "num_attention_heads": 16,
        "attention_head_dim": 88,
        "in_channels": 4,
        "patch_size": 2,
        "sample_size": 128,
        "hidden_size": 1408,
        "num_layers": 40,
        "mlp_ratio": 4.3637,
        "cross_attention_dim": 1024,
        "cross_attention_dim_t5": 2048,
        "pooled_projection_dim": 1024,
        "use_style_cond_and_image_meta_size": False,
    },
    "ltx-video": {
        "_class_name": LTX,
        "in_channels": 128,
        "out_channels": 128,
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
        "num_layers": 28,
        "caption_channels": 4096,
    },
    "cogvideox-2b": {"_class_name": COGVIDEOX, **_COGVIDEOX, "num_attention_heads": 30, "num_layers": 30},
    "cogvideox-5b": {
        "_class_name": COGVIDEOX,
        **_COGVIDEOX,
        "num_attention_heads": 48,
        "num_layers": 42,
        "use_rotary_positional_embeddings": True,
    },
    "hunyuanimage2.1": {"_class_name": HUNYUANIMAGE, **_HUNYUANIMAGE, "guidance_embeds": False},
    "hunyuanimage2.1-distilled": {"_class_name": HUNYUANIMAGE, **_HUNYUANIMAGE, "guidance_embeds": True, "use_meanflow": True},
    "mochi": {
        "_class_name": MOCHI,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 48,
        "pooled_projection_dim": 1536,
        "in_channels": 12,
        "text_embed_dim": 4096,
    },
    "hunyuanvideo": {
        "_class_name": HUNYUANVIDEO,
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 20,
        "num_single_layers": 40,
        "guidance_embeds": True,
        "text_embed_dim": 4096,
        "pooled_projection_dim": 768,
    },
    "hidream": {
        "_class_name": HIDREAM,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 16,
        "num_single_layers": 32,
        "attention_head_dim": 128,
        "num_attention_heads": 20,
        "caption_channels": [4096, 4096],
        "text_emb_dim": 2048,
        "num_routed_experts": 4,
        "num_activated_experts": 2,
        "axes_dims_rope": [64, 32, 32],
        "max_resolution": [128, 128],
        "llama_layers": [*range(32), *[31] * 16],
    },
    "stable-audio": {"_class_name": "StableAudioDiTModel"},
    "wan2.1-14b": {"_class_name": WAN, **_WAN, "num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
}
