"""Commands on models: `models`, `inspect`, `selfcheck`."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from interp.base.errors import InterpWarning, TraceError
from interp.base.options import Loading
from interp.base.site_recorder import at_least
from interp.cli.console import print_json, print_table
from interp.cli.results import AsJson

if TYPE_CHECKING:
    from interp.models.skeleton import Skeleton

NAMES = {"name": "name", "traced": "traceable", "source": "source", "about": "about"}


def models(
    support: Annotated[bool, typer.Option("--support", help="Properties of every family: blocks, gates, guidance.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The same as Markdown, and notes on each pipeline.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the known models and whether this version can trace them."""
    from interp.models import skeleton as known

    rows = known.support() if support or markdown else _names()
    shown = {name: name for name in rows[0]} if support else NAMES
    if markdown:
        print(known.page(rows), end="")
    elif as_json:
        print_json(rows)
    else:
        print_table("", list(shown), [[_cell(row[key]) for key in shown.values()] for row in rows])


def _cell(value: Any) -> str:
    return {True: "yes", False: "not yet"}[value] if isinstance(value, bool) else str(value)


def _names() -> list[dict[str, Any]]:
    """Every model of the catalog."""
    from interp.models.catalog import CATALOG
    from interp.models.families import PIPELINES

    return [
        {
            "name": entry.name,
            "source": "ships with interp" if entry.folder else entry.source,
            "available": entry.folder.is_dir() if entry.folder else None,
            "pipeline": entry.pipeline_class,
            "traceable": entry.pipeline_class in PIPELINES,
            "about": entry.about,
        }
        for entry in CATALOG.values()
    ]


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
        ["blocks", str(len(anatomy.blocks))],
        ["streams", ", ".join(f"{one.name} ({one.role}, {one.width} channels)" for one in anatomy.streams)],
        ["gates", ", ".join(anatomy.gates) or "none: no alpha multiplies what the blocks add"],
        ["conditioning enters again in", ", ".join(reentry.module for reentry in anatomy.reentries)],
    ]
    print_table("", ["", ""], facts)
    streams = [f"sites of the {stream} stream" for stream in bones.anatomy.stream_names]
    print_table("", ["blocks", "kind", "path", *streams], block_rows(bones))


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
    streams = [_site_names([s for s in sites if s.stream == stream]) for stream in bones.anatomy.stream_names]
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
        "streams": list(anatomy.stream_names),
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


def selfcheck(
    loading: Loading,
    steps: Annotated[int, typer.Option(help="Sampling steps of each run.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Check on this machine and these weights that traces are correct: PASS or FAIL lines, exit 1 on a FAIL."""
    from interp.testing import selfcheck as run_checks
    from interp.tracing.model import load

    at_least("steps", steps, 1)
    loaded = load(**vars(loading))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)  # about the package's example prompts
        report = run_checks(loaded, steps=steps)
    checks = report.checks
    if as_json:
        values = [{**dataclasses.asdict(check), "passed": check.passed} for check in checks]
        costs = {"seconds_a_step": report.seconds_a_step, "bytes_a_prompt": report.bytes_a_prompt, "steps": report.steps}
        print_json({"model": loading.model, "passed": report.passed, "checks": values, **costs})
    else:
        for check in checks:
            verdict = "PASS" if check.passed else "FAIL"
            print(f"{verdict}  {check.name}: {check.value:.3g} (limit {check.limit:g}); {check.about}")
        cost = f"{report.steps * report.seconds_a_step:.1f} s and {decimal(int(report.bytes_a_prompt))} before compression"
        print(f"a prompt of {report.steps} steps with statistics and gates: about {cost}")
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise TraceError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
