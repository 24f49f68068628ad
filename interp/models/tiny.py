"""Tiny random diffusers pipelines, complete and offline: the fixture of our tests and of yours.

folder = interp.models.tiny.build("sd3", "some/folder", seed=0)
model = interp.load(folder)

A family is the part `tiny` of its data file in `families/`: its `sizes`, its `parts` in the order in which their weights are
drawn, its `pipeline` (a class, more of its arguments, and `register`: what its configuration holds besides), and the `defaults`
of its runs. The demo model (`interp.models.demo`) is put together from such parts too. A part is a mapping of one of three
forms:

    {class: NAME, ...}      an object of a class of diffusers or transformers (PACKAGE.NAME: of a package of a pipeline); the
                            other keys are its configuration, save `set` (the values of buffers) and `draw` (parameters that
                            are drawn from a standard normal)
    {recipe: NAME, ...}     one of `components.yaml`; the other keys are sizes of the recipe
    {tokenizer: NAME, ...}  one of `vocabulary.TOKENIZERS`; `text` holds more words for it, the other keys are its arguments

A string that begins with `=` is a formula of the sizes, such as `= heads * head_width`.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from interp.base.errors import InputError
from interp.models import vocabulary
from interp.models.catalog import FAMILY_FILES, Defaults, read_yaml, write_defaults
from interp.models.quiet import quiet

FAMILIES = tuple(sorted(path.stem for path in FAMILY_FILES.glob("*.yaml")))
RECIPES = Path(__file__).with_name("components.yaml")
WORDS = ("a", "and", "blue", "cat", "circle", "dog", "green", "of", "on", "photo", "red", "square", "the", "two")
"""What the tiny models' tokenizers know."""
FORMULA = "="
IN_FORMULAS = ast.Name | ast.Constant | ast.List | ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.IfExp | ast.Subscript | ast.Slice
"""What a formula may hold: names, numbers, texts, lists, arithmetic and choices, but no call and no attribute."""


def build(family: str, folder: str | Path, *, seed: int = 0, **sizes: Any) -> Path:
    """Write a tiny random pipeline of a family and return its folder; pictures are 64x64 by default.

    `sizes` overrides those at the top of the family's file, such as blocks=4, heads=2, head_width=16, resolution=64 (pixels;
    bigger for benchmarks); for sd3 dual_attention=(0, 1) (block indices), for videos frames.
    """
    with quiet():
        pipe, defaults = make(family, seed=seed, **sizes)
    return save(pipe, folder, defaults)


def make(family: str, *, seed: int = 0, **sizes: Any) -> tuple[Any, Defaults]:
    """The same pipeline in memory, with the defaults that its folder would hold."""
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}")
    data = read_yaml(FAMILY_FILES / f"{family}.yaml")["tiny"]
    own = chosen(family, data["sizes"], sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {}
        for name, part in data["parts"].items():  # `text_encoder_2` is made for the vocabulary of `tokenizer_2`, before it
            reads = name.startswith("text_encoder")
            reader = parts.get(name.replace("text_encoder", "tokenizer"), parts.get("processor")) if reads else None
            parts[name] = component(part, own, getattr(reader, "tokenizer", reader))
    settings = resolved(data["pipeline"], own)
    kind, registered = named(settings.pop("class")), settings.pop("register", {})
    pipe = kind(**parts, **settings)
    if registered:
        pipe.register_to_config(**registered)
    return pipe, Defaults(**resolved(data["defaults"], own))


def component(data: Mapping[str, Any], sizes: Mapping[str, Any], tokenizer: Any = None) -> Any:
    """The component that `data` describes, with random weights; a text encoder is made for the vocabulary of `tokenizer`."""
    known = {}
    if tokenizer is not None:
        known = {
            "vocabulary": len(tokenizer),
            "length": tokenizer.model_max_length,
            "begin": tokenizer.bos_token_id,
            "end": tokenizer.eos_token_id,
            "padding": tokenizer.pad_token_id,
        }
    given = resolved(data, {**sizes, **known})
    if "recipe" in given:
        name = given.pop("recipe")
        return recipe(name, tokenizer, **given)
    if "tokenizer" in given:
        learn = vocabulary.TOKENIZERS[given.pop("tokenizer")]
        texts = [*WORDS, given.pop("text")] if "text" in given else WORDS
        return learn(texts, **given)
    return _made(**given)


def recipe(name: str, tokenizer: Any = None, **sizes: Any) -> Any:
    """The component that a recipe of `components.yaml` describes; `sizes` overrides the recipe's own."""
    data = dict(read_yaml(RECIPES)[name])
    return component(data, chosen(name, data.pop("sizes"), sizes), tokenizer)


def chosen(owner: str, sizes: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The owner's sizes, with those that are given in place of its own."""
    unknown = [name for name in given if name not in sizes]
    if unknown:
        raise InputError(f"sizes of {owner} must be among {', '.join(sizes)}; got {unknown[0]!r}")
    return {**sizes, **given}


def resolved(value: Any, names: Mapping[str, Any]) -> Any:
    """A copy of a piece of data with the value of each formula in its place."""
    if isinstance(value, Mapping):
        return {key: resolved(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner, names) for inner in value]
    if isinstance(value, str) and value.startswith(FORMULA):
        return formula(value.removeprefix(FORMULA).strip(), names)
    return value


def formula(text: str, names: Mapping[str, Any]) -> Any:
    """The value of a formula of `names`, written in Python; see `IN_FORMULAS` for what it may hold."""
    tree = ast.parse(text, mode="eval")
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.expr)]
    refused = [type(node).__name__ for node in parts if not isinstance(node, IN_FORMULAS)]
    if refused:
        raise ValueError(f"a formula must hold names, numbers, lists, arithmetic and choices; got {refused[0]} in {text!r}")
    return eval(compile(tree, "formula", "eval"), {"__builtins__": {}}, dict(names))


def named(name: str) -> Any:
    """A class of diffusers, one of its pipelines' packages, or transformers."""
    package, _, name = name.rpartition(".")
    if package:
        return getattr(importlib.import_module(f"diffusers.pipelines.{package}"), name)
    return getattr(diffusers if hasattr(diffusers, name) else transformers, name)


def save(pipe: Any, folder: str | Path, defaults: Defaults) -> Path:
    """Write a pipeline as a diffusers folder, with the defaults of its runs."""
    folder = Path(folder)
    with quiet():
        pipe.save_pretrained(folder, safe_serialization=True)
        tidy_configs(folder)
    write_defaults(folder, defaults)
    return folder


def tidy_configs(folder: Path) -> None:
    """Take out of a saved pipeline's configs what makes loading it noisy or different from machine to machine."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if config.get("_class_name") == "AutoencoderTiny":
            config.pop("block_out_channels", None)  # registered by its constructor, which does not take it
        else:
            # transformers loads what the config says and diffusers float32: without this the parts would not fit together
            config.update({"dtype": "float32"} if "dtype" in config else {})
        path.write_text(json.dumps(config, indent=2) + "\n")


def _made(**data: Any) -> Any:
    """An object of a class, in evaluation mode where it is a module."""
    kind = named(data.pop("class"))
    values, drawn = data.pop("set", {}), data.pop("draw", [])
    made = kind(kind.config_class(**data)) if issubclass(kind, transformers.PreTrainedModel) else kind(**data)
    with torch.no_grad():
        for name, value in values.items():
            made.get_buffer(name).copy_(torch.tensor(value))
        for name in drawn:
            made.get_parameter(name).normal_()
    return made.eval() if isinstance(made, torch.nn.Module) else made
