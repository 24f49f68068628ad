"""The model families, one data file each. To add one in your own code: `interp.register_anatomy`."""

from __future__ import annotations

from interp.models.anatomy import Describe
from interp.models.families import (
    auraflow,
    chroma,
    cogvideox,
    dit,
    flux,
    flux2,
    hidream,
    hunyuandit,
    hunyuanimage,
    hunyuanvideo,
    ltx,
    mochi,
    pixart,
    qwenimage,
    sana,
    sd3,
    stableaudio,
    wan,
)
from interp.models.families.pipeline import OwnGuidance, PipelineSpec

ANATOMIES: dict[str, Describe] = {
    "SD3Transformer2DModel": sd3.describe,
    "FluxTransformer2DModel": flux.describe,
    "DiTTransformer2DModel": dit.describe,
    "Flux2Transformer2DModel": flux2.describe,
    "QwenImageTransformer2DModel": qwenimage.describe,
    "SanaTransformer2DModel": sana.describe,
    "PixArtTransformer2DModel": pixart.describe,
    "WanTransformer3DModel": wan.describe,
    "AuraFlowTransformer2DModel": auraflow.describe,
    "ChromaTransformer2DModel": chroma.describe,
    "HunyuanDiT2DModel": hunyuandit.describe,
    "LTXVideoTransformer3DModel": ltx.describe,
    "HunyuanImageTransformer2DModel": hunyuanimage.describe,
    "MochiTransformer3DModel": mochi.describe,
    "HiDreamImageTransformer2DModel": hidream.describe,
    "StableAudioDiTModel": stableaudio.describe,
    "HunyuanVideoTransformer3DModel": hunyuanvideo.describe,
    "CogVideoXTransformer3DModel": cogvideox.describe,
}
_SPECS = (
    sd3.PIPELINE,
    flux.PIPELINE,
    dit.PIPELINE,
    flux2.PIPELINE,
    qwenimage.PIPELINE,
    sana.PIPELINE,
    pixart.ALPHA,
    pixart.SIGMA,
    wan.PIPELINE,
    auraflow.PIPELINE,
    chroma.PIPELINE,
    hunyuandit.PIPELINE,
    ltx.PIPELINE,
    cogvideox.PIPELINE,
    hunyuanimage.PIPELINE,
    mochi.PIPELINE,
    hidream.PIPELINE,
    stableaudio.PIPELINE,
    hunyuanvideo.PIPELINE,
)
PIPELINES: dict[str, PipelineSpec] = {spec.pipeline_class: spec for spec in _SPECS}
OWN_GUIDANCE: dict[str, OwnGuidance] = {
    "sd3": sd3.OWN_GUIDANCE,
    "flux": flux.OWN_GUIDANCE,
    "dit": dit.OWN_GUIDANCE,
    "flux2": flux2.OWN_GUIDANCE,
    "qwenimage": qwenimage.OWN_GUIDANCE,
    "sana": sana.OWN_GUIDANCE,
    "pixart": pixart.OWN_GUIDANCE,
    "wan": wan.OWN_GUIDANCE,
    "auraflow": auraflow.OWN_GUIDANCE,
    "chroma": chroma.OWN_GUIDANCE,
    "hunyuandit": hunyuandit.OWN_GUIDANCE,
    "ltx": ltx.OWN_GUIDANCE,
    "cogvideox": cogvideox.OWN_GUIDANCE,
    "hunyuanimage": hunyuanimage.OWN_GUIDANCE,
    "mochi": mochi.OWN_GUIDANCE,
    "hidream": hidream.OWN_GUIDANCE,
    "stableaudio": stableaudio.OWN_GUIDANCE,
    "hunyuanvideo": hunyuanvideo.OWN_GUIDANCE,
}
"""How the pipelines of a family run their own guidance, by the anatomy's family."""


def register_anatomy(transformer_class: str, describe: Describe, pipeline: PipelineSpec | None = None) -> None:
    """Teach this process a transformer class; with `pipeline`, also the diffusers pipeline that samples with it.

    `describe(transformer)` returns an `Anatomy`. Registering a class again replaces what was known of it.
    """
    ANATOMIES[transformer_class] = describe
    if pipeline is not None:
        PIPELINES[pipeline.pipeline_class] = pipeline
