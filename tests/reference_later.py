"""Plain torch hooks for the later families, written from diffusers' source as `reference.py` is."""

from __future__ import annotations

from typing import Any

CHUNKS = {"attn": 2, "mlp": 5}  # shift, scale, gate of attention, then of the MLP
Handles = list[Any]


def on_states(blocks: list[Any], keep: Any, seen: Any, order: tuple[str, ...], text: dict[str, int]) -> Handles:
    """Every block's output: a tuple of states in this order, or one state of both, text first."""
    handles: Handles = []
    for index, block in enumerate(blocks):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            if not isinstance(output, tuple):
                cut = text["tokens"]
                output = tuple({"text": output[:, :cut], "image": output[:, cut:]}[stream] for stream in order)
            text["tokens"] = output[order.index("text")].shape[1]
            for stream, state in zip(order, output, strict=True):
                keep(seen.hidden, (stream, index), state)

        handles.append(block.register_forward_hook(on_block))
    return handles


def chroma(transformer: Any, keep: Any, seen: Any) -> Handles:
    """Chroma: a block is given (batch, chunk, channel): six chunks of the image and six of the text, or three of both."""
    doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
    handles = on_states([*doubles, *singles], keep, seen, ("text", "image"), {})
    for index, block in enumerate([*doubles, *singles]):

        def before(module: Any, args: Any, kwargs: Any, index: int = index) -> None:
            given = kwargs["temb"]
            if index >= len(doubles):
                for stream in ("image", "text"):
                    keep(seen.alpha, (stream, "attn", index), given[:, 2])
                return
            for stream, first in (("image", 0), ("text", 6)):
                for gate, chunk in CHUNKS.items():
                    keep(seen.alpha, (stream, gate, index), given[:, first + chunk])

        handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
    return handles


def hunyuandit(transformer: Any, keep: Any, seen: Any) -> Handles:
    """Hunyuan-DiT: no gates."""
    return [
        block.register_forward_hook(lambda m, a, o, i=index: keep(seen.hidden, ("image", i), o))
        for index, block in enumerate(transformer.blocks)
    ]


def cogvideox(transformer: Any, keep: Any, seen: Any) -> Handles:
    """CogVideoX: both norms give (image, text, image's gate, text's gate); a block returns (image, text)."""
    handles = on_states(list(transformer.transformer_blocks), keep, seen, ("image", "text"), {})
    for index, block in enumerate(transformer.transformer_blocks):
        for gate, norm in (("attn", block.norm1), ("mlp", block.norm2)):

            def on_norm(module: Any, args: Any, output: Any, index: int = index, gate: str = gate) -> None:
                for stream, item in (("image", 2), ("text", 3)):
                    keep(seen.alpha, (stream, gate, index), output[item][:, 0])

            handles.append(norm.register_forward_hook(on_norm))
    return handles


def hunyuanimage(transformer: Any, keep: Any, seen: Any) -> Handles:
    """HunyuanImage and HunyuanVideo: AdaLN-Zero norms; blocks return (image, text); a single block's gate is both streams'."""
    doubles, singles = list(transformer.transformer_blocks), list(transformer.single_transformer_blocks)
    handles = on_states([*doubles, *singles], keep, seen, ("image", "text"), {})
    for index, block in enumerate(doubles):
        for stream, norm in (("image", block.norm1), ("text", block.norm1_context)):

            def on_norm(module: Any, args: Any, output: Any, index: int = index, stream: str = stream) -> None:
                for gate, item in (("attn", 1), ("mlp", 4)):
                    keep(seen.alpha, (stream, gate, index), output[item])

            handles.append(norm.register_forward_hook(on_norm))
    for index, block in enumerate(singles, start=len(doubles)):

        def on_shared(module: Any, args: Any, output: Any, index: int = index) -> None:
            for stream in ("image", "text"):
                keep(seen.alpha, (stream, "attn", index), output[1])

        handles.append(block.norm.register_forward_hook(on_shared))
    return handles


def mochi(transformer: Any, keep: Any, seen: Any) -> Handles:
    """Mochi: norm1 gives (state, gate, scale, gate), and their tanh multiplies; the narrower text is no stream."""
    handles: Handles = []
    for index, block in enumerate(transformer.transformer_blocks):
        handles.append(block.register_forward_hook(lambda m, a, o, i=index: keep(seen.hidden, ("image", i), o[0])))

        def on_norm(module: Any, args: Any, output: Any, index: int = index) -> None:
            for gate, item in (("attn", 1), ("mlp", 3)):
                keep(seen.alpha, ("image", gate, index), output[item].tanh())

        handles.append(block.norm1.register_forward_hook(on_norm))
    return handles


def hidream(transformer: Any, keep: Any, seen: Any) -> Handles:
    """HiDream: one projection a block; 8 + 8 text tokens are handed on, 8 more cut off; single blocks have the image first."""
    doubles = list(transformer.double_stream_blocks)
    handles: Handles = []
    for index, block in enumerate([*doubles, *transformer.single_stream_blocks]):

        def on_block(module: Any, args: Any, output: Any, index: int = index) -> None:
            image, text = output if isinstance(output, tuple) else (output[:, :64], output[:, 64:])
            keep(seen.hidden, ("image", index), image)
            keep(seen.hidden, ("text", index), text[:, :16])

        def on_chunks(module: Any, args: Any, output: Any, index: int = index) -> None:
            chunks = output.chunk(12 if index < len(doubles) else 6, dim=-1)
            for stream, first in (("image", 0), ("text", 6 if index < len(doubles) else 0)):
                for gate, chunk in CHUNKS.items():
                    keep(seen.alpha, (stream, gate, index), chunks[first + chunk])

        handles.append(block.register_forward_hook(on_block))
        handles.append(block.block.adaLN_modulation.register_forward_hook(on_chunks))
    return handles


def stableaudio(transformer: Any, keep: Any, seen: Any) -> Handles:
    """Stable Audio: no gates; the first token is none of the sound's."""
    return [
        block.register_forward_hook(lambda m, a, o, i=index: keep(seen.hidden, ("image", i), o[:, 1:]))
        for index, block in enumerate(transformer.transformer_blocks)
    ]


LATER = {
    "StableAudioDiTModel": stableaudio,
    "HiDreamImageTransformer2DModel": hidream,
    "MochiTransformer3DModel": mochi,
    "HunyuanVideoTransformer3DModel": hunyuanimage,
    "HunyuanImageTransformer2DModel": hunyuanimage,
    "ChromaTransformer2DModel": chroma,
    "HunyuanDiT2DModel": hunyuandit,
    "CogVideoXTransformer3DModel": cogvideox,
}
