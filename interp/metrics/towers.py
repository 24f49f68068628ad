"""Scores from networks of pictures and text: CLIPScore, LAION-Aesthetics, BLIP-ITM.

Every function takes one batch of pictures (picture, y, x, rgb) and as many prompts, and returns a float64 array (picture).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interp.base.errors import InputError, first_line
from interp.metrics import preprocess
from interp.metrics.checkpoints import Weights, fill, tensors_of
from interp.metrics.preprocess import paired
from interp.store.schema import Array

DTYPES = ("float32", "bfloat16", "float16")
BLIP_TOKENS = 35  # BLIP truncates captions to this for retrieval (Li et al. 2022, code)
LAYERS = (768, 1024, 128, 64, 16, 1)


class Clip:
    """CLIP's two towers, as in transformers, of any size."""

    def __init__(self, weights: Weights, *, device: str = "cpu", dtype: str = "float32") -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.weights, self.device = weights, device_of(device)
        self.model: Any = pretrained(CLIPModel, weights).to(self.device, dtype_of(dtype)).eval()
        with reading(weights):
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(weights.path)
        self.prepared = preprocess.centre_square

    @torch.inference_mode()
    def see(self, images: Array) -> Tensor:
        """Pictures as unit vectors, (picture, feature) float32."""
        pictures = preprocess.clip_colours(self.prepared(images, self.model.config.vision_config.image_size))
        found = self.model.get_image_features(pixel_values=pictures.to(self.device, self.model.dtype)).pooler_output
        return functional.normalize(found.float(), dim=-1)

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as unit vectors, (prompt, feature) float32; cut to the tower's length, 77 tokens."""
        found = self.model.get_text_features(**tokens_of(self, prompts)).pooler_output
        return functional.normalize(found.float(), dim=-1)

    def cosine(self, images: Array, prompts: Sequence[str]) -> Array:
        """Cosine of each picture and its prompt, -1..1: (picture)."""
        paired(images, prompts)
        return numbers((self.see(images) * self.read(prompts)).sum(dim=-1))


def clip_score(clip: Clip, images: Array, prompts: Sequence[str]) -> Array:
    """100 max(cosine, 0): (picture). Hessel et al. 2021 scale the cosine by 2.5 instead of 100; the papers here use 100."""
    return np.asarray(100 * np.maximum(clip.cosine(images, prompts), 0))


class Aesthetics:
    """LAION-Aesthetics V2: five linear layers, no activations, on CLIP ViT-L/14's unit vectors of pictures; about 1 to 10."""

    def __init__(self, weights: Weights, clip: Clip) -> None:
        widths = (clip.model.config.projection_dim, *LAYERS[1:])
        layers: list[nn.Module] = []
        for number, (wide, narrow) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Linear(wide, narrow))
            if number < 3:
                layers.append(nn.Identity())  # dropout in training, which counts in the names
        self.weights, self.clip = weights, clip
        self.head = nn.ModuleDict({"layers": nn.Sequential(*layers)})
        fill(self.head, tensors_of(weights), weights)
        self.head.to(clip.device).eval()

    @torch.inference_mode()
    def __call__(self, images: Array) -> Array:
        """The score of each picture: (picture)."""
        return numbers(self.head["layers"](self.clip.see(images))[:, 0])


class Blip:
    """BLIP's matching of pictures and captions, as in transformers (BlipForImageTextRetrieval), of any size."""

    def __init__(self, weights: Weights, *, device: str = "cpu", dtype: str = "float32") -> None:
        from transformers import BertTokenizer, BlipForImageTextRetrieval

        self.weights, self.device = weights, device_of(device)
        self.model: Any = pretrained(BlipForImageTextRetrieval, weights).to(self.device, dtype_of(dtype)).eval()
        with reading(weights):
            self.tokenizer: Any = BertTokenizer.from_pretrained(weights.path)

    @torch.inference_mode()
    def matching(self, images: Array, prompts: Sequence[str]) -> Array:
        """100 times the probability that picture and prompt match, softmax of the matching head: (picture)."""
        paired(images, prompts)
        seen, tokens = self._see(images), tokens_of(self, prompts, BLIP_TOKENS)
        every = torch.ones(seen.shape[:2], dtype=torch.long, device=self.device)
        states = self.model.text_encoder(**tokens, encoder_hidden_states=seen, encoder_attention_mask=every).last_hidden_state
        return numbers(100 * self.model.itm_head(states[:, 0]).float().softmax(dim=-1)[:, 1])

    @torch.inference_mode()
    def cosine(self, images: Array, prompts: Sequence[str]) -> Array:
        """100 times the cosine of BLIP's contrastive heads: (picture)."""
        paired(images, prompts)
        seen = functional.normalize(self.model.vision_proj(self._see(images)[:, 0]).float(), dim=-1)
        states = self.model.text_encoder(**tokens_of(self, prompts, BLIP_TOKENS)).last_hidden_state
        read = functional.normalize(self.model.text_proj(states[:, 0]).float(), dim=-1)
        return numbers(100 * (seen * read).sum(dim=-1))

    def _see(self, images: Array) -> Tensor:
        pictures = preprocess.clip_colours(preprocess.square(images, self.model.config.vision_config.image_size))
        found: Tensor = self.model.vision_model(pixel_values=pictures.to(self.device, self.model.dtype)).last_hidden_state
        return found


def tokens_of(network: Clip | Blip, prompts: Sequence[str], most: float = math.inf) -> dict[str, Tensor]:
    """Tokens of prompts, (prompt, token), and their mask; cut to the network's length, and to `most`."""
    longest = min(most, network.model.config.text_config.max_position_embeddings)
    tokens = network.tokenizer(list(prompts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return {name: tokens[name].to(network.device) for name in ("input_ids", "attention_mask")}


def pretrained(kind: Any, weights: Weights) -> Any:
    """Load a transformers model from a folder; missing weights are an error, since they would be random."""
    with reading(weights):
        model, report = kind.from_pretrained(weights.path, output_loading_info=True, local_files_only=True)
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise InputError(
            f"weights {weights.name}={weights.path} are not a {kind.__name__}'s: they lack {lacking[0]}, which would be random"
        )
    return model


@contextlib.contextmanager
def reading(weights: Weights) -> Iterator[None]:
    """Convert any error of transformers to one `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a folder's content can make transformers raise anything
        raise InputError(
            f"weights {weights.name}={weights.path} cannot be loaded ({first_line(error)}); fetch or save the folder again"
        ) from error


def numbers(values: Tensor) -> Array:
    """Convert to float64 on the CPU; NaN and Inf, which float16 can give, are an error."""
    found = values.double().cpu().numpy()
    if not np.isfinite(found).all():
        raise InputError("scores are NaN or Inf; score in float32 (dtype='float32'), and check the weights")
    return np.asarray(found)


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a name in DTYPES."""
    if name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}; got {name!r}")
    return getattr(torch, name)  # type: ignore[no-any-return]


def device_of(name: str) -> torch.device:
    """An available device; "auto" is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device must be one that torch can use here, such as cpu; got {name!r} ({first_line(error)})"
        ) from None
    return device
