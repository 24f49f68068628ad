"""Load tensors of weights into networks. Only tensors are read: safetensors, or torch.load with weights_only=True."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.base.errors import InputError, first_line
from interp.metrics.checkpoints import Weights, how


def tensors_of(weights: Weights) -> dict[str, Any]:
    """Every tensor of a file by name, on the CPU; `state_dict` is unwrapped, the prefix `module.` dropped."""
    import torch

    path = weights.path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file's content can make the unpickler raise anything
        raise InputError(
            f"weights {weights.name}={path} cannot be read as tensors ({first_line(error)}); "
            f"code in pickles is never run; {how(weights.name)}"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"weights {weights.name}={path} must hold a dictionary of tensors; {how(weights.name)}")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def fill(module: Any, tensors: Mapping[str, Any], weights: Weights) -> None:
    """Load tensors into a torch module: every parameter must be present in its shape; others are ignored."""
    own = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, value in own.items():
        if name not in tensors:
            raise InputError(f"weights {weights.name}={weights.path} lack {name}; {how(weights.name)}")
        if tensors[name].shape != value.shape:
            got, rule = tuple(tensors[name].shape), tuple(value.shape)
            raise InputError(f"weights {weights.name}={weights.path}: {name} must be {rule}; got {got}; {how(weights.name)}")
    module.load_state_dict({name: tensors[name] for name in own}, strict=False)
