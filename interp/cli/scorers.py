"""Prompts and scorers by name, for `interp evaluate` and `interp findings`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp.base.errors import InputError

if TYPE_CHECKING:
    from interp.evaluation.prompt_sets import PromptSet

CACHE = Path("cache") / "scores.sqlite"


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What scores the pictures."""

    scorer: Annotated[str, Doc("demo (the demo world's judge), plain, metrics with weights such as clip,hps, or auto.")] = (
        "auto"
    )
    weights: Annotated[Sequence[str] | None, Doc("A metric's weights: METRIC=FOLDER, FILE or hub id. [default: the hub]")] = (
        None
    )
    real: Annotated[Path | None, Doc("Folder of real pictures, for fid, precision and recall.")] = None


def of_demo(model: str, scorer: str = "auto") -> bool:
    """Whether a model draws the demo world: a demo model of the package, or any that `--scorer demo` is given for."""
    return model.startswith("demo") or scorer == "demo"


def prompts_of(given: str | None, model: str, scorer: str, count: int | None) -> PromptSet:
    """Prompts by name or file; by default the demo world's, for models that draw it."""
    from interp.evaluation import prompt_sets

    if given is None and not of_demo(model, scorer):
        raise InputError(f"prompts: give --prompts FILE for {model}; only models of the demo world have default prompts")
    return prompt_sets.read(given or prompt_sets.DEMO, count)


def masks_of(folder: Path | None, texts: Sequence[str]) -> Any:
    """True masks of prompts, (prompt, y, x) boolean: from a folder or, for the demo model, from its captions."""
    from interp.analysis.segmentation import read_masks
    from interp.evaluation.demo_scorer import subject_masks

    return subject_masks(texts) if folder is None else read_masks(folder, range(len(texts)))


def scorers_of(model: str, device: str, scoring: Scoring, prompts: Sequence[str] = ()) -> list[Any]:
    """The scorers of a name, which must be able to score the prompts; for `auto`, those that fit the model."""
    from interp.evaluation.demo_scorer import DemoScorer
    from interp.evaluation.scorer import Plain

    name = scoring.scorer
    if name == "auto":
        name = "demo" if of_demo(model) else "plain"
    if name in ("demo", "plain"):
        if scoring.weights or scoring.real is not None:
            raise InputError(f"weights and real are for metrics with weights; scorer {name} has none")
        found: Any = DemoScorer() if name == "demo" else Plain()
    else:
        found = _weighted(name, scoring, device)
    if prompts:
        found.check(prompts)
    return [found]


def _weighted(name: str, scoring: Scoring, device: str) -> Any:
    """The papers' metrics, named in a list separated by commas."""
    from interp.evaluation.weighted import SETS, SINGLES, Weighted
    from interp.experiments.arguments import pictures_of

    asked = [part.strip() for part in name.split(",") if part.strip()]
    unknown = [part for part in asked if part not in SINGLES | SETS]
    if unknown or not asked:
        known = ", ".join(SINGLES | SETS)
        raise InputError(f"scorer must be demo, plain, auto, or some of {known} separated by commas; got {name!r}")
    pairs = dict(given.partition("=")[::2] for given in scoring.weights or ())
    for metric, where in pairs.items():
        if not where:
            raise InputError(f"weights must be METRIC=FOLDER, FILE or hub id; got {metric!r}")
    return Weighted(asked, pairs, real=pictures_of(scoring.real, "real"), device=device, cache=CACHE)
