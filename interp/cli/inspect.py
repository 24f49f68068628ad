"""`interp inspect`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import print_json, print_table

if TYPE_CHECKING:
    from interp.models.skeleton import Skeleton


def inspect(
    model: Annotated[str, typer.Option(help="Alias (see `interp models`), diffusers folder, or hub id.")],
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout, every site.")] = False,
) -> None:
    """Show a model's blocks, widths, gates and sites from its config alone, without reading weights."""
    from interp.models.skeleton import skeleton

    bones = skeleton(model, revision=revision, local_files_only=local_files_only)
    if as_json:
        print_json(as_values(model, bones))
        return
    anatomy = bones.anatomy
    facts = [
        ["model", f"{model}: {anatomy.model_class}, {bones.parameters / 1e6:,.1f} M parameters in the transformer"],
        ["config", bones.origin],
        ["blocks", f"{len(anatomy.blocks)}, {anatomy.channels} channels"],
        ["streams", ", ".join(anatomy.streams)],
        ["gates", ", ".join(anatomy.gates) or "none: no alpha multiplies what the blocks add"],
        ["conditioning enters again in", ", ".join(reentry.module for reentry in anatomy.reentries)],
    ]
    print_table("", ["", ""], facts)
    print_table("", ["blocks", "kind", "path", "sites of the image stream", "sites of the text stream"], block_rows(bones))


def block_rows(bones: Skeleton) -> list[list[str]]:
    """One row per run of identical blocks."""
    rows: list[list[str]] = []
    blocks = range(len(bones.anatomy.blocks))
    for described, group in itertools.groupby(blocks, lambda index: _description(bones, index)):
        alike = list(group)
        rows.append([str(alike[0]) if len(alike) == 1 else f"{alike[0]}-{alike[-1]}", *described])
    return rows


def _description(bones: Skeleton, index: int) -> list[str]:
    block = bones.anatomy.blocks[index]
    sites = [site for site in bones.anatomy.sites() if site.block == index]
    streams = [_site_names([s for s in sites if s.stream == stream]) for stream in ("image", "text")]
    return [block.kind, re.sub(r"\.\d+(?=\.|$)", ".*", block.path), *streams]


def _site_names(sites: Sequence[Any]) -> str:
    """Sites of one stream, with the gates of one kind joined: `alpha.attn|mlp`."""
    names: dict[str, list[str]] = {}
    for site in sites:
        names.setdefault(site.kind, []).extend([site.gate] if site.gate else [])
    return ", ".join(kind + (f".{'|'.join(gates)}" if gates else "") for kind, gates in names.items()) or "-"


def as_values(model: str, bones: Skeleton) -> dict[str, Any]:
    """Everything as plain JSON values."""
    anatomy = bones.anatomy
    return {
        "model": model,
        "model_class": anatomy.model_class,
        "config": bones.origin,
        "parameters": bones.parameters,
        "channels": anatomy.channels,
        "streams": list(anatomy.streams),
        "gates": list(anatomy.gates),
        "blocks": [
            {
                "block": index,
                "path": block.path,
                "kind": block.kind,
                "sites": [str(site) for site in anatomy.sites() if site.block == index],
            }
            for index, block in enumerate(anatomy.blocks)
        ],
        "row_inputs": list(anatomy.row_inputs),
        "reentries": [reentry.module for reentry in anatomy.reentries],
    }
