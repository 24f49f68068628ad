from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the suite may reach for the network

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: kernels run on the CPU

import interp
from interp.testing.family import PROMPTS as TEXTS
from interp.testing.family import Family, built, shared_folder

pytest.register_assert_rewrite("interp.testing.anatomy_laws", "interp.testing.edit_laws", "interp.testing.trace_laws")
sys.path.insert(0, str(Path(__file__).parent / "families"))


def _families() -> dict[str, Family]:
    """Every family of tests/families/, by the name of its test model."""
    files = sorted((Path(__file__).parent / "families").glob("test_*.py"))
    modules = [importlib.import_module(file.stem) for file in files]
    classes = [value for module in modules for name, value in vars(module).items() if name.startswith("Test")]
    return {kind.name: kind() for kind in classes if kind.name}


FAMILIES = _families()
PROMPTS = list(TEXTS)
DEMO_PROMPTS = list(FAMILIES["demo"].prompts)
CLASSES = list(FAMILIES["dit"].prompts)
KINDS = ["dual_model", "flux_model", "dit_model", "flux2_model", "qwenimage_model", "sana_model"]
"""One model of each mechanism, for laws that do not depend on the family."""


def every_family(quick: Collection[str] = KINDS, without: Collection[str] = ()) -> list[Any]:
    """Every family's model by fixture name; those not named in `quick` are of the whole cross, `make test-all`. Pipelines that
    leave out steps have the laws alone: the crosses count steps.
    """
    names = [f"{name}_model" for name, kind in FAMILIES.items() if f"{name}_model" not in without and not kind.leaves_out]
    return [pytest.param(name, marks=() if name in quick else pytest.mark.full, id=name) for name in names]


def full(*cases: Any) -> list[Any]:
    """Parameters that only the whole cross runs; a tuple holds one value for each name."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.full) for case in cases]


def kinds(*quick: str) -> list[Any]:
    """One model of each mechanism; those not in `quick` are of the whole cross."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.full, id=name) for name in KINDS]


def family_of(model: str) -> Family:
    """What the family's test file states, by fixture name."""
    return FAMILIES["sd3" if model == "tiny_model" else model.removesuffix("_model")]


def prompts_for(model: str) -> list[str]:
    """Prompts that the model of a fixture takes."""
    return list(family_of(model).prompts)


def trace_command(model: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    """`interp trace` for a process of its own."""
    words = [sys.executable, "-m", "interp", "trace", "--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    return [*words, *more]


def _model_fixture(name: str) -> Any:
    @pytest.fixture(scope="session", name=f"{name}_model")
    def model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
        return built(tmp_path_factory, name, FAMILIES[name].load)

    return model


globals().update({f"{name}_model": _model_fixture(name) for name in FAMILIES})


@pytest.fixture(scope="session")
def tiny_model(sd3_model: interp.Model) -> interp.Model:
    """The model for what needs any model: Stable Diffusion 3's shape."""
    return sd3_model


@pytest.fixture(scope="session")
def dual_folder(dual_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Stable Diffusion 3.5 Medium's shape."""
    return shared_folder(tmp_path_factory) / "dual"


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; tests that change it copy it."""
    return shared_folder(tmp_path_factory) / "sd3"


@pytest.fixture(scope="session")
def tiny_run(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A finished run that keeps everything; tests that change a store copy it."""
    return interp.trace(
        tiny_model,
        PROMPTS,
        out=tmp_path_factory.mktemp("runs") / "tiny.zarr",
        record=interp.Record(hidden=True, modulation=True, latents="all"),
        repeats=2,
    )


@pytest.fixture(scope="session")
def dashboard_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every kind of store, whole and broken."""
    from dashboard_stores import build

    return build(tmp_path_factory.mktemp("dashboard") / "stores")


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random weights of metrics: clip/ and blip/."""
    import weights_made

    place = tmp_path_factory.mktemp("weights")
    weights_made.clip_folder(place / "clip")
    weights_made.blip_folder(place / "blip")
    return place


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Random weights in the layout of FID's Inception, and the tensors in them."""
    import weights_made

    return weights_made.inception_file(tmp_path_factory.mktemp("inception"))


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights of metrics and without a network: its hub cache."""
    import torch
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"
