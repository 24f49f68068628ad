"""The support table, one row per family, from the anatomies, the pipelines and the published configs."""

from __future__ import annotations

import collections

from interp.models.anatomy import Anatomy, Conditioning
from interp.models.catalog import CATALOG
from interp.models.families import CONFIGS, FAMILIES, OWN_GUIDANCE, PIPELINES
from interp.models.skeleton import build

SAME = Conditioning.of_block
OWN = {"uncond first": "one batch", "cond first": "one batch", "calls": "two calls"}


def support() -> list[dict[str, str]]:
    """One row per family: models, pipelines, blocks, streams, gates, their inputs, guidance, tests."""
    models: dict[str, list[str]] = {}
    anatomies: dict[str, Anatomy] = {}
    for name, config in CONFIGS.items():
        anatomy = build(name, config, "published").anatomy
        models.setdefault(anatomy.family, []).append(name)
        anatomies.setdefault(anatomy.family, anatomy)
    return [_row(names, anatomies[family]) for family, names in models.items()]


def _row(names: list[str], anatomy: Anatomy) -> dict[str, str]:
    counts = collections.Counter(block.kind for block in anatomy.blocks)
    pipelines = [name for name in dict.fromkeys(CATALOG[name].pipeline_class for name in names) if name in PIPELINES]
    return {
        "models": ", ".join(names),
        "pipeline": ", ".join(pipelines) or "none yet",
        "blocks of the first": ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        "streams": ", ".join(anatomy.streams),
        "gates": gates(anatomy),
        "set by": ", ".join(anatomy.conditioning.players) if anatomy.conditioning is not None else "-",
        "guidance": guidance(anatomy),
        "tested on": tested(anatomy),
    }


def gates(anatomy: Anatomy) -> str:
    """The gates, their source, and the branches without a gate."""
    given = [modulation for block in anatomy.blocks for modulation in block.modulations if modulation.module is None]
    shared = all(modulation.table is None for modulation in given)
    source = "" if not given else " (the same in all blocks of a kind)" if shared else " (shared, plus each block's table)"
    if anatomy.conditioning is not None and anatomy.conditioning.of_block is not SAME:
        source = " (of all blocks at once, each its own)"
    without = [writer for writer in anatomy.writers if writer not in anatomy.gates]
    if not anatomy.gates:
        return "none: hidden states alone"
    return ", ".join(anatomy.gates) + source + (f"; {', '.join(without)} has none" if without else "")


def guidance(anatomy: Anatomy) -> str:
    """How the pipeline's own guidance and the degraded branches' rows run."""
    own = OWN[OWN_GUIDANCE[anatomy.model_class].rows] if anatomy.model_class in OWN_GUIDANCE else "unknown"
    return f"own: {own}; degraded rows {'fork' if anatomy.forks else 'are whole'}"


def tested(anatomy: Anatomy) -> str:
    """The models that the tests run."""
    ran = {"tiny random pipelines": anatomy.family in FAMILIES, "the demo model": anatomy.family == "sd3"}
    return ", ".join(name for name, did in ran.items() if did) or "nothing"


def markdown(rows: list[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
