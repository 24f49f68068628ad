"""Describe values and functions of a user as JSON that is equal where they act alike.

Functions are described by their code, defaults, closures and the globals that they use; objects by their class and attributes;
modules of other pipelines by their weights. Code of installed packages is described by its name. What cannot be read is noted
as unverifiable.
"""

from __future__ import annotations

import functools
import hashlib
import json
import numbers
import os
import sys
import sysconfig
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.models import hashing

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, np.generic)
READABLE = (*PLAIN, os.PathLike, Tensor, np.ndarray, nn.Module, Mapping, list, tuple, set, frozenset, type)
CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
DEEPEST = 8
COMPUTING = ("forward", "__call__", "step")
PRIVATE = ("_attention_backend",)
"""Private attributes of installed classes that change what they compute."""


class Reader:
    """Describes values as JSON, and remembers what cannot be read. Modules among `known` are described elsewhere."""

    def __init__(self, known: Collection[nn.Module] = ()) -> None:
        self.unverifiable: list[str] = []
        self.known = {id(module) for module in known}
        self._reading: list[int] = []
        self._seen: set[Any] = set()

    def describe(self, value: Any, where: str) -> Any:
        """A value as JSON that is equal when the value acts alike."""
        if isinstance(value, (*PLAIN, numbers.Number)):
            return repr(value)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, Tensor):
            return hashing.digest(value)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()[:16]
        if isinstance(value, types.ModuleType):
            return value.__name__
        if id(value) in self._reading:
            return "itself"
        if len(self._reading) >= DEEPEST and not isinstance(value, type | types.FunctionType):
            return self.unreadable(value, where)
        self._reading.append(id(value))
        try:
            return self._parts(value, where)
        finally:
            self._reading.pop()

    def _parts(self, value: Any, where: str) -> Any:
        if isinstance(value, type):
            return self.class_of(value, where)
        if isinstance(value, functools.partial):
            return ["partial", *(self.describe(one, where) for one in (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", self.describe(value.__self__, where), self.describe(value.__func__, where)]
        if isinstance(value, types.FunctionType):
            return self.function(value, where)
        if isinstance(value, nn.Module):
            return self.module(value, where)
        if isinstance(value, Mapping):
            return {str(key): self.describe(one, where) for key, one in value.items()}
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.describe(one, where)) for one in value)
        if isinstance(value, list | tuple):
            return [self.describe(one, where) for one in value]
        if callable(value) and hasattr(value, "__qualname__"):
            return f"{value.__module__}.{value.__qualname__}"
        return self.thing(value, where)

    def unreadable(self, value: Any, where: str) -> str:
        """Note that a value cannot be read; its type."""
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        self.unverifiable.append(f"{where} (a {type(value).__qualname__})")
        return name

    def function(self, function: types.FunctionType, where: str) -> Any:
        """A function: its name, and for a user's own its code, defaults, closure and the globals that it uses."""
        name = f"{function.__module__}.{function.__qualname__}"
        if function in self._seen or len(self._reading) > DEEPEST:
            return [name, code_digest(function.__code__)]
        self._seen.add(function)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {variable: cell.cell_contents for variable, cell in cells if _is_filled(cell)}
        held |= {"default values": function.__defaults__, "default keywords": function.__kwdefaults__}
        if is_installed(function):
            held = {key: value for key, value in held.items() if isinstance(value, (*READABLE, *CODE))}
        else:
            held |= globals_of(function)
        described = {key: self._held(value, where, name, key) for key, value in held.items()}
        return [name, code_digest(function.__code__), described]

    def _held(self, value: Any, where: str, name: str, key: str) -> Any:
        """What a function holds; in a closure, an object of an installed package that is no plain value is unverifiable."""
        readable = isinstance(value, (*READABLE, *CODE, types.ModuleType)) or callable(value) or not is_installed(type(value))
        if readable or key.startswith("global "):
            return self.describe(value, f"{where}: {name}")
        self.unverifiable.append(f"{where}: {name} (it holds {key}, a {type(value).__name__})")
        return type(value).__qualname__

    def module(self, module: nn.Module, where: str) -> Any:
        """A module: by its class if it is part of the pipeline, which is described as a whole, else also by its weights."""
        kind = self.class_of(type(module), where)
        if id(module) in self.known:
            return [kind, "of this pipeline"]
        return [kind, hashlib.sha256("\n".join(hashing.tensor_lines(module)).encode()).hexdigest()[:16]]

    def thing(self, value: Any, where: str) -> Any:
        """An object: its class and its attributes."""
        own = getattr(value, "__dict__", None)
        if own is None or (not own and is_installed(type(value))) or is_pythons(type(value)):
            return self.class_of(type(value), where)
        kept = {name: one for name, one in own.items() if not name.startswith("__") and one is not None}
        if is_installed(type(value)):
            public = {name: one for name, one in kept.items() if not name.startswith("_") or name in PRIVATE}
            kept = {name: one for name, one in public.items() if isinstance(one, (*READABLE, *CODE))}
        return [self.class_of(type(value), where), {key: self.describe(kept[key], where) for key in sorted(kept)}]

    def class_of(self, kind: type, where: str) -> Any:
        """A class: its name, and the code of its methods that does not come from the module that defines it."""
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in self._seen or len(self._reading) > DEEPEST:
            return name
        self._seen.add(kind)
        changed = changed_methods(kind)
        return [name, {key: self.describe(changed[key], where) for key in sorted(changed)}] if changed else name


_real_path = functools.lru_cache(maxsize=None)(os.path.realpath)


def _file_of(module: str) -> str:
    return str(_real_path(getattr(sys.modules.get(module), "__file__", None) or ""))


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Folders of Python, of this package, and of packages that were installed: they have metadata."""
    found = {*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), os.path.dirname(os.path.dirname(__file__))}
    found |= {path for path in sys.path if any(Path(path or ".").glob("*.dist-info"))}
    return tuple(os.path.realpath(path) + os.sep for path in sorted(found))


def is_pythons(kind: type) -> bool:
    """Whether a class is one of Python's own library."""
    return kind.__module__.partition(".")[0] in ("builtins", *sys.stdlib_module_names)


def is_installed(what: Any) -> bool:
    """Whether a function or class comes with an installed package or with Python, by where its code lies."""
    if isinstance(what, type) and is_pythons(what):
        return True
    file = _file_of(what.__module__) if isinstance(what, type) else _real_path(what.__code__.co_filename)
    return str(file).startswith(installed_folders())


def _is_original(name: str, function: types.FunctionType, file: str) -> bool:
    """Whether a method comes from installed packages, and one that computes from the file of its class."""
    while is_installed(function) and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return is_installed(function) and (name not in COMPUTING or str(_real_path(function.__code__.co_filename)) == file)


def changed_methods(kind: type) -> dict[str, Any]:
    """Methods of a class and of its bases that are not those of the files which define them; all of a user's own class."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base is object or base.__module__ == "builtins":
            continue
        file, own = _file_of(base.__module__), not is_installed(base)
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            function = function.fget if isinstance(function, property) else function
            if not isinstance(function, types.FunctionType) or (name.startswith("__") and name != "__call__"):
                continue
            found.pop(name, None)
            if own or not _is_original(name, function, file):
                found[name] = function
    return found


def names_of(code: types.CodeType) -> set[str]:
    """Global names that code uses, also in functions inside it."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*(names_of(one) for one in inner))


def globals_of(function: types.FunctionType) -> dict[str, Any]:
    """Globals that a function uses, and what it uses of modules that are no installed package's."""
    names, everywhere = sorted(names_of(function.__code__)), function.__globals__
    used = {f"global {name}": everywhere[name] for name in names if name in everywhere}
    for module in [value for value in used.values() if isinstance(value, types.ModuleType)]:
        if (
            not _file_of(module.__name__).startswith(installed_folders())
            and module.__name__.partition(".")[0] not in sys.stdlib_module_names
        ):
            used |= {f"{module.__name__}.{name}": vars(module)[name] for name in names if name in vars(module)}
    return used


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def code_digest(code: types.CodeType) -> str:
    """A function's instructions and constants, whatever file and line it is on."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_argcount)).encode())
    for constant in code.co_consts:
        digest.update(_constant(constant).encode())
    return digest.hexdigest()[:16]


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return code_digest(value)
    if isinstance(value, frozenset):  # its order depends on the process
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"({', '.join(map(_constant, value))})" if isinstance(value, tuple) else repr(value)


def short(value: Any) -> str:
    """A digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
