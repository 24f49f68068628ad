"""What the rows of a run are samples of: prompts, and noise that is each row's own or shared by prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.base.prompts import same_text
from interp.store.schema import Array

LEVEL = 0.95
FEWEST = 4  # prompt texts, or seeds that prompts share, below which there is no interval
FEW_GROUPS = 8  # of texts, for functions that are rough
CELL_GROUPS = 64  # of rows, each left out once
SAID = {"plain": "", "share": ", logit scale", "ratio": ", log scale", "correlation": ", Fisher's z"}


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The prompt text and the noise of every row."""

    texts: Sequence[Any]
    seeds: Sequence[int] | None = None
    """`None`: every row has noise of its own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(str(same_text(text)) for text in self.texts))
        object.__setattr__(self, "seeds", None if self.seeds is None else tuple(int(seed) for seed in self.seeds))

    @classmethod
    def single(cls, count: int) -> Sampled:
        """Independent rows."""
        return cls(tuple(range(count)))

    def part(self, rows: Sequence[int] | Array) -> Sampled:
        """Some of the rows."""
        return Sampled([self.texts[row] for row in rows], None if self.seeds is None else [self.seeds[row] for row in rows])

    @property
    def prompts(self) -> int:
        """The number of different texts."""
        return len(set(self.texts))

    @property
    def shared(self) -> int:
        """The number of seeds, if different texts share one; else 0."""
        if self.seeds is None or self.prompts < 2:
            return 0
        return len(set(self.seeds)) if len(set(zip(self.seeds, self.texts, strict=True))) > len(set(self.seeds)) else 0

    @property
    def enough(self) -> bool:
        """Whether there is an interval."""
        return self.prompts >= FEWEST and (self.shared == 0 or self.shared >= FEWEST)

    def groups(self, rough: bool = False) -> list[list[Array]]:
        """Rows by text, or by group of texts; where texts share seeds, also by seed, and in at most `CELL_GROUPS` groups."""
        found = [few(alike(self.texts)) if rough else alike(self.texts)]
        if self.shared and self.seeds is not None:
            order = np.random.default_rng(0).permutation(len(self.texts))
            found += [alike(self.seeds), np.array_split(order, min(len(order), CELL_GROUPS))]
        return found

    def said(self, scale: str = "plain") -> str:
        """The description of an interval in a result."""
        if self.prompts < 2:
            return "none: one prompt text says nothing of others"
        if self.prompts < FEWEST:
            return f"none: it needs {FEWEST} prompt texts"
        if self.shared and not self.enough:
            return f"none: all prompts share {self.shared} seed{'s' * (self.shared > 1)}; use --seeds own, or {FEWEST} repeats"
        over = f"{self.prompts} prompt texts" + (f" x {self.shared} seeds, two-way" if self.shared else "")
        return f"{LEVEL:.0%}, Hall's t over {over}{SAID[scale]}"


def few(groups: list[Array]) -> list[Array]:
    """`FEW_GROUPS` groups of groups of rows, at random, if there are more."""
    if len(groups) <= FEW_GROUPS:
        return groups
    mixed = np.random.default_rng(0).permutation(len(groups))
    return [np.concatenate([groups[n] for n in part]) for part in np.array_split(mixed, FEW_GROUPS)]


def alike(labels: Sequence[Any] | Array) -> list[Array]:
    """The places of every different label, such as a prompt's text, in order of their first."""
    places: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    return [np.array(group) for group in places.values()]
