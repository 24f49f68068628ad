"""LTX-2, text to video with sound (`LTX2VideoTransformer3DModel`, `LTX2Pipeline`), as in diffusers 0.42: two generated streams.

A block has a stream of video, `image`, with tokens (frame, y, x), and a narrower one of sound, `audio`, with tokens (time).
Each has its own AdaLN values and table, as in LTX-Video, and attends to itself (`attn`), to the text (`attn2`) and to the other
(`attn3`, whose gate adds the last row of another table). In LTX-2.3 `attn2` has a gate, too. Shifts and scales before `attn3`
are no sites: a stream has two pairs there, for its queries and for the other's keys. Text is no stream, as connectors write it
again for each. It does not enter the gates. The embedded timestep enters again outside any module.

The output holds a prediction of each stream. Guidance combines both as one; predictions and latents of a trace are the video's.
The pipeline's guidances other than the classifier-free one are turned off. Sound is drawn, but not stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError, ModelError
from interp.base.streams import Stream
from interp.models.anatomy import Anatomy, Block, Conditioning, Form, Inputs, Modulation, Reentry, Tap, Timestep
from interp.models.families.blocks import ADALN_ZERO, mlp_taps, numbered, tabled, video_stream
from interp.models.families.calls import Settings, falling, patch_layout, text_pipeline, video_layout
from interp.models.families.ltx import from_autoencoder, to_autoencoder, unpack
from interp.models.families.pipeline import Layout, ModelFamily, OwnGuidance, guidance_scale
from interp.models.families.schedules import Levels

SOUND = "audio"
OF_TEXT = ("shift.attn2", "scale.attn2", "alpha.attn2")
LATENTS = ("hidden_states", "audio_hidden_states")
TEXTS = ("encoder_hidden_states", "audio_encoder_hidden_states", "encoder_attention_mask", "audio_encoder_attention_mask")
TIMES = ("temb", "temb_audio", "temb_ca_scale_shift", "temb_ca_audio_scale_shift", "temb_ca_gate", "temb_ca_audio_gate")
FURTHER = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
"""The pipeline's further guidances, turned off. Each has an argument for the sound, too; `None` is the same value."""


def modulations(stream: str, temb: str, own: str, gate: str, other: str, *, of_text: bool) -> tuple[Modulation, Modulation]:
    """A stream's AdaLN values and the gate of its attention to the other stream: arguments, each with its table."""
    chunks = (*ADALN_ZERO, *(OF_TEXT if of_text else ()))
    return tabled(temb, chunks, stream, table=own), tabled(gate, ("alpha.attn3",), stream, table=other, first_row=4)


def attention(gate: str, video: str, sound: str, *, gated: tuple[bool, bool] = (True, True)) -> tuple[Tap, ...]:
    """The inputs and outputs of the streams' attentions."""
    found: list[Tap] = []
    for stream, module, has_gate in zip(("image", SOUND), (video, sound), gated, strict=True):
        found += [Tap(stream, "modulated", gate, module, "input"), Tap(stream, "branch", gate, module, gated=has_gate)]
    return tuple(found)


def block_of(config: Any) -> Block:
    """The block: each stage is done for the video, then for the sound."""
    of_text = (config.cross_attn_mod, config.audio_cross_attn_mod)
    tables = [f"{name}_a2v_cross_attn_scale_shift_table" for name in ("video", "audio")]
    return Block(
        path="",
        kind="cross",
        hidden={"image": 0, SOUND: 1},
        reads=(
            *modulations("image", "temb", "scale_shift_table", "temb_ca_gate", tables[0], of_text=of_text[0]),
            *modulations(SOUND, "temb_audio", "audio_scale_shift_table", "temb_ca_audio_gate", tables[1], of_text=of_text[1]),
            *attention("attn", "attn1", "audio_attn1"),
            *attention("attn2", "attn2", "audio_attn2", gated=of_text),
            *attention("attn3", "audio_to_video_attn", "video_to_audio_attn"),
            *mlp_taps("image", "norm3", "ff"),
            *mlp_taps(SOUND, "audio_norm3", "audio_ff"),
        ),
        row_inputs=(*LATENTS, *TEXTS, *TIMES, "temb_prompt", "temb_prompt_audio"),
        state_inputs=dict(zip(("image", SOUND), LATENTS, strict=True)),
        attention=("attn1.to_v", "attn1.to_out.0"),
    )


def block_conditioning(transformer: Any, inputs: Inputs) -> Inputs:
    """The blocks' AdaLN arguments, as the transformer's forward computes them where one timestep serves both streams."""
    time, config = inputs["timestep"].flatten(), transformer.config
    of_gate = time * (config.cross_attn_timestep_scale_multiplier / config.timestep_scale_multiplier)
    modules = {
        "temb": (transformer.time_embed, time),
        "temb_audio": (transformer.audio_time_embed, time),
        "temb_ca_gate": (transformer.av_cross_attn_video_a2v_gate, of_gate),
        "temb_ca_audio_gate": (transformer.av_cross_attn_audio_v2a_gate, of_gate),
    }
    made = {name: module(at, batch_size=len(at), hidden_dtype=transformer.dtype)[0] for name, (module, at) in modules.items()}
    return {name: value.view(len(time), 1, -1) for name, value in made.items()}


def describe(transformer: Any) -> Anatomy:
    """The anatomy of an `LTX2VideoTransformer3DModel`."""
    config = transformer.config
    if config.in_channels != config.audio_in_channels:
        raise ModelError("LTX2VideoTransformer3DModel: latents of video and sound must have as many channels")
    sound = Stream(SOUND, "generated", config.audio_num_attention_heads * config.audio_attention_head_dim, ("time",))
    return Anatomy(
        family="ltx2",
        model_class="LTX2VideoTransformer3DModel",
        streams=(video_stream(config.num_attention_heads * config.attention_head_dim), sound),
        blocks=numbered(transformer, transformer_blocks=block_of(config)),
        row_inputs=(*LATENTS, *TEXTS, "timestep", "sigma", "video_coords", "audio_coords"),
        reentries=(Reentry("time_embed", item=1), Reentry("audio_time_embed", item=1)),
        forms=dict.fromkeys(LATENTS, Form(drawn=True)),
        timestep=Timestep(alone=False),
        conditioning=Conditioning({"timestep": "timestep"}, block_conditioning),
        forks=False,
    )


def layout(pipe: Any, height: int, width: int, settings: Settings) -> Layout:
    """Tokens of both streams, and latents of a video of height x width pixels: a latent is a token."""
    config, frames = pipe.transformer.config, settings["num_frames"]
    if {config.patch_size, config.patch_size_t} != {1}:
        raise ModelError(
            "LTX2Pipeline: weights with a patch size above 1 cannot be traced: the pipeline positions single latents"
        )
    still = patch_layout(pipe, height, width, scale=pipe.vae_spatial_compression_ratio, least=32)
    video = video_layout(still, frames, pipe.vae_temporal_compression_ratio)
    rate = pipe.audio_sampling_rate / pipe.audio_hop_length / float(pipe.audio_vae_temporal_compression_ratio)
    sizes = {**video.sizes, SOUND: (round(frames / settings["frame_rate"] * rate),)}
    latents = {"latent_token": video.tokens("image"), "latent_channel": config.in_channels}
    return dataclasses.replace(video, sizes=sizes, latents=latents)


def encode(pipe: Any, texts: list[str], settings: Settings) -> dict[str, Any]:
    """The text of each stream, (batch, token, channel), and its mask."""
    states, mask, *_ = pipe.encode_prompt(texts, None, False, max_sequence_length=settings["max_sequence_length"])
    video, sound, mask = pipe.connectors(states, mask, padding_side=pipe.tokenizer.padding_side)
    return dict(zip(TEXTS, (video, sound, mask, mask), strict=True))


def own_scale(given: Mapping[str, Any]) -> float | None:
    """The pipeline's scale, or an error where it has further guidances, or another scale for the sound."""
    wanted = {"guidance_scale": given["guidance_scale"], **FURTHER}
    wrong = [name for name, value in wanted.items() if given[name] != value or given[f"audio_{name}"] not in (None, value)]
    if wrong:
        off = ", ".join(f"{name}={value}, audio_{name}=None" for name, value in FURTHER.items())
        raise InputError(
            f"guided: LTX2Pipeline guides in further ways ({wrong[0]}), to which no guidance can be added; call it with "
            f"audio_guidance_scale=None, {off}, or use interp.generate(guidance=...)"
        )
    return guidance_scale(given)


PIPELINE = text_pipeline(
    "LTX2Pipeline",
    layout,
    encode,
    longest=1024,
    guidance_off={"guidance_scale": 1.0, **FURTHER, **{f"audio_{name}": None for name in ("guidance_scale", *FURTHER)}},
    default_size=lambda pipe: (512, 768),
    settings=lambda pipe: {"max_sequence_length": 1024, "num_frames": 121, "frame_rate": 24.0},
    set_by_calls=("padding_side",),
    unpack=unpack,
    pack=lambda pipe, latents: pipe._pack_latents(latents),
    levels=Levels(falling),
    to_autoencoder=to_autoencoder,
    from_autoencoder=from_autoencoder,
    moving=True,
)
OWN = OwnGuidance("uncond first", own_scale, follows=True)
FAMILY = ModelFamily("ltx2", "LTX2VideoTransformer3DModel", describe, (PIPELINE,), OWN)
