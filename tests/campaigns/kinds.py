"""Plants of causes and of kinds of massive values, both ways, in tiny models of three families: is each judged as planted?

    python tests/campaigns/kinds.py --plants 10

alpha, branch, both     a channel made massive by its gate, by its branch, by both: "alpha governs" holds, fails, holds in part
carrier, bystander      channels through which alone the prompt enters, with a map over tokens; channels that the prompt does
                        not touch: "carries the prompt" holds, does not; patched, they recover the picture, or nothing
channel, tokens, both   all tokens large in a channel; two of them, 400 times; all, and two of them 1,000 times
steps                   massive at a window of four, or of two, of 20 steps, and at no other
last block              massive in the last of eight blocks alone: no consensus
own, padding            massive in a prompt's own text tokens, of 256; in its padding alone, which is left out

One line for each kind and family: how many of the plants were judged right. The suite runs a short form
(tests/test_known_answers.py).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import interp
from interp.base.errors import InterpWarning
from interp.findings import caused
from interp.findings.claims import FAILS, HOLDS, PARTLY, UNKNOWN
from interp.interventions import Add
from interp.models import tiny
from interp.models.quiet import quiet
from interp.questions.of_channels import MASSIVE
from interp.testing import plant

FAMILIES = ("sd3", "flux", "dit")
PADDED = ("sd3", "flux", "chroma")
BLOCKS, STEPS = 8, 20
TEXT_LENGTH = 256
WIDE: dict[str, Any] = {"heads": 4}  # 64 channels
PAIRS = 12


def gate_of(family: str) -> str:
    """A gate that every block of the family's first ones has."""
    return "mlp" if family == "sd3" else "attn"


def governed(by: str, family: str, seed: int, folder: Path) -> bool:
    """Whether "alpha governs" is judged as planted."""
    planted = plant(family, channels=(5, 9), block=1, gate=gate_of(family), by=by, strength=40.0, seed=seed, **WIDE)
    interp.govern(
        planted.model, planted.prompts(12), out=folder / "g", channels=[5, 9], blocks=[1], steps=3, batch_size=12
    ).run()
    found = interp.open_experiment(folder / "g.zarr").result("govern")
    evidence: Any = SimpleNamespace(dataset=lambda name: found, channels=[5, 9])
    return caused.alpha_governs(evidence).said == {"alpha": HOLDS, "branch": FAILS, "both": PARTLY}[by]


def carried(carrier: bool, family: str, seed: int, folder: Path) -> bool:
    """Whether "carries the prompt" is judged as planted, and a patch of block 1 recovers all or nothing."""
    channels = sorted(np.random.default_rng([seed, 3]).choice(64, 6, replace=False).tolist())
    share, pattern = (0.0, 1.0) if carrier else (1.0, 0.0)
    given: dict[str, Any] = {"block": 1, "gate": gate_of(family), "strength": 20.0, "spread": 0.5, "seed": seed, **WIDE}
    planted = plant(family, channels=channels, carrier=carrier, pattern=pattern, timestep_share=share, **given)
    texts, run = planted.prompts(2 * PAIRS), {"channels": channels, "steps": 3, "batch_size": 8}
    pairs = texts[:PAIRS], texts[PAIRS:]
    moved = interp.transport(planted.model, *pairs, out=folder / "t.zarr", strengths=[1.0], **run).run()
    evidence: Any = SimpleNamespace(experiment=lambda name: moved, channels=channels)
    what = ["massive", "control", "zero", "shuffled", "energy", "third"]
    patched = interp.patch(planted.model, *pairs, out=folder / "p.zarr", what=what, windows=1, blocks=[1], **run).run()
    recovered = patched.result("patching_picture")["recovered"].isel(block=0, column=0)
    own, others = float(recovered.sel(what="massive")), recovered.drop_sel(what="massive")
    said = caused.carries_the_prompt(evidence).said
    return said == HOLDS and bool(own > 0.9 > others.max() + 0.1) if carrier else said in (FAILS, UNKNOWN) and own < 0.1


def untrained(family: str, seed: int) -> Any:
    """A tiny random model of eight blocks, and its defaults; pictures of 64 tokens."""
    blocks = {"blocks": 4, "single_blocks": 4} if family in ("flux", "chroma") else {"blocks": BLOCKS}
    with quiet():
        pipe, defaults = tiny.make(family, seed=seed, **blocks, **WIDE)
    pipe.set_progress_bar_config(disable=True)
    return interp.wrap(pipe), defaults


def kinds_of(family: str, seed: int, folder: Path, plant_at: Callable[[Any, Any], Sequence[Add]], **settings: Any) -> Any:
    """Rows of the table of massive channels of a random model with edits; `plant_at` is given an unedited run and the model."""
    model, defaults = untrained(family, seed)
    prompts = (
        [str(n) for n in range(4)] if family == "dit" else ["a red cat", "the blue dog", "two green square", "a red circle"]
    )
    size = {} if family == "dit" else {"height": 64, "width": 64}
    terms: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "settings": {**defaults.settings, **settings}, **size}
    plain = interp.trace(model, prompts, out=folder / "plain.zarr", **{**terms, "steps": 2})
    edits = plant_at(plain, model)
    run = interp.trace(model, prompts, out=folder / "edited.zarr", interventions=edits, **terms)
    return MASSIVE.tables["massive"][1].rows(interp.massive.find(run, resamples=0))


def level(run: Any, stream: str, block: int) -> float:
    """The median channel's mean |x|."""
    size = run.stats["mean_abs"].sel(stream=stream, block=block).mean(("prompt", "step")).load()
    return float(size.median("channel"))


def told(kind: str, family: str, seed: int, folder: Path) -> bool:
    """Whether the table names a planted channel of the picture for what it is, at its steps, and no other channel."""
    draw = np.random.default_rng([seed, 7])
    channel, block = int(draw.integers(64)), int(draw.integers(4)) if kind != "last block" else BLOCKS - 1
    length = {"four steps": 4, "two steps": 2}.get(kind, STEPS)
    first = int(draw.integers(STEPS - length + 1))
    ratio = float(np.exp(draw.uniform(np.log(20), np.log(60))))

    def plant_at(run: Any, model: Any) -> list[Add]:
        tokens = sorted(draw.choice(64, 2, replace=False).tolist())
        where: dict[str, Any] = {"channels": [channel], "blocks": [block], "steps": list(range(first, first + length))}
        size = level(run, "image", block)
        edits = [] if kind == "tokens" else [Add(amount=ratio * size, **where)]
        return [
            *edits,
            *(
                [Add(amount=(1000 if kind == "both" else 400) * size, tokens=tokens, **where)]
                if kind in ("tokens", "both")
                else []
            ),
        ]

    found = {(row["stream"], row["channel"]): row for row in kinds_of(family, seed, folder, plant_at)}
    if kind == "last block":
        return not found
    row = found.get(("image", channel))
    if row is None or len(found) > 1:
        return False
    if length < STEPS:
        return bool(row["at steps"] == f"{first}-{first + length - 1}")
    return bool(row["massive"] == kind)


def padded(own: bool, family: str, seed: int, folder: Path) -> bool:
    """Whether a channel of the text stream is found if and only if it is massive in the prompts' own tokens."""
    draw = np.random.default_rng([seed, 11])
    channel, ratio = int(draw.integers(64)), float(draw.uniform(7, 25))
    counted: list[int] = []

    def plant_at(run: Any, model: Any) -> list[Add]:
        spec = model.loaded.spec
        masks = spec.own_tokens(model.pipe, list(run.prompts), {**model.settings(), "max_sequence_length": TEXT_LENGTH})
        kept = masks.all(axis=0) if own else ~masks.any(axis=0)
        counted.extend([int(kept.sum()), masks.shape[1]])
        tokens = np.flatnonzero(kept).tolist()
        return [Add(amount=ratio * level(run, "text", 0), channels=[channel], blocks=[0], stream="text", tokens=tokens)]

    rows = kinds_of(family, seed, folder, plant_at, max_sequence_length=TEXT_LENGTH)
    listed = {(row["stream"], row["channel"]) for row in rows}
    return listed == ({("text", channel)} if own else set())


CASES: dict[str, tuple[tuple[str, ...], Callable[[str, int, Path], bool]]] = {
    **{f"{by} governs": (FAMILIES, lambda *given, by=by: governed(by, *given)) for by in ("alpha", "branch", "both")},
    "carrier": (FAMILIES, lambda *given: carried(True, *given)),
    "bystander": (FAMILIES, lambda *given: carried(False, *given)),
    **{
        kind: (FAMILIES, lambda *given, kind=kind: told(kind, *given))
        for kind in ("channel", "tokens", "both", "four steps", "two steps", "last block")
    },
    "own text tokens": (PADDED, lambda *given: padded(True, *given)),
    "padding alone": (PADDED, lambda *given: padded(False, *given)),
}


def right(name: str, family: str, seed: int) -> bool:
    """Whether one plant is judged as planted."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)
        return CASES[name][1](family, seed, Path(folder))


def main() -> None:
    """Print the table of docs/findings.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", default=list(CASES))
    arguments.add_argument("--plants", type=int, default=10)
    arguments.add_argument("--first", type=int, default=0)
    given = arguments.parse_args()
    print("| plant | right |\n|---|---|")
    for name in given.names:
        parts = []
        for family in CASES[name][0]:
            seeds = range(given.first, given.first + given.plants)
            wrong = [seed for seed in seeds if not right(name, family, seed)]
            parts.append(f"{family} {len(seeds) - len(wrong)} of {len(seeds)}" + (f" (not {wrong})" if wrong else ""))
        print(f"| {name} | {', '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()
