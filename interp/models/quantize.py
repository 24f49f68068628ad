"""Quantise the blocks' linear layers, except the AdaLN projections, so that gates stay exact.

Layers outside the blocks (embedders, the gates' conditioning, the last layer) keep their precision. A pipeline that is already
quantised is traced unchanged, with a warning if its gates are not exact.
"""

from __future__ import annotations

import collections
import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from interp.base.errors import InputError
from interp.models.anatomy import Anatomy

KINDS = {"int8": "torchao", "float8": "torchao", "nf4": "bitsandbytes"}
"""Weight formats, each with its package. Activations keep the model's dtype."""
EXACT = "exact: neither AdaLN projections nor what conditions them are quantised"
NOT_EXACT = "those of quantised AdaLN projections, not of the model's own weights"


def quantize(transformer: nn.Module, anatomy: Anatomy, kind: str) -> None:
    """Quantise the blocks' linear layers in place, except the AdaLN projections."""
    package = KINDS.get(kind)
    if package is None:
        raise InputError(f"quantize must be one of {', '.join(KINDS)}; got {kind!r}")
    if importlib.util.find_spec(package) is None:
        raise InputError(f"quantize={kind!r} needs {package}: pip install 'interp[quantized]'")
    inside = [name for block in anatomy.blocks for name in _linear_layers(transformer, block.path)]
    chosen = set(inside) - set(_projections(transformer, anatomy))
    if package == "bitsandbytes":
        for name in chosen:
            transformer.set_submodule(name, _nf4(transformer.get_submodule(name)))
        return
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns about every kernel that this machine lacks
    from torchao import quantization

    config = {"int8": quantization.Int8WeightOnlyConfig, "float8": quantization.Float8WeightOnlyConfig}[kind]
    # its compiler settings would lower the precision of all matrix products
    quantization.quantize_(transformer, config(set_inductor_config=False), filter_fn=lambda module, name: name in chosen)


def _nf4(layer: Any) -> nn.Module:
    import bitsandbytes

    made = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        quant_type="nf4",
    )
    made.load_state_dict(layer.state_dict())
    placed: nn.Module = made.to(layer.weight.device)  # moving it quantises it
    return placed


def _linear_layers(transformer: nn.Module, path: str) -> list[str]:
    """The linear layers of a module of the transformer, itself included."""
    modules = transformer.get_submodule(path).named_modules(prefix=path)
    return [name for name, module in modules if isinstance(module, nn.Linear)]


def _projections(transformer: nn.Module, anatomy: Anatomy) -> list[str]:
    """The linear layers of the AdaLN modules: projections, and embedders of the condition where a block has its own (DiT)."""
    found = []
    for block in anatomy.blocks:
        for place in (modulation.module for modulation in block.modulations if modulation.module is not None):
            found += _linear_layers(transformer, f"{block.path}.{place.rpartition('.')[0] or place}")
    return found


def _kind(layer: nn.Module) -> str | None:
    """The class name of a layer's quantised weight; `None` if it is not quantised."""
    weight: Any = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor) and type(weight) not in (torch.Tensor, nn.Parameter):
        return type(weight).__name__
    return type(weight).__name__ if getattr(weight, "quant_state", None) is not None else None


def quantization(transformer: nn.Module, anatomy: Anatomy) -> dict[str, Any] | None:
    """The quantised layers, and whether gates are exact: {"layers": {kind: count}, "gates": text}; `None` if there are none."""
    kinds = {name: kind for name, layer in transformer.named_modules() if (kind := _kind(layer)) is not None}
    if not kinds:
        return None
    inside = tuple(f"{block.path}." for block in anatomy.blocks)
    outside = [name for name in kinds if not name.startswith(inside)]
    exact = not outside and not set(kinds) & set(_projections(transformer, anatomy))
    return {"layers": dict(collections.Counter(kinds.values())), "gates": EXACT if exact else NOT_EXACT}
