"""What a pipeline does besides its weights: configs, adapters, hooks, processors, dtypes, the scheduler's values, arithmetic.

Part of a run's plan: a store whose rows were drawn in another state is not continued. Each part is a digest, so that the plan
stays small and an error names the part that differs. A function whose meaning cannot be read (a closure over objects, a C
function without a name) is listed under `unverifiable`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from interp.models.values import PLAIN, Reader, short

PLACES = ("offload", "group_offloading", "lazy_prefetch_group_offloading", "peft_autocast_disable")
"""Hooks of diffusers that move weights or switch autocast off around adapters, and change no value."""
TABLES = ("betas", "alphas", "alphas_cumprod")
"""A scheduler's tables of noise levels over training steps."""
OUR_OWN = "interp."
INVISIBLE = ("accelerate.", "nnsight.", "transformers.utils.output_capturing", OUR_OWN)
"""Modules of hooks that change no value."""
UNREAD = ("_name_or_path", "name_or_path", "transformers_version", "_diffusers_version", "torch_dtype", "dtype", "_commit_hash")


def functions_state(functions: Mapping[str, Any]) -> dict[str, Any]:
    """Functions of a user by name: what they do, and what of it cannot be read."""
    reader = Reader()
    found = {name: short(reader.describe(function, f"recorder {name}")) for name, function in functions.items()}
    return {**found, "unverifiable": sorted(set(reader.unverifiable))} if reader.unverifiable else found


def state_of(pipe: Any) -> dict[str, Any]:
    """The state by part: for every component its class, config, attributes, hooks, adapters, dtypes; the pipeline's own values;
    and the settings of this process that change arithmetic.
    """
    reader = Reader()
    found: dict[str, Any] = {"pipeline": _pipeline(pipe, reader), "arithmetic": arithmetic()}
    for name, component in sorted(pipe.components.items()):
        if component is None or component is pipe.scheduler:
            continue
        if isinstance(component, nn.Module):
            found[name] = _module(component, name, reader)
        else:
            found[name] = {"class": type(component).__name__, "config": short(_tokens(component, name, reader))}
    if reader.unverifiable:
        found["unverifiable"] = sorted(set(reader.unverifiable))
    return found


def _pipeline(pipe: Any, reader: Reader) -> dict[str, Any]:
    own = {key: value for key, value in vars(pipe).items() if not key.startswith("_") and not _is_part(pipe, key)}
    kept = {key: value for key, value in own.items() if isinstance(value, PLAIN) or callable(value)}
    return {"class": type(pipe).__name__, "values": short(reader.describe(kept, "the pipeline"))}


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
        if name.startswith("_") or name in (*UNREAD, "config") or isinstance(value, torch.device | nn.Module):
            continue
        derived = f"{name}_g" in module._parameters  # by a weight norm, at every forward
        if not derived and (name != "forward" or not _moves_only(module, value)):
            found[name] = reader.describe(value, f"{where}.{name}", 1)
    return [type(module).__qualname__, found]


def _moves_only(module: nn.Module, forward: Any) -> bool:
    """Whether an instance's forward is one that accelerate or diffusers installs to move weights, or our own."""
    kind = type(forward).__module__
    return kind.startswith(OUR_OWN) or hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook")


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
    scaling: Any = getattr(module, "scaling", None)
    if active is None or not isinstance(scaling, Mapping):
        return {}
    merged: Any = getattr(module, "merged_adapters", [])
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


def _tokens(component: Any, part: str, reader: Reader) -> Any:
    """A tokenizer's or processor's settings; its vocabulary is in the fingerprint of the weights."""
    names = ("model_max_length", "padding_side", "truncation_side", "special_tokens_map", "chat_template")
    kept = {name: getattr(component, name, None) for name in names}
    if hasattr(component, "to_dict") and not hasattr(component, "get_vocab"):
        kept |= component.to_dict()
    return reader.describe({key: value for key, value in kept.items() if key not in UNREAD}, part)


def arithmetic() -> dict[str, Any]:
    """Settings of this process that change the numbers of a forward."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    autocast = {kind: str(torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)}
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": [bool(cuda.matmul.allow_tf32), bool(cudnn.allow_tf32)],
        "reduced": [
            bool(cuda.matmul.allow_fp16_reduced_precision_reduction),
            bool(cuda.matmul.allow_bf16_reduced_precision_reduction),
        ],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": [bool(getattr(cuda, f"{name}_sdp_enabled")()) for name in ("flash", "mem_efficient", "math")],
        "autocast": autocast,
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """The scheduler's class and the values it uses: its config, with what was set on the object since (`set_shift`), and what
    differs from a fresh scheduler of that config.
    """
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str, sort_keys=True))
    configured = {}
    for key in plain:
        for name in (f"_{key}", key):
            live = vars(scheduler).get(name)
            if isinstance(live, int | float | str) and live != plain[key]:
                configured[key], plain[key] = plain[key], live
    reader, fresh = Reader(), vars(type(scheduler).from_config(scheduler.config))
    changed = {}
    for name, value in vars(scheduler).items():
        if (callable(value) and not isinstance(value, type)) or name in TABLES:
            described = reader.describe(value, "scheduler")
            if name not in fresh or reader.describe(fresh[name], "scheduler") != described:
                changed[name] = described
    found = {"class": type(scheduler).__name__, **plain, **({"configured": configured} if configured else {})}
    found |= {"changed": changed} if changed else {}
    return {**found, "unverifiable": reader.unverifiable} if reader.unverifiable else found
