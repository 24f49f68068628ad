"""Identify a run's model: a fingerprint of all values of its weights, and the commit of a hub model.

Taken whenever a run is prepared, so it includes a LoRA, an edit in place, an updated hub repository.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from interp.models.hashing import tensor_lines, tensors_of

SAMPLE = 1024  # values of each tensor that enter a sampled fingerprint, evenly spaced
SAMPLED = "sha256:"
"""How sampled fingerprints begin: those of `identity="sampled"`, and of all stores made before full ones."""


def fingerprint(pipe: Any, *, sampled: bool = False) -> str:
    """Hash every part's tensors (name, shape, dtype, every value) and every tokenizer's vocabulary, as `full:...`.

    `sampled` takes about 1,024 values of each tensor instead: `sha256:...`.
    """
    return sampled_fingerprint(pipe, offloaded=True) if sampled else _full(pipe)


def _full(pipe: Any) -> str:
    digest = hashlib.sha256()
    for part, component in sorted(pipe.components.items()):
        if isinstance(component, torch.nn.Module):
            for line in tensor_lines(component):
                digest.update(f"{part}.{line}\n".encode())
        elif hasattr(component, "get_vocab"):
            digest.update(json.dumps([part, sorted(component.get_vocab().items())]).encode())
    return f"full:{digest.hexdigest()[:32]}"


def sampled_fingerprint(pipe: Any, *, offloaded: bool) -> str:
    """A hash of about 1,024 values of each tensor. Stores before full ones hold it, without weights that were `offloaded`."""
    digest = hashlib.sha256()
    for part, component in sorted(pipe.components.items()):
        if isinstance(component, torch.nn.Module):
            held = dict(tensors_of(component)) if offloaded else {}
            for name, tensor in component.state_dict().items():
                digest.update(f"{part}.{name} {tuple(tensor.shape)}\n".encode())
                digest.update(_sample(held.get(name, tensor)))
        elif hasattr(component, "get_vocab"):
            digest.update(json.dumps([part, sorted(component.get_vocab().items())]).encode())
    return f"{SAMPLED}{digest.hexdigest()[:16]}"


def _sample(tensor: torch.Tensor) -> bytes:
    if hasattr(tensor, "__tensor_flatten__"):  # a quantised weight: a tensor of several
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return b"".join(_sample(part) for part in parts if isinstance(part, torch.Tensor))
    if tensor.is_meta or not tensor.numel():
        return b""
    flat = tensor.detach().reshape(-1)
    flat = flat[:: max(flat.numel() // SAMPLE, 1)]
    return flat.to("cpu").contiguous().view(torch.uint8).numpy().tobytes()


def revision_of(source: str, asked: str | None) -> str | None:
    """The commit of a hub model in the local cache; `None` for a folder."""
    if Path(source).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "model_index.json", revision=asked)
    parts = Path(found).parts if isinstance(found, str) else ()
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else asked
