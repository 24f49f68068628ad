"""A transformer's shape without its weights, from its config on torch's meta device, and the table of the families' shapes."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.base.errors import ModelError
from interp.models.anatomy import Anatomy, Conditioning, describe
from interp.models.catalog import CATALOG, FAMILY_FILES, entry_of, nearest, read_yaml, source_of
from interp.models.families import ANATOMIES, CONFIGS, FAMILIES, OWN_GUIDANCE, PIPELINES
from interp.models.fetch import load_errors
from interp.models.load import as_called_by
from interp.models.quiet import quiet

OWN = {"uncond first": "one batch", "cond first": "one batch", "calls": "two calls"}


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
        return build(str(name), config, f"{source}/transformer/config.json", _class_of(source))
    if source.is_dir():
        raise ModelError(f"model folder {source} has no transformer/config.json; give a diffusers pipeline folder")
    entry = entry_of(name)
    known = CONFIGS.get(str(name)) if revision is None else None  # then no network is needed
    pipeline_class = entry.pipeline_class if entry is not None else ""
    try:
        config = _hub_config(str(name), str(source), revision, local_files_only or known is not None)
        return build(str(name), config, f"hub: {source}", pipeline_class)
    except ModelError:
        if known is None:
            raise
    return build(str(name), known, f"published config of {source}, as kept in interp", pipeline_class)


def build(name: str, config: Mapping[str, Any], origin: str, pipeline_class: str = "") -> Skeleton:
    """From a config's values; with the class of its pipeline, as that calls it."""
    import diffusers

    class_name = str(config.get("_class_name"))
    if class_name not in ANATOMIES:
        command = "interp models --support"
        raise ModelError(f"model {name!r}: its transformer is a {class_name}; {nearest(class_name, ANATOMIES, command)}")
    values = {key: value for key, value in config.items() if not key.startswith("_")}
    with quiet(), load_errors(name, origin), torch.device("meta"):
        transformer = getattr(diffusers, class_name).from_config(values)
    return Skeleton(transformer, as_called_by(pipeline_class, describe(transformer, ANATOMIES)), origin)


def _class_of(folder: Path) -> str:
    """The class of a folder's pipeline; empty where it has none."""
    index = folder / "model_index.json"
    return str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", "")) if index.is_file() else ""


def _hub_config(name: str, source: str, revision: str | None, local_files_only: bool) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    if source.count("/") != 1:
        raise ModelError(f"model {name!r} is not a known name or folder; {nearest(name, CATALOG)}")
    with quiet(), load_errors(name, source):
        path = hf_hub_download(
            source, "transformer/config.json", revision=revision, local_files_only=local_files_only, etag_timeout=5
        )
    config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return config


def support() -> list[dict[str, str]]:
    """One row per family: models, pipelines, blocks, streams, gates, their inputs, guidance, tests."""
    models: dict[str, dict[str, Anatomy]] = {}
    for name, config in CONFIGS.items():
        anatomy = build(name, config, "published").anatomy
        models.setdefault(anatomy.family, {})[name] = anatomy
    return [_row(list(of_family), next(iter(of_family.values()))) for of_family in models.values()]


def _row(names: list[str], anatomy: Anatomy) -> dict[str, str]:
    counts = collections.Counter(block.kind for block in anatomy.blocks)
    known = FAMILIES[anatomy.family].pipelines if anatomy.family in FAMILIES else ()
    pipelines = dict.fromkeys([*(CATALOG[name].pipeline_class for name in names), *(spec.pipeline_class for spec in known)])
    own = OWN[OWN_GUIDANCE[anatomy.model_class].rows] if anatomy.model_class in OWN_GUIDANCE else "unknown"
    ran = {"tiny random pipelines": anatomy.family in FAMILIES, "the demo model": anatomy.family == "sd3"}
    return {
        "models": ", ".join(names),
        "pipeline": ", ".join(name for name in pipelines if name in PIPELINES) or "none yet",
        "blocks of the first": ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        "streams": ", ".join(anatomy.stream_names),
        "gates": gates(anatomy),
        "set by": ", ".join(anatomy.conditioning.players) if anatomy.conditioning is not None else "-",
        "guidance": f"own: {own}; degraded rows {'fork' if anatomy.forks else 'are whole'}",
        "tested on": ", ".join(name for name, did in ran.items() if did) or "nothing",
    }


def gates(anatomy: Anatomy) -> str:
    """The gates, their source, and the branches without a gate."""
    given = [modulation for block in anatomy.blocks for modulation in block.modulations if modulation.module is None]
    shared = all(modulation.table is None for modulation in given)
    source = "" if not given else " (the same in all blocks of a kind)" if shared else " (shared, plus each block's table)"
    if anatomy.conditioning is not None and anatomy.conditioning.of_block is not Conditioning.of_block:
        source = " (of all blocks at once, each its own)"
    without = [writer for writer in anatomy.writers if writer not in anatomy.gates]
    if not anatomy.gates:
        return "none: hidden states alone"
    return ", ".join(anatomy.gates) + source + (f"; {', '.join(without)} has none" if without else "")


def page(rows: list[dict[str, str]]) -> str:
    """The rows and the notes on each pipeline, as Markdown tables."""
    notes = [read_yaml(path).get("notes") or {} for path in sorted(FAMILY_FILES.glob("*.yaml"))]
    told = [{"pipeline": f"`{name}`", "notes": text} for family in notes for name, text in family.items()]
    return f"{markdown(rows)}\n{markdown(told)}"


def markdown(rows: list[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
