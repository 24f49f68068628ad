"""What the test file of a model family states, and its model: see `interp.testing.laws`. It needs pytest."""

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
from interp.models.families.pipeline import as_bytes, drawn, still
from interp.models.quiet import quiet
from interp.testing.reference import Array
from interp.tracing.model import Model, load

PROMPTS = ("a red cat", "two dog and a blue square", "the green circle", "a photo of a dog")


class Family:
    """What a family's test file states: its tiny model, its plain hooks, how its pipeline is called, its exceptions."""

    name: str = ""
    """What its test model is called."""
    kind: str = ""
    """The family of its tiny model: one of `interp.models.tiny.FAMILIES`."""
    sizes: Mapping[str, Any] = {}
    """Sizes of its tiny model that are not the family's usual ones."""
    prompts: Sequence[str] = PROMPTS
    size: tuple[int, int] = (32, 64)
    """Height and width of traced pictures: not square, where the pipeline takes a size."""
    call: Mapping[str, Any] = {}
    """Further arguments of its pipeline: what would change the prompt or the size behind our back."""
    published: Mapping[str, tuple[Mapping[str, int], int, Sequence[str], tuple[float, float]]] = {}
    """The catalog's models of the family: blocks by kind, channels, gates, and between how many 1e9 parameters."""
    unread: Sequence[str] = ()
    """Sites whose value nothing reads."""
    leading: int = 0
    """Tokens before the image's in a block's output that belong to no stream."""
    decodes: bool = True
    """Whether its latents decode to pictures: those of sound do not."""
    gates_follow_size: bool = False
    """Whether the picture's size enters the gates: `interp.gates` then computes those of the size the weights were made for."""
    unconditional: bool = True
    """Whether a row can go without a prompt: classifier-free guidance needs one."""
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
        """The same pipeline loaded by diffusers alone: no tracer has touched it."""
        entry = CATALOG.get(model.name)
        source = Path(entry.folder or "") if entry else Path(model.name)
        with quiet():  # a wrapped pipeline has no folder: it is built again
            pipe = type(model.pipe).from_pretrained(source) if source.is_dir() else self.load(source).pipe
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def hooks(self, transformer: Any, seen: Any) -> None:
        """Register plain hooks that keep every block's states and gates: `seen` is a `interp.testing.reference.Seen`."""
        raise NotImplementedError

    def no_prompt(self, pipe: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The transformer's arguments that the pipeline's own guidance gives in place of a prompt, of one row."""
        raise NotImplementedError

    def arguments(self, pipe: Any, prompts: list[str], settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
        """Arguments of the plain pipeline for some prompts, its own guidance at a scale; 1 turns it off."""
        return {"prompt": prompts, "guidance_scale": scale, **self.call, **settings}

    def draw(self, pipe: Any, prompts: Sequence[str], settings: Mapping[str, Any], scale: float, **more: Any) -> Any:
        """Call the plain pipeline."""
        with quiet():
            return pipe(**{**self.arguments(pipe, list(prompts), settings, scale), **more})

    def pictures(self, output: Any) -> Array:
        """What a call drew, uint8 (prompt, y, x, rgb); of a video the middle frame."""
        return as_bytes(np.stack([still(np.asarray(picture)) for picture in drawn(output)]))

    def given_size(self, model: Model) -> dict[str, Any]:
        """Height and width as arguments, where the pipeline takes them."""
        return dict(zip(("height", "width"), self.size, strict=True)) if model.loaded.spec.takes_size else {}


def generators(count: int, seed: int) -> list[torch.Generator]:
    """One generator a row, as a run seeds its rows."""
    return [torch.Generator().manual_seed(seed) for _ in range(count)]


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one pytest run share."""
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
