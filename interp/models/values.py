"""Describe values and functions of a user as JSON that is equal where they act alike."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.models import hashing

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, np.generic)
READABLE = (*PLAIN, os.PathLike, Tensor, np.ndarray, list, tuple, dict)
DEEPEST = 4


class Reader:
    """Describes values as JSON, and remembers what cannot be read."""

    def __init__(self) -> None:
        self.unverifiable: list[str] = []

    def describe(self, value: Any, where: str, depth: int = 0) -> Any:
        """A value as JSON that is equal when the value acts alike."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
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


def code_digest(code: types.CodeType) -> str:
    """A function's instructions and constants, whatever file and line it is on."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_argcount)).encode())
    for constant in code.co_consts:
        digest.update(code_digest(constant).encode() if isinstance(constant, types.CodeType) else repr(constant).encode())
    return digest.hexdigest()[:16]


def short(value: Any) -> str:
    """A digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
