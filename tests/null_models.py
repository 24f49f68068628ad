"""Models of which no claim about massive channels, detail or guidance is true: none draws pictures of its prompts."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import torch

import interp
from interp.models import tiny

FAMILIES = ("sd3", "flux", "dit")
HEADS = 4  # 64 channels


def untrained(family: str, folder: Path, seed: int = 0) -> interp.Model:
    """Random weights."""
    return interp.load(tiny.build(family, folder, seed=seed, heads=HEADS))


def prompts_of(family: str, count: int) -> list[str]:
    """Prompts that a tiny model knows."""
    if family == "dit":
        return list(tiny.WORDS[:count])
    pairs = [f"a {colour} {thing}" for thing in ("circle", "square", "cat", "dog") for colour in ("red", "green", "blue")]
    return pairs[:count]


def demo() -> interp.Model:
    """The demo as it is, to compare."""
    return interp.load("demo")


def misheard(seed: int = 0) -> interp.Model:
    """The demo with shuffled captions: its encoders take every word of the world for another one, the same in all of them."""
    model = interp.load("demo")
    words = _words()
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed)).roll(1).tolist()
    for tokenizer, embedding in _encoders(model.pipe):
        ids = [_id(tokenizer, word) for word in words]
        with torch.no_grad():
            embedding.weight[ids] = embedding.weight[[ids[place] for place in order]]
    return model


def deaf() -> interp.Model:
    """The demo to which all words are one."""
    model = interp.load("demo")
    for tokenizer, embedding in _encoders(model.pipe):
        ids = [_id(tokenizer, word) for word in _words()]
        with torch.no_grad():
            embedding.weight[ids] = embedding.weight[ids].mean(dim=0)
    return model


def noisy() -> interp.Model:
    """The demo whose pictures are noise, a new one for every latents."""
    model = interp.load("demo")

    def decode(latents: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        pictures = [
            torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(zlib.crc32(one.contiguous().numpy().tobytes())))
            for one in latents.detach().float().cpu()
        ]
        return (0.5 * torch.stack(pictures).to(latents.dtype),)

    model.pipe.vae.decode = decode
    return model


def _words() -> list[str]:
    """Words that name something."""
    from interp.models.demo import world

    return [word for word in world.vocabulary() if word not in ("a", "in", "on", "the", "background")]


def _encoders(pipe: Any) -> list[tuple[Any, torch.nn.Embedding]]:
    pairs = (
        (pipe.tokenizer, pipe.text_encoder),
        (pipe.tokenizer_2, pipe.text_encoder_2),
        (pipe.tokenizer_3, pipe.text_encoder_3),
    )
    return [(tokenizer, encoder.get_input_embeddings()) for tokenizer, encoder in pairs]


def _id(tokenizer: Any, word: str) -> int:
    (one,) = tokenizer(word, add_special_tokens=False).input_ids
    return int(one)
