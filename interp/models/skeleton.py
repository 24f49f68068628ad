"""A transformer's shape without its weights: from its config, on torch's meta device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, describe
from interp.models.catalog import CATALOG, source_of
from interp.models.families import ANATOMIES, CONFIGS
from interp.models.fetch import load_errors
from interp.models.quiet import quiet


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A transformer on the meta device, its anatomy, and where its config came from."""

    transformer: nn.Module
    anatomy: Anatomy
    origin: str

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.transformer.parameters())


def skeleton(name: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Skeleton:
    """The skeleton of a model by alias, folder or hub id.

    For the catalog's models, the published config is used if the hub's own is not on this machine.
    """
    source = Path(source_of(name)).expanduser()
    if (source / "transformer" / "config.json").is_file():
        config = json.loads((source / "transformer" / "config.json").read_text(encoding="utf-8"))
        return build(str(name), config, f"{source}/transformer/config.json")
    if source.is_dir():
        raise ModelError(f"model folder {source} has no transformer/config.json; give a diffusers pipeline folder")
    known = CONFIGS.get(str(name)) if revision is None else None  # then no network is needed
    try:
        config = _hub_config(str(name), str(source), revision, local_files_only or known is not None)
        return build(str(name), config, f"hub: {source}")
    except ModelError:
        if known is None:
            raise
    return build(str(name), known, f"published config of {source}, as kept in interp")


def build(name: str, config: Mapping[str, Any], origin: str) -> Skeleton:
    """From a config's values."""
    import diffusers

    class_name = str(config.get("_class_name"))
    if class_name not in ANATOMIES:
        raise ModelError(f"model {name!r}: its transformer is a {class_name}; supported: {', '.join(sorted(ANATOMIES))}")
    values = {key: value for key, value in config.items() if not key.startswith("_")}
    with quiet(), load_errors(name, origin), torch.device("meta"):
        transformer = getattr(diffusers, class_name).from_config(values)
    return Skeleton(transformer, describe(transformer, ANATOMIES), origin)


def _hub_config(name: str, source: str, revision: str | None, local_files_only: bool) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    if source.count("/") != 1:
        raise ModelError(f"model {name!r} is not a known name or folder; known names: {', '.join(CATALOG)}")
    with quiet(), load_errors(name, source):
        path = hf_hub_download(
            source, "transformer/config.json", revision=revision, local_files_only=local_files_only, etag_timeout=5
        )
    config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return config
