"""What a pipeline does besides its weights: configs, adapters, hooks, processors, dtypes, the scheduler's values, arithmetic.

Part of a run's plan: a store whose rows were drawn in another state is not continued. Each part is a digest, so that the plan
stays small and an error names the part that differs. A function whose meaning cannot be read (a closure over objects, a C
function without a name) is listed under `unverifiable`.
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from interp.models.values import Reader, short

PLACES = ("offload", "group_offloading", "lazy_prefetch_group_offloading", "peft_autocast_disable")
"""Hooks of diffusers that move weights or switch autocast off around adapters, and change no value."""
OUR_OWN = "interp."
INVISIBLE = ("accelerate.", "nnsight.", "transformers.utils.output_capturing", OUR_OWN)
"""Modules of hooks that change no value."""
UNREAD = (
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "_diffusers_version",
    "torch_dtype",
    "dtype",
    "_commit_hash",
    "_use_default_values",
)
"""Entries of configs that say where weights came from."""
UNCHANGING = ("config", "generation_config", "gradient_checkpointing", "use_slicing", "hf_device_map")
"""Attributes of modules that change no value, or are described elsewhere."""


def functions_state(pipe: Any, functions: Mapping[str, Any]) -> dict[str, Any]:
    """Functions of a user by name: what they do, and what of it cannot be read."""
    reader = Reader(modules_of(pipe))
    found = {name: short(reader.describe(function, f"recorder {name}")) for name, function in functions.items()}
    return {**found, "unverifiable": sorted(set(reader.unverifiable))} if reader.unverifiable else found


def modules_of(pipe: Any) -> list[nn.Module]:
    """All modules of a pipeline's parts."""
    return [module for part in pipe.components.values() if isinstance(part, nn.Module) for module in part.modules()]


def state_of(pipe: Any, set_by_calls: Collection[str] = ()) -> dict[str, Any]:
    """The state by part: for every component its class, config, attributes, hooks, adapters, dtypes; the pipeline's own values;
    and the settings of this process that change arithmetic. `set_by_calls` are settings of tokenizers that every call sets.
    """
    reader = Reader(modules_of(pipe))
    found: dict[str, Any] = {"pipeline": _pipeline(pipe, reader), "arithmetic": arithmetic(reader)}
    for name, component in sorted(pipe.components.items()):
        if component is None or component is pipe.scheduler:
            continue
        if isinstance(component, nn.Module):
            found[name] = _module(component, name, reader)
        else:
            found[name] = {"class": type(component).__name__, "config": short(_tokens(component, name, reader, set_by_calls))}
    if reader.unverifiable:
        found["unverifiable"] = sorted(set(reader.unverifiable))
    return found


def _pipeline(pipe: Any, reader: Reader) -> dict[str, Any]:
    own = {key: value for key, value in vars(pipe).items() if not key.startswith("_") and not _is_part(pipe, key)}
    kept = {key: value for key, value in own.items() if value is not None and key not in UNCHANGING}
    configs = {key: _config(value, key, reader) for key, value in kept.items() if hasattr(value, "config")}
    values = [reader.class_of(type(pipe), "the pipeline"), reader.describe(kept, "the pipeline"), configs]
    return {"class": type(pipe).__name__, "values": short(values)}


def _is_part(pipe: Any, name: str) -> bool:
    return name in pipe.components or name in ("maybe_free_model_hooks",)


def _module(component: nn.Module, part: str, reader: Reader) -> dict[str, Any]:
    attributes, hooks, adapters = {}, {}, {}
    for path, module in component.named_modules():
        where = f"{part}.{path}" if path else part
        attributes[path] = _attributes(module, where, reader)
        hooked = _hooks(module, where, reader)
        if hooked:
            hooks[path] = hooked
        adapted = _adapters(module)
        if adapted:
            adapters[path] = adapted
    dtypes = [f"{name} {value.dtype}" for name, value in component.named_parameters()]
    kinds = sorted({line.rsplit(" ", 1)[1].removeprefix("torch.") for line in dtypes})
    found: dict[str, Any] = {
        "class": type(component).__name__,
        "config": short(_config(component, part, reader)),
        "attributes": short(attributes),
        "dtype": kinds[0] if len(kinds) == 1 else f"{','.join(kinds)} {short(dtypes)}",
    }
    if hooks:
        found["hooks"] = short(hooks)
    if adapters:
        found["adapters"] = short(adapters)
        found["scales"] = sorted({f"{name}:{scale:g}" for one in adapters.values() for name, scale in one["scaling"].items()})
    return found


def _attributes(module: nn.Module, where: str, reader: Reader) -> Any:
    """Plain values, functions, processors and unregistered tensors of a module."""
    found = {}
    for name, value in vars(module).items():
        if (
            name.startswith("_")
            or name in (*UNREAD, *UNCHANGING)
            or value is None
            or isinstance(value, torch.device | nn.Module)
        ):
            continue
        derived = f"{name}_g" in module._parameters  # by a weight norm, at every forward
        if not derived and (name != "forward" or not computes_alike(module, value)):
            found[name] = reader.describe(value, f"{where}.{name}")
    return [reader.class_of(type(module), where), found]


def computes_alike(module: nn.Module, forward: Any) -> bool:
    """Whether an instance's forward is its class's, as such, or as accelerate, diffusers or this package install it."""
    if isinstance(forward, types.MethodType):
        return forward.__self__ is module and forward.__func__ is type(module).forward
    if isinstance(forward, functools.partial) and str(forward.func.__module__).startswith("accelerate."):
        return computes_alike(module, vars(module).get("_old_forward"))
    return type(forward).__module__.startswith(OUR_OWN) or hasattr(module, "_diffusers_hook")


def _hooks(module: nn.Module, where: str, reader: Reader) -> list[Any]:
    found = []
    for table in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(module, table).values():
            if not str(getattr(hook, "__module__", "")).startswith(INVISIBLE):
                found.append([table, reader.describe(hook, f"a hook on {where}")])
    registry = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    found += [["diffusers", name] for name in registry if name not in PLACES]
    return found


def _adapters(module: nn.Module) -> dict[str, Any]:
    """Active adapters of a layer, their scales, and whether they are disabled or merged (peft's tuner layers)."""
    active: Any = getattr(module, "active_adapters", None)
    if active is None or callable(active):  # of a whole model
        return {}
    merged: Any = getattr(module, "merged_adapters", [])
    scaling: Any = getattr(module, "scaling", None)
    scaling = scaling if isinstance(scaling, Mapping) else {}
    return {
        "active": sorted([active] if isinstance(active, str) else active),
        "disabled": bool(getattr(module, "disable_adapters", False)),
        "merged": sorted(merged),
        "scaling": {name: float(value) for name, value in sorted(scaling.items())},
    }


def _config(component: Any, part: str, reader: Reader) -> Any:
    config = getattr(component, "config", {})
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    kept = {key: value for key, value in plain.items() if key not in UNREAD}
    kept["_attn_implementation"] = getattr(config, "_attn_implementation", None)
    return reader.describe(kept, f"{part}.config")


def _tokens(component: Any, part: str, reader: Reader, left_out: Collection[str]) -> Any:
    """A tokenizer's or processor's settings; its vocabulary is in the fingerprint of the weights."""
    backend = getattr(component, "backend_tokenizer", None)
    steps = {name: getattr(backend, name, None) for name in ("normalizer", "pre_tokenizer", "post_processor")}
    pieces = {name: bytes(step.__getstate__()) for name, step in steps.items() if step is not None}
    names = ("model_max_length", "padding_side", "truncation_side", "special_tokens_map", "chat_template")
    kept = {name: getattr(component, name, None) for name in names}
    if hasattr(component, "to_dict") and not hasattr(component, "get_vocab"):
        kept |= component.to_dict()
    kept = {key: value for key, value in kept.items() if key not in (*UNREAD, *left_out)}
    return [reader.class_of(type(component), part), reader.describe(kept, part), reader.describe(pieces, part)]


def arithmetic(reader: Reader) -> dict[str, Any]:
    """Settings of this process that change the numbers of a forward, and functions and hooks of torch that it has replaced."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    cuda, cudnn, functional = torch.backends.cuda, torch.backends.cudnn, vars(torch.nn.functional)
    replaced = {name: one for name, one in functional.items() if isinstance(one, types.FunctionType) and not _of_torch(one)}
    tables = [vars(nn.modules.module)[f"_global_forward{name}hooks"] for name in ("_pre_", "_")]
    everywhere = [hook for table in tables for hook in table.values()]
    hooks = [hook for hook in everywhere if not str(getattr(hook, "__module__", "")).startswith(INVISIBLE)]
    changed = {"functional": replaced, "hooks": hooks}
    autocast = {kind: str(torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)}
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": [bool(cuda.matmul.allow_tf32), bool(cudnn.allow_tf32)],
        "reduced": [
            bool(cuda.matmul.allow_fp16_reduced_precision_reduction),
            bool(cuda.matmul.allow_bf16_reduced_precision_reduction),
            bool(getattr(cuda.matmul, "allow_fp16_accumulation", False)),
        ],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": [bool(getattr(cuda, f"{name}_sdp_enabled")()) for name in ("flash", "mem_efficient", "math", "cudnn")],
        "backend": str(_AttentionBackendRegistry._active_backend),
        **({"changed": short(reader.describe(changed, "torch"))} if replaced or hooks else {}),
        "autocast": autocast,
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def _of_torch(function: types.FunctionType) -> bool:
    return function.__code__.co_filename.startswith(os.path.dirname(torch.__file__))
