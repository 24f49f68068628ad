"""Tiny random weights in the files and under the names of the real ones, for the tests of metrics."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WORDS = "a red circle blue square on the black"
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 24, 31, 3), np.uint8)
PROMPTS = ["a red circle", "blue", "a square on the black & square black blue red circle on the black square"]


def clip_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's tokenizer of single letters: vocab.json, merges.txt; the end of text has the highest id."""
    letters = "abcdefghijklmnopqrstuvwxyz&;0123456789"
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return vocabulary


def clip_folder(folder: Path) -> Path:
    """A CLIP that transformers saved: 16-pixel pictures, quick GELU, as OpenAI's."""
    from transformers import CLIPConfig, CLIPModel

    vocabulary = clip_tokenizer(folder)
    small = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 12}
    text = {**small, "hidden_size": 16, "vocab_size": len(vocabulary), "max_position_embeddings": 20}
    ids = {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}  # as in OpenAI's configuration
    vision = {**small, "hidden_size": 16, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**text, **ids}, vision_config=vision, projection_dim=12))
    stirred(model).save_pretrained(folder)
    return folder


def blip_folder(folder: Path) -> Path:
    """A BLIP for retrieval that transformers saved: 16-pixel pictures."""
    from transformers import BlipConfig, BlipForImageTextRetrieval

    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split())]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**small, **ids, "vocab_size": len(pieces), "max_position_embeddings": 64, "encoder_hidden_size": 16}
    torch.manual_seed(1)
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, image_text_hidden_size=8)
    stirred(BlipForImageTextRetrieval(config)).save_pretrained(folder)
    return folder


def stirred(model: nn.Module) -> nn.Module:
    """Every parameter random, biases and norms too: a bias that is left out shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name else 0.0
            parameter.copy_(around + 0.3 * torch.randn_like(parameter))
    return model


def open_clip_file(folder: Path, vocabulary: int) -> tuple[Path, dict[str, torch.Tensor]]:
    """An open_clip checkpoint, half precision inside `state_dict`, as HPS_v2.1_compressed.pt is: two heads a tower."""
    torch.manual_seed(2)
    width, text, joint, tokens = 160, 128, 6, 20  # two heads each

    def draw(*shape: int) -> torch.Tensor:
        return (0.15 * torch.randn(*shape)).half()

    state = {
        "visual.class_embedding": draw(width),
        "visual.positional_embedding": draw(5, width),
        "visual.proj": draw(width, joint),
        "visual.conv1.weight": draw(width, 3, 8, 8),
        "positional_embedding": draw(tokens, text),
        "text_projection": draw(text, joint),
        "token_embedding.weight": draw(vocabulary, text),
        "logit_scale": torch.tensor(3.0),
        "attn_mask": torch.full((tokens, tokens), float("-inf")).triu(1),
    }
    for norm, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        state |= {f"{norm}.weight": 1 + draw(size), f"{norm}.bias": draw(size)}
    for tower, size in (("visual.transformer", width), ("transformer", text)):
        for number in range(2):
            block = f"{tower}.resblocks.{number}"
            for norm in ("ln_1", "ln_2"):
                state |= {f"{block}.{norm}.weight": 1 + draw(size), f"{block}.{norm}.bias": draw(size)}
            for part, (out, into) in {
                "attn.in_proj": (3 * size, size),
                "attn.out_proj": (size, size),
                "mlp.c_fc": (4 * size, size),
                "mlp.c_proj": (size, 4 * size),
            }.items():
                dot = "_" if part == "attn.in_proj" else "."
                state |= {f"{block}.{part}{dot}weight": draw(out, into), f"{block}.{part}{dot}bias": draw(out)}
    path = folder / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 1, "state_dict": state}, path)
    return path, {name: value.float() for name, value in state.items()}


def aesthetic_file(folder: Path, width: int) -> tuple[Path, list[tuple[torch.Tensor, torch.Tensor]]]:
    """LAION's linear head on embeddings of `width`: layers 0, 2, 4, 6, 7, between them dropout in training."""
    torch.manual_seed(3)
    widths = [width, 1024, 128, 64, 16, 1]
    pairs = [(torch.randn(out, into) / into**0.5, torch.randn(out)) for into, out in itertools.pairwise(widths)]
    state = {}
    for number, (weight, bias) in zip((0, 2, 4, 6, 7), pairs, strict=True):
        state |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
    path = folder / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(state, path)
    return path, pairs


def torchvision_file(folder: Path, name: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """AlexNet's or VGG16's convolutions under torchvision's names, and a classifier that LPIPS does not read."""
    torch.manual_seed(4)
    alexnet = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    vgg = {number: (widths[k + 1], widths[k], 3) for k, number in enumerate(numbers)}
    state = {"classifier.6.weight": torch.zeros(10, 4)}
    for number, (out, into, side) in (alexnet if name == "alexnet" else vgg).items():
        state[f"features.{number}.weight"] = torch.randn(out, into, side, side) * (2 / (into * side**2)) ** 0.5
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out)
    path = folder / f"{name}.pth"
    torch.save(state, path)
    return path, state


def inception_file(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """The names and shapes of pt_inception-2015-12-05-6726825d.pth, written out; random, scaled so that nothing dies out."""
    torch.manual_seed(5)
    state: dict[str, torch.Tensor] = {}

    def convolution(name: str, out: int, into: int, high: int, wide: int) -> int:
        state[f"{name}.conv.weight"] = torch.randn(out, into, high, wide) * (2 / (into * high * wide)) ** 0.5
        state[f"{name}.bn.weight"] = 1 + 0.1 * torch.randn(out)
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(out)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(out)
        state[f"{name}.bn.running_var"] = 1 + 0.1 * torch.rand(out)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
        return out

    for name, out, into, side in (
        ("Conv2d_1a_3x3", 32, 3, 3),
        ("Conv2d_2a_3x3", 32, 32, 3),
        ("Conv2d_2b_3x3", 64, 32, 3),
        ("Conv2d_3b_1x1", 80, 64, 1),
        ("Conv2d_4a_3x3", 192, 80, 3),
    ):
        convolution(name, out, into, side, side)
    for name, into, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        for branch, out, inner, side in (
            ("branch1x1", 64, into, 1),
            ("branch5x5_1", 48, into, 1),
            ("branch5x5_2", 64, 48, 5),
            ("branch3x3dbl_1", 64, into, 1),
            ("branch3x3dbl_2", 96, 64, 3),
            ("branch3x3dbl_3", 96, 96, 3),
            ("branch_pool", pool, into, 1),
        ):
            convolution(f"Mixed_{name}.{branch}", out, inner, side, side)
    convolution("Mixed_6a.branch3x3", 384, 288, 3, 3)
    convolution("Mixed_6a.branch3x3dbl_1", 64, 288, 1, 1)
    convolution("Mixed_6a.branch3x3dbl_2", 96, 64, 3, 3)
    convolution("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3)
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        for branch, out, inner, high, wide in (
            ("branch1x1", 192, 768, 1, 1),
            ("branch7x7_1", c, 768, 1, 1),
            ("branch7x7_2", c, c, 1, 7),
            ("branch7x7_3", 192, c, 7, 1),
            ("branch7x7dbl_1", c, 768, 1, 1),
            ("branch7x7dbl_2", c, c, 7, 1),
            ("branch7x7dbl_3", c, c, 1, 7),
            ("branch7x7dbl_4", c, c, 7, 1),
            ("branch7x7dbl_5", 192, c, 1, 7),
            ("branch_pool", 192, 768, 1, 1),
        ):
            convolution(f"Mixed_{name}.{branch}", out, inner, high, wide)
    for branch, out, inner, high, wide in (
        ("branch3x3_1", 192, 768, 1, 1),
        ("branch3x3_2", 320, 192, 3, 3),
        ("branch7x7x3_1", 192, 768, 1, 1),
        ("branch7x7x3_2", 192, 192, 1, 7),
        ("branch7x7x3_3", 192, 192, 7, 1),
        ("branch7x7x3_4", 192, 192, 3, 3),
    ):
        convolution(f"Mixed_7a.{branch}", out, inner, high, wide)
    for name, into in (("7b", 1280), ("7c", 2048)):
        for branch, out, inner, high, wide in (
            ("branch1x1", 320, into, 1, 1),
            ("branch3x3_1", 384, into, 1, 1),
            ("branch3x3_2a", 384, 384, 1, 3),
            ("branch3x3_2b", 384, 384, 3, 1),
            ("branch3x3dbl_1", 448, into, 1, 1),
            ("branch3x3dbl_2", 384, 448, 3, 3),
            ("branch3x3dbl_3a", 384, 384, 1, 3),
            ("branch3x3dbl_3b", 384, 384, 3, 1),
            ("branch_pool", 192, into, 1, 1),
        ):
            convolution(f"Mixed_{name}.{branch}", out, inner, high, wide)
    state["fc.weight"], state["fc.bias"] = torch.randn(1008, 2048) / 2048**0.5, torch.randn(1008)
    path = folder / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(state, path)
    return path, state
