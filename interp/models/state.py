"""What a pipeline does besides its weights: configs, adapters, hooks, processors, dtypes, the scheduler's values, arithmetic.

Part of a run's plan: a store whose rows were drawn in another state is not continued. Each part is a digest, so that the plan
stays small and an error names the part that differs. A function whose meaning cannot be read (a closure over objects, a C
function without a name) is listed under `unverifiable`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.models import hashing

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, np.generic)
PLACES = ("offload", "group_offloading", "lazy_prefetch_group_offloading", "peft_autocast_disable")
"""Hooks of diffusers that move weights or switch autocast off around adapters, and change no value."""
READABLE = (*PLAIN, Tensor, np.ndarray, list, tuple, dict)
TABLES = ("betas", "alphas", "alphas_cumprod")
"""A scheduler's tables of noise levels over training steps."""
OUR_OWN = "interp."
INVISIBLE = ("accelerate.", "nnsight.", "transformers.utils.output_capturing", OUR_OWN)
"""Modules of hooks that change no value."""
UNREAD = ("_name_or_path", "name_or_path", "transformers_version", "_diffusers_version", "torch_dtype", "dtype", "_commit_hash")
DEEPEST = 4


class Reader:
    """Describes values as JSON, and remembers what cannot be read."""

    def __init__(self) -> None:
        self.unverifiable: list[str] = []

    def describe(self, value: Any, where: str, depth: int = 0) -> Any:
        """A value as JSON that is equal when the value acts alike."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, Tensor):
            return hashing.digest(value)
        if isinstance(value, np.ndarray):
            return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()[:16]
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, functools.partial):
            held = (value.func, value.args, value.keywords)
            return ["partial", *(self.describe(one, where, depth + 1) for one in held)]
        if isinstance(value, types.MethodType):
            return ["method", self.describe(type(value.__self__), where), self.describe(value.__func__, where, depth)]
        if isinstance(value, types.FunctionType):
            return self.function(value, where, depth)
        if callable(value) and hasattr(value, "__qualname__"):
            return f"{value.__module__}.{value.__qualname__}"
        if depth >= DEEPEST:
            return f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, Mapping):
            return {str(key): self.describe(one, where, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            parts = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return [self.describe(one, where, depth + 1) for one in parts]
        return self.thing(value, where, depth)

    def function(self, function: types.FunctionType, where: str, depth: int = 0) -> Any:
        """A function: its name, and for one of no installed package its code, defaults and closure."""
        name = f"{function.__module__}.{function.__qualname__}"
        cells = {}
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[variable] = cell.cell_contents
            except ValueError:  # not yet filled
                continue
        if depth >= DEEPEST and cells:
            self.unverifiable.append(f"{where}: {name}")
            return name
        held = {}
        for variable, content in cells.items():
            if isinstance(content, (*READABLE, type, types.FunctionType, types.MethodType)):
                held[variable] = self.describe(content, where, depth + 1)
            else:
                self.unverifiable.append(f"{where}: {name} (it holds {variable}, a {type(content).__name__})")
        defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
        return [name, code_digest(function.__code__), self.describe(defaults, where, depth + 1), held]

    def thing(self, value: Any, where: str, depth: int) -> Any:
        """An object: its class and its plain attributes."""
        own = getattr(value, "__dict__", {})
        kept = {name: one for name, one in own.items() if isinstance(one, (*PLAIN, list, tuple, dict))}
        return {"class": self.describe(type(value), where), "values": self.describe(kept, where, depth + 1)}


def functions_state(functions: Mapping[str, Any]) -> dict[str, Any]:
    """Functions of a user by name: what they do, and what of it cannot be read."""
    reader = Reader()
    found = {name: short(reader.describe(function, f"recorder {name}")) for name, function in functions.items()}
    return {**found, "unverifiable": sorted(set(reader.unverifiable))} if reader.unverifiable else found


def code_digest(code: types.CodeType) -> str:
    """A function's instructions and constants, whatever file and line it is on."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_argcount)).encode())
    for constant in code.co_consts:
        digest.update(code_digest(constant).encode() if isinstance(constant, types.CodeType) else repr(constant).encode())
    return digest.hexdigest()[:16]


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


def short(value: Any) -> str:
    """A digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
