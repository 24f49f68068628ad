"""The facts and the model that a family's test file provides: see `interp.testing.laws`. Needs pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from interp.models import tiny
from interp.models.catalog import CATALOG
from interp.models.families.outputs import as_bytes, drawn, still
from interp.models.quiet import quiet
from interp.testing.reference import Array
from interp.tracing.model import Model, load

PROMPTS = ("a red cat", "two dog and a blue square", "the green circle", "a photo of a dog")


class Family:
    """What a family's test file provides: a tiny model, plain hooks, how to call its pipeline, its exceptions."""

    name: str = ""
    """Name of its test model."""
    kind: str = ""
    """The family of its tiny model: one of `interp.models.tiny.FAMILIES`."""
    sizes: Mapping[str, Any] = {}
    """Sizes of its tiny model that are not the family's usual ones."""
    prompts: Sequence[str] = PROMPTS
    """Where a row depends on the others of its call, the first two have as many tokens."""
    size: tuple[int, int] = (32, 64)
    """Height and width of traced pictures; not square where the pipeline takes a size."""
    call: Mapping[str, Any] = {}
    """Further arguments of its pipeline, such as those that stop it from changing the prompt or the size."""
    published: Mapping[str, tuple[Mapping[str, int], int, Sequence[str], tuple[float, float]]] = {}
    """The catalog's models of the family: blocks by kind, channels, gates, and the range of parameters in 1e9."""
    unread: Sequence[str] = ()
    """Sites with a value that nothing reads."""
    rowless: Sequence[str] = ()
    """Tensors among the blocks' arguments that are the same for every row, without a batch axis."""
    leading: int = 0
    """Number of tokens before the image's in a block's output that belong to no stream."""
    flips: float = 0.0
    """Share of latents that rounding may change by more than itself: of a router's tokens between two experts."""
    decodes: bool = True
    """Whether its latents decode to pictures; those of audio models do not."""
    leaves_out: int = 0
    """Steps that its pipeline leaves out of a run: the laws give so many more."""
    gates_follow_size: bool = False
    """Whether the gates depend on the picture's size: `interp.gates` then uses the size that the weights were trained for."""
    unconditional: bool = True
    """Whether a row can have no prompt, as classifier-free guidance needs."""
    own_guidance: bool = True
    """Whether the pipeline's own classifier-free guidance is u + s (c - u)."""
    guidable: bool = True
    """Whether `interp.guided` takes its pipeline with the pipeline's own guidance on."""

    def load(self, folder: Path) -> Model:
        """The tiny model; `folder` is an empty or finished folder shared by all test processes."""
        if not (folder / "model_index.json").exists():
            tiny.build(self.kind, folder, **self.sizes)
        return load(folder)

    def plain_pipeline(self, model: Model) -> Any:
        """The same pipeline loaded by diffusers alone, never wrapped."""
        entry = CATALOG.get(model.name)
        source = Path(entry.folder or "") if entry else Path(model.name)
        with quiet():  # a wrapped pipeline has no folder: build it again
            pipe = type(model.pipe).from_pretrained(source) if source.is_dir() else self.load(source).pipe
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Register plain hooks that keep every block's states and gates; `seen` is an `interp.testing.reference.Seen`."""
        raise NotImplementedError

    def no_prompt(self, pipe: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The transformer's arguments that the pipeline's own guidance passes in place of one row's prompt."""
        raise NotImplementedError

    def changed(self, output: Any, change: Callable[[Any], Any], tokens: int) -> Any:
        """A block's output, one state, with its `tokens` image tokens changed; `change` takes (batch, token, channel)."""
        return torch.cat([output[:, : self.leading], change(output[:, self.leading :])], dim=1)

    def arguments(self, pipe: Any, prompts: list[str], settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
        """Arguments of the plain pipeline for some prompts, with its own guidance at a scale; 1 turns it off."""
        return {"prompt": prompts, "guidance_scale": scale, **self.call, **settings}

    def draw(self, pipe: Any, prompts: Sequence[str], settings: Mapping[str, Any], scale: float, **more: Any) -> Any:
        """Call the plain pipeline."""
        with quiet():
            return pipe(**{**self.arguments(pipe, list(prompts), settings, scale), **more})

    def pictures(self, output: Any) -> Array:
        """The pictures of a call, uint8 (prompt, y, x, rgb); the middle frame of a video."""
        return as_bytes(np.stack([still(np.asarray(picture)) for picture in drawn(output)]))

    def given_size(self, model: Model) -> dict[str, Any]:
        """Height and width as arguments, where the pipeline takes them."""
        return dict(zip(("height", "width"), self.size, strict=True)) if model.loaded.spec.takes_size else {}


def generators(count: int, seed: int) -> list[torch.Generator]:
    """One generator per row, seeded as in a run."""
    return [torch.Generator().manual_seed(seed) for _ in range(count)]


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all processes of one pytest run."""
    base = factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "models"
    folder.mkdir(exist_ok=True)
    return folder


def built(factory: pytest.TempPathFactory, name: str, load: Callable[[Path], Model]) -> Model:
    """A model from the shared folder: the first process builds it, under a file lock."""
    folder = shared_folder(factory)
    with FileLock(folder / f"{name}.lock"):
        return load(folder / name)


class FamilyFixtures(Family):
    """The family's model, for the tests of one class."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> Model:
        """The tiny model, loaded once for the class."""
        return built(tmp_path_factory, cls.name, cls().load)
