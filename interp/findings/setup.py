"""A campaign's settings, written next to its stores, so that a different campaign cannot resume in the same folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import massive
from interp.base.errors import InputError, PlanError
from interp.base.options import Sampling
from interp.base.site_recorder import at_least
from interp.evaluation.prompt_sets import PromptSet
from interp.experiments.kinds.dose import KINDS, nested_blocks
from interp.guidance.presets import PRESETS
from interp.models.identity import fingerprint
from interp.store.create import storage_errors
from interp.store.schema import Array
from interp.store.traced_run import Run
from interp.tracing.model import Model

FILE = "campaign.json"
SHARED = ("height", "width", "settings")  # by every draw
CROSSED = Sampling(repeats=2)
FEWEST = 4  # prompts: two pairs


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model, its prompts and the amount to draw."""

    model: Model
    prompts: PromptSet
    folder: Path
    drawn: Sampling = CROSSED
    """How pictures are drawn; repeats are noises per prompt (govern, dose, gates, lens: one)."""
    batch_size: int = 8
    budget: int = 600
    """Number of pictures of the dose experiment."""
    masks: Array | None = None
    """The subject's pixels in each prompt's picture, (prompt, y, x) boolean; without them segmentation cannot be judged."""
    reference: Array | None = None
    """Real pictures of the prompts, (picture, y, x, rgb): the reference of detail; by default the unedited pictures."""
    others: tuple[str, ...] = ()
    """Earlier checkpoints, or other sizes, of the same model."""

    def __post_init__(self) -> None:
        at_least("batch_size", self.batch_size, 1)
        at_least("repeats", self.drawn.repeats, 1)
        self.drawn.without("guidance", "negative_prompt", "interventions", why="findings have their own guidances and edits")
        if self.drawn.steps is not None and self.drawn.steps < 2:
            raise InputError(f"steps must be 2 or more: findings measure a trend over timesteps; got {self.drawn.steps}")
        if len(set(self.prompts.texts)) < FEWEST:
            raise InputError(f"prompts must be {FEWEST} different ones or more: one half is paired with the other")
        doses = len(self.counts) * len(nested_blocks(len(self.model.anatomy.blocks)))
        needed = len(self.texts) + 2 * doses * len(KINDS)
        if self.budget < needed:
            raise InputError(f"budget must be at least {needed} pictures for this model's doses; got {self.budget}")
        if self.masks is not None and len(self.masks) != len(self.prompts.texts):
            raise InputError(f"masks must be one for each of {len(self.prompts.texts)} prompts; got {len(self.masks)}")

    @property
    def texts(self) -> list[str]:
        """The prompts, each once."""
        return list(dict.fromkeys(self.prompts.texts))

    @property
    def halves(self) -> tuple[list[str], list[str]]:
        """Pairs of prompts: the first half, and as many of the others."""
        half = len(self.texts) // 2
        return self.texts[:half], self.texts[half : 2 * half]

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments that every draw shares."""
        return {name: getattr(self.drawn, name) for name in ("steps", "seed", "seeds", *SHARED)}

    @property
    def block(self) -> int:
        """The one block that is disrupted: Detail Guidance's m where there is a preset, else a quarter into the model."""
        preset, blocks = PRESETS.get(self.model.name), len(self.model.anatomy.blocks)
        return preset.block if preset is not None and preset.block < blocks - 1 else blocks // 4

    @property
    def counts(self) -> list[int]:
        """Numbers of channels of the doses: 1, 4, 16, ... up to a quarter."""
        most = max(self.model.anatomy.channels // 4, 1)
        return [4**power for power in range(8) if 4**power <= most]

    def to_json(self) -> dict[str, Any]:
        """The settings that identify a campaign."""
        return {
            "model": self.model.name,
            "weights": fingerprint(self.model.pipe),
            **self.prompts.facts(),
            **{name: getattr(self.drawn, name) for name in ("repeats", "steps", "seed", "seeds", *SHARED)},
            "budget": self.budget,
            "masks": _digest(self.masks),
            "reference": _digest(self.reference),
            "others": list(self.others),
        }

    def claim(self) -> None:
        """Claim the folder for this campaign; raise PlanError naming the first field in which another campaign differs."""
        path, own = self.folder / FILE, self.to_json()
        if path.exists():
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise PlanError(f"{path} is damaged, so the campaign's settings are unknown; give another --out") from None
            for field, value in own.items():
                if theirs.get(field) != value:
                    raise PlanError(
                        f"{self.folder} holds a campaign with another {field} ({theirs.get(field)!r}, not {value!r}); "
                        "give another --out, or the same arguments to resume"
                    )
            return
        with storage_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(own, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _digest(values: Array | None) -> str | None:
    return None if values is None else hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def channels_of(run: Run) -> tuple[list[int], bool]:
    """The image stream's massive channels, and whether there are any; if not, the largest channel replaces them."""
    found = massive.find(run, resamples=0)
    agreed = found["consensus"].isel(stream=0).to_numpy()
    if agreed.any():
        return [int(channel) for channel in found["channel"].to_numpy()[agreed]], True
    size = found["size"].isel(stream=0).mean("block")
    return [int(found["channel"].to_numpy()[int(np.argmax(size.to_numpy()))])], False
