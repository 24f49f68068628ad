"""Hash every value of a model's tensors on the device that holds them; the value does not depend on that device.

A tensor's bytes are read as 64-bit words, 65,536 in a block. A block's sum, modulo 2^64, is over its words

    key_i * (word_i xor (word_i >> 32))        key_i odd and random, one for each place of a block

Both factors are bijections of the word: a change of one word always changes the sum; others do except by chance, 2^-64.
SHA-256 of all sums in order, with names, shapes and dtypes, is the fingerprint. Offloaded weights are read where they are kept.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.base.errors import ModelError

BLOCK = 65_536  # words of 8 bytes: 512 KiB
SLAB = {"cpu": 8, "cuda": 256}  # blocks hashed together: what fits a processor's cache, and what keeps a GPU busy
LOW_HALF = 0xFFFFFFFF


@functools.cache
def _keys(device: str) -> Tensor:
    raw = np.random.PCG64(2605).random_raw(BLOCK) | np.uint64(1)
    return torch.from_numpy(raw.view(np.int64).copy()).to(device)


def block_sums(tensor: Tensor) -> Tensor:
    """The sum of every block of a tensor's bytes, (block,) int64, on its device."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = len(flat) // (8 * BLOCK) * 8 * BLOCK
    keys, slab = _keys(str(flat.device)), SLAB.get(flat.device.type, 64)
    words = flat[:whole] if flat.storage_offset() % 8 == 0 else flat[:whole].clone()
    sums = [_sums(part, keys) for part in torch.split(words.view(torch.int64).reshape(-1, BLOCK), slab)] if whole else []
    rest = flat[whole:]
    if len(rest):
        padded = nn.functional.pad(rest, (0, -len(rest) % 8)).view(torch.int64)
        sums.append(_sums(padded[None], keys[: len(padded)]))
    return torch.cat(sums) if sums else torch.zeros(0, dtype=torch.int64, device=flat.device)


def _sums(words: Tensor, keys: Tensor) -> Tensor:
    mixed = words >> 32
    mixed &= LOW_HALF
    mixed ^= words
    mixed *= keys
    return mixed.sum(dim=1)


def tensor_lines(component: nn.Module) -> list[str]:
    """Name, shape, dtype and block sums of every tensor, a line each. Values leave a device once."""
    names, sums = [], []
    for name, tensor in tensors_of(component):
        names.append(f"{name} {tuple(tensor.shape)} {tensor.dtype}")
        sums.append(block_sums(tensor))
    devices = dict.fromkeys(found.device for found in sums)
    moved = {device: iter(torch.cat([found for found in sums if found.device == device]).tolist()) for device in devices}
    listed = [[next(moved[found.device]) for _ in range(len(found))] for found in sums]
    return [f"{name} {' '.join(map(str, values))}" for name, values in zip(names, listed, strict=True)]


def digest(tensor: Tensor) -> str:
    """Shape, dtype and values of one tensor, short."""
    text = f"{tuple(tensor.shape)} {tensor.dtype} {block_sums(tensor).tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tensors_of(component: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by name, in the module's order: plain tensors with their real values.

    A quantised weight gives the tensors it consists of. Weights on the `meta` device or on disk are read where accelerate or
    diffusers keeps them; ModelError where nothing keeps them.
    """
    on_disk = _in_group_files(component)
    for path, module in component.named_modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                place = f"{path}.{name}" if path else name
                for suffix, part in _plain(_held(module, place, name, tensor, on_disk)):
                    yield place + suffix, part


def _held(module: nn.Module, place: str, name: str, tensor: Tensor, on_disk: Mapping[int, Any]) -> Tensor:
    """The tensor with its values, wherever they are."""
    if id(tensor) in on_disk:
        read: Tensor = on_disk[id(tensor)]()
        return read
    if not tensor.is_meta:
        return tensor
    for hook in _offload_hooks(getattr(module, "_hf_hook", None)):
        if hook.weights_map is not None and name in hook.weights_map:
            kept: Tensor = hook.weights_map[name]
            return kept
    raise ModelError(f"model: the values of {place} are nowhere (a meta tensor without offloading); load the model again")


def _offload_hooks(hook: Any) -> Iterator[Any]:
    if hook is not None and hasattr(hook, "hooks"):
        for one in hook.hooks:
            yield from _offload_hooks(one)
    elif hasattr(hook, "weights_map"):
        yield hook


def _in_group_files(component: nn.Module) -> dict[int, Any]:
    """Readers of tensors that diffusers' group offloading has moved to files, by the tensor's identity."""
    from safetensors import safe_open

    found: dict[int, Any] = {}

    def reader(file: str, key: str) -> Any:
        def read() -> Tensor:
            with safe_open(file, framework="pt") as opened:
                value: Tensor = opened.get_tensor(key)
            return value

        return read

    for module in component.modules():
        hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
        group = getattr(hooks.get("group_offloading"), "group", None)
        if group is not None and group.offload_to_disk_path and group._is_offloaded_to_disk:
            for tensor, key in group.tensor_to_key.items():
                if tensor.device == torch.device(group.offload_device):
                    found[id(tensor)] = reader(group.safetensors_file_path, key)
    return found


def _plain(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors that a tensor consists of, each with a suffix of its name."""
    if hasattr(tensor, "__tensor_flatten__"):  # torchao
        for name in tensor.__tensor_flatten__()[0]:
            for suffix, part in _plain(getattr(tensor, name)):
                yield f".{name}{suffix}", part
        return
    yield "", tensor
    state = getattr(tensor, "quant_state", None)  # bitsandbytes
    if state is not None:
        for name, value in state.as_dict(packed=True).items():
            yield f".{name}", value
