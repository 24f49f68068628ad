"""What a trace must give, computed without interp: plain torch hooks on diffusers' own modules, and numpy in float64.

Written from diffusers' source; it knows nothing of anatomies, sites or recorders.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from reference_later import LATER

from interp.models.families.pipeline import spectrogram


class Seen:
    """What the hooks saw: one entry a call, in order."""

    def __init__(self) -> None:
        self.hidden: dict[tuple[str, int], list[np.ndarray]] = {}
        self.alpha: dict[tuple[str, str, int], list[np.ndarray]] = {}
        self.latents: list[np.ndarray] = []

    def states(self, stream: str, block: int) -> np.ndarray:
        """(step, batch, token, channel)"""
        return np.stack(self.hidden[stream, block])

    def gates(self, stream: str, gate: str, block: int) -> np.ndarray:
        """(step, batch, channel)"""
        return np.stack(self.alpha[stream, gate, block])


Handles = list[Any]
TupleItems = dict[str, int]
CHUNKS = {"attn": 2, "mlp": 5}  # shift, scale, gate of attention, then of the MLP
ZERO, ZERO_X, SINGLE = {"attn": 1, "mlp": 4}, {"attn": 1, "mlp": 4, "attn2": 6}, {"attn": 1}


def gates_of(module: Any) -> TupleItems:
    """Where diffusers' AdaLN norms return their gates; a continuous one returns a tensor and has none."""
    return {"AdaLayerNormZero": ZERO, "SD35AdaLayerNormZeroX": ZERO_X, "AdaLayerNormZeroSingle": SINGLE}.get(
        type(module).__name__, {}
    )


def blocks_of(transformer: Any) -> list[tuple[Any, list[tuple[Any, tuple[str, ...]]]]]:
    """Every block in execution order, with its norms and the streams each norm's gates are for."""
    found = []
    for block in transformer.transformer_blocks:
        norms = [(block.norm1, ("image",))]
        if hasattr(block, "norm1_context"):
            norms.append((block.norm1_context, ("text",)))
        found.append((block, norms))
    for block in getattr(transformer, "single_transformer_blocks", []):
        found.append((block, [(block.norm, ("image", "text"))]))
    return found


@contextlib.contextmanager
def hooked(pipe: Any) -> Iterator[Seen]:
    """Plain forward hooks on every block and every AdaLN norm of an SD3, Flux or DiT pipeline."""
    seen, handles = Seen(), []

    def keep(store: dict[Any, list[np.ndarray]], key: Any, value: torch.Tensor) -> None:
        store.setdefault(key, []).append(value.detach().float().numpy().copy())

    other = OTHERS.get(type(pipe.transformer).__name__)
    if other is not None:
        handles += other(pipe.transformer, keep, seen)
    for index, (block, norms) in enumerate(blocks_of(pipe.transformer) if other is None else ()):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            states = zip(("text", "image"), output, strict=True) if isinstance(output, tuple) else [("image", output)]
            for stream, state in states:
                if state is not None:
                    keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
        for norm, streams in norms:

            def on_norm(module: Any, args: Any, output: Any, index: int = index, streams: Any = streams) -> None:
                for gate, item in gates_of(module).items():
                    for stream in streams:
                        keep(seen.alpha, (stream, gate, index), output[item])

            handles.append(norm.register_forward_hook(on_norm))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def carried_gates(argument: str, position: int) -> Any:
    """SANA, PixArt, Wan: each block adds its table to what it is given."""

    def hooks(transformer: Any, keep: Any, seen: Seen) -> Handles:
        handles: Handles = []
        for index, block in enumerate(getattr(transformer, "blocks", None) or transformer.transformer_blocks):

            def before(module: Any, args: Any, kwargs: Any, index: int = index) -> None:
                given = kwargs[argument] if argument in kwargs else args[position]
                rows = module.scale_shift_table.reshape(1, 6, -1) + given.reshape(len(given), 6, -1).float()
                for gate, chunk in CHUNKS.items():
                    keep(seen.alpha, ("image", gate, index), rows[:, chunk])

            handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(block.register_forward_hook(lambda m, a, o, i=index: keep(seen.hidden, ("image", i), o)))
        return handles

    return hooks


def qwen_gates(transformer: Any, keep: Any, seen: Seen) -> Handles:
    """Qwen-Image: `img_mod` and `txt_mod` give six chunks each; a block returns (text, image)."""
    handles: Handles = []
    for index, block in enumerate(transformer.transformer_blocks):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            for stream, state in zip(("text", "image"), output, strict=True):
                keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
        for stream, module in (("image", block.img_mod), ("text", block.txt_mod)):

            def on_chunks(m: Any, args: Any, output: Any, index: int = index, stream: str = stream) -> None:
                for gate, chunk in CHUNKS.items():
                    keep(seen.alpha, (stream, gate, index), output.chunk(6, dim=-1)[chunk])

            handles.append(module.register_forward_hook(on_chunks))
    return handles


def flux2_gates(transformer: Any, keep: Any, seen: Seen) -> Handles:
    """FLUX.2: three projections for all blocks; a single block returns one state, text first."""
    handles: Handles = []
    doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
    text: dict[str, int] = {}

    def on_double(stream: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            for index in range(len(doubles)):
                for gate, chunk in CHUNKS.items():
                    keep(seen.alpha, (stream, gate, index), output.chunk(6, dim=-1)[chunk])

        return hook

    def on_single(module: Any, args: Any, output: Any) -> None:
        for index in range(len(doubles), len(doubles) + len(singles)):
            for stream in ("image", "text"):
                keep(seen.alpha, (stream, "attn", index), output.chunk(3, dim=-1)[2])

    handles.append(transformer.double_stream_modulation_img.register_forward_hook(on_double("image")))
    handles.append(transformer.double_stream_modulation_txt.register_forward_hook(on_double("text")))
    handles.append(transformer.single_stream_modulation.register_forward_hook(on_single))
    for index, block in enumerate([*doubles, *singles]):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            if isinstance(output, tuple):
                text["tokens"] = output[0].shape[1]
            else:
                output = output[:, : text["tokens"]], output[:, text["tokens"] :]
            for stream, state in zip(("text", "image"), output, strict=True):
                keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
    return handles


def auraflow_gates(transformer: Any, keep: Any, seen: Seen) -> Handles:
    """AuraFlow: AdaLN-Zero norms give the gates; a single block returns one state, text first."""
    handles: Handles = []
    joints, singles = list(transformer.joint_transformer_blocks), list(transformer.single_transformer_blocks)
    text: dict[str, int] = {}
    for index, block in enumerate([*joints, *singles]):
        streams = {"norm1": ("image",), "norm1_context": ("text",)} if index < len(joints) else {"norm1": ("image", "text")}
        for name, shared in streams.items():

            def on_norm(module: Any, args: Any, output: Any, index: int = index, shared: Any = shared) -> None:
                for gate, item in ZERO.items():
                    for stream in shared:
                        keep(seen.alpha, (stream, gate, index), output[item])

            handles.append(getattr(block, name).register_forward_hook(on_norm))

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            if isinstance(output, tuple):
                text["tokens"] = output[0].shape[1]
            else:
                output = output[:, : text["tokens"]], output[:, text["tokens"] :]
            for stream, state in zip(("text", "image"), output, strict=True):
                keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
    return handles


OTHERS = {
    "SanaTransformer2DModel": carried_gates("timestep", 4),
    "PixArtTransformer2DModel": carried_gates("timestep", 4),
    "WanTransformer3DModel": carried_gates("temb", 2),
    "LTXVideoTransformer3DModel": carried_gates("temb", 2),
    "QwenImageTransformer2DModel": qwen_gates,
    "Flux2Transformer2DModel": flux2_gates,
    "AuraFlowTransformer2DModel": auraflow_gates,
    **LATER,
}


def padded_text(pipe: Any, prompts: list[str], length: int) -> dict[str, torch.Tensor]:
    """Qwen-Image's encoded prompts, each by itself, padded with zeros that its mask hides."""
    states, mask = (
        torch.zeros(len(prompts), length, pipe.text_encoder.config.text_config.hidden_size),
        torch.zeros(len(prompts), length, dtype=torch.long),
    )
    with torch.no_grad():
        for row, encoded in enumerate(pipe.encode_prompt([prompt])[0][0] for prompt in prompts):
            states[row, : len(encoded)], mask[row, : len(encoded)] = encoded, 1
    return {"prompt_embeds": states, "prompt_embeds_mask": mask}


CLEANED = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
BINNED = (*CLEANED, "SanaPipeline", "HunyuanDiTPipeline")


def untraced(pipe: Any, prompts: list[str], seeds: list[int], **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (prompt, y, x, rgb) uint8 and last latents of the plain pipeline, its guidance off."""
    last: list[torch.Tensor] = []
    step = pipe.scheduler.step

    @functools.wraps(step)  # pipelines look what it takes
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        last[:] = [(result[0] if isinstance(result, tuple) else result.prev_sample).clone()]
        return result

    arguments["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    kind = type(pipe).__name__
    if kind in ("HiDreamImagePipeline", "StableAudioPipeline"):
        arguments = {key: value for key, value in arguments.items() if key not in ("height", "width")}
    if kind == "DiTPipeline":
        arguments = {key: value for key, value in arguments.items() if key not in ("height", "width")}
        arguments |= {"class_labels": [pipe.labels.get(text, text) for text in prompts], "guidance_scale": 1.0}
        arguments["class_labels"] = [int(label) for label in arguments["class_labels"]]
    elif kind in ("FluxPipeline", "HunyuanVideoPipeline"):
        arguments["prompt"] = prompts
        if "embedded_guidance" in arguments:
            arguments["guidance_scale"] = arguments.pop("embedded_guidance")
    elif kind == "QwenImagePipeline":
        arguments |= {**padded_text(pipe, prompts, arguments["max_sequence_length"]), "true_cfg_scale": 1.0}
    else:
        arguments |= {"prompt": prompts} | ({"guidance_scale": 1.0} if kind != "HunyuanImagePipeline" else {})
        arguments |= {} if kind not in BINNED else {"use_resolution_binning": False}
        arguments |= {} if kind not in CLEANED else {"clean_caption": False}
    pipe.scheduler.step = watched
    try:
        output = pipe(**{"output_type": "pil", **arguments})
        images = (
            [video[len(video) // 2] for video in output.frames] if hasattr(output, "frames") else getattr(output, "images", [])
        )
        if hasattr(output, "audios"):
            images = [(spectrogram(sound.double().numpy()) * 255).round().astype(np.uint8) for sound in output.audios]
    finally:
        del pipe.scheduler.step
    return np.stack([np.asarray(image) for image in images]), last[0].float().numpy()


def statistics(states: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics over the token axis (-2), in float64."""
    states = states.astype(np.float64)
    return {
        "mean": states.mean(-2),
        "mean_abs": np.abs(states).mean(-2),
        "max_abs": np.abs(states).max(-2),
        "min_abs": np.abs(states).min(-2),
        "var": states.var(-2),
    }
