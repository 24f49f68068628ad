"""Small parts of a diffusers pipeline built from nothing: tokenizers, text encoders, VAE. No download.

The tiny models (`interp.models.tiny`) and the demo model (`interp.models.demo`) are put together from these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffusers import AutoencoderTiny
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WORDS = ("a", "and", "blue", "cat", "circle", "dog", "green", "of", "on", "photo", "red", "square", "the", "two")
"""What the tiny models' tokenizers know."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer(words: Sequence[str], length: int) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of `words` is one token and every other text falls to bytes; `length` tokens at most."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters, last = sorted(set("".join(words))), sorted({word[-1] for word in words})
    first = [*letters, *(f"{letter}</w>" for letter in last)]  # numbered here: the trainer numbers endings in a random order
    trainer = trainers.BpeTrainer(end_of_word_suffix="</w>", show_progress=False, special_tokens=first)
    learner.train_from_iterator(list(words), trainer)
    merges = [tuple(merge) for merge in merges_of(learner)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]  # end is the highest id, as CLIP's pooling expects
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def merges_of(learner: Tokenizer) -> list[list[str]]:
    """The merges that a byte-pair tokenizer has learned."""
    merges: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return merges


def t5_tokenizer(words: Sequence[str], length: int) -> T5Tokenizer:
    """A T5 tokenizer in which each of `words` is one token and other words are spelled in letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]  # T5's fixed ids 0, 1, 2
    pieces += [(f"\u2581{word}", -2.0) for word in words]
    known = {piece for piece, _ in pieces}
    singles = ["\u2581", *(f"\u2581{letter}" for letter in LETTERS), *LETTERS, *"0123456789.,-'"]
    pieces += [(single, -8.0) for single in singles if single not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip_text_encoder(
    tokenizer: CLIPTokenizer, *, width: int, projection: int | None, layers: int = 2, heads: int = 2
) -> CLIPTextModelWithProjection | CLIPTextModel:
    """A CLIP text encoder for `tokenizer`, `width` wide, random weights; with a projection (SD3) or without (Flux)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModel if projection is None else CLIPTextModelWithProjection)(config).eval()


def t5_text_encoder(tokenizer: T5Tokenizer, *, width: int, layers: int = 2, heads: int = 2) -> T5EncoderModel:
    """A T5 encoder for `tokenizer`, `width` wide, random weights."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // heads,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
    )
    return T5EncoderModel(config).eval()


def tidy_configs(folder: Path) -> None:
    """Take out of a saved pipeline's configs what makes loading it noisy or different from machine to machine."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if config.get("_class_name") == "AutoencoderTiny":
            config.pop("block_out_channels", None)  # registered by its constructor, which does not take it
        else:
            # transformers loads what the config says and diffusers float32: without this the parts would not fit together
            config.update({"dtype": "float32"} if "dtype" in config else {})
        path.write_text(json.dumps(config, indent=2) + "\n")


def vae(*, latent_channels: int, width: int, levels: int, blocks: int = 1) -> AutoencoderTiny:
    """An `AutoencoderTiny` that shrinks a picture by 2 ** (levels - 1), random weights."""
    return AutoencoderTiny(
        latent_channels=latent_channels,
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=(blocks,) * levels,
        num_decoder_blocks=(blocks,) * (levels - 1) + (blocks + 1,),
    ).eval()
