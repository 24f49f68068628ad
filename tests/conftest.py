from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the suite may reach for the network

import pytest

import interp
from interp.models import tiny

PROMPTS = ["a red cat", "two dog and a blue square", "the green circle", "a photo of a dog"]
DEMO_PROMPTS = ["a red circle", "a blue star on a white background", "a green ring", "a cross"]
CLASSES = ["cat", "7", "dog", "999"]  # what a class-conditional model calls prompts
CORE = ["tiny_model", "dual_model", "flux_model", "schnell_model", "dit_model", "demo_model"]
FAMILIES = ["flux2_model", "qwenimage_model", "sana_model", "pixart_model", "sigma_model", "wan_model", "auraflow_model"]
LATER = [
    "chroma_model",
    "hunyuandit_model",
    "ltx_model",
    "cogvideox_model",
    "hunyuanimage_model",
    "mochi_model",
    "hunyuanvideo_model",
    "hidream_model",
    "stableaudio_model",
]
KINDS = ["dual_model", "flux_model", "dit_model", "flux2_model", "qwenimage_model", "sana_model"]
"""One of every kind of block, for what does not differ from family to family."""
MODELS = [*CORE, *FAMILIES]
ALL = [*MODELS, *LATER]
GATELESS = ["hunyuandit_model", "stableaudio_model"]
ONE_STREAM = [
    "dit_model",
    "sana_model",
    "pixart_model",
    "sigma_model",
    "wan_model",
    "hunyuandit_model",
    "ltx_model",
    "mochi_model",
    "stableaudio_model",
]
TWO_STREAMS = [name for name in ALL if name not in ONE_STREAM]


def prompts_for(name: str) -> list[str]:
    return {"dit_model": CLASSES, "demo_model": DEMO_PROMPTS}.get(name, PROMPTS)


def trace_command(model: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    """`interp trace` for a process of its own."""
    words = [sys.executable, "-m", "interp", "trace", "--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    return [*words, *more]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build("sd3", tmp_path_factory.mktemp("models") / "tiny-sd3")


@pytest.fixture(scope="session")
def dual_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SD3.5-Medium's shape: the first blocks have a second, image-only attention."""
    return tiny.build("sd3", tmp_path_factory.mktemp("models") / "tiny-sd3-dual", dual_attention=(0, 1))


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> interp.Model:
    return interp.load(tiny_folder)


@pytest.fixture(scope="session")
def dual_model(dual_folder: Path) -> interp.Model:
    return interp.load(dual_folder)


@pytest.fixture(scope="session")
def flux_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    return interp.load(tiny.build("flux", tmp_path_factory.mktemp("models") / "tiny-flux"))


@pytest.fixture(scope="session")
def schnell_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Flux without embedded guidance: the shape of schnell and of the de-distilled variant."""
    return interp.load(tiny.build("flux", tmp_path_factory.mktemp("models") / "tiny-schnell", guidance_embeds=False))


@pytest.fixture(scope="session")
def dit_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    return interp.load(tiny.build("dit", tmp_path_factory.mktemp("models") / "tiny-dit"))


@pytest.fixture(scope="session")
def flux2_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Gates shared by all blocks of a kind; single blocks hold both streams in one state."""
    return interp.load(tiny.build("flux2", tmp_path_factory.mktemp("models") / "tiny-flux2"))


@pytest.fixture(scope="session")
def qwenimage_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Prompts that are encoded and padded, under a mask."""
    return interp.load(tiny.build("qwenimage", tmp_path_factory.mktemp("models") / "tiny-qwenimage"))


@pytest.fixture(scope="session")
def sana_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Gates from a table in the block, a convolution for an MLP, cross-attention without a gate."""
    return interp.load(tiny.build("sana", tmp_path_factory.mktemp("models") / "tiny-sana"))


@pytest.fixture(scope="session")
def pixart_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """The same, with conditioning that enters again outside of any module, and weights that are told the picture's size."""
    return interp.load(tiny.build("pixart", tmp_path_factory.mktemp("models") / "tiny-pixart"))


@pytest.fixture(scope="session")
def sigma_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """PixArt-Sigma: weights that are told the timestep alone."""
    return interp.load(tiny.build("pixart", tmp_path_factory.mktemp("models") / "tiny-sigma", sigma=True))


@pytest.fixture(scope="session")
def wan_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Videos: tokens have a frame."""
    return interp.load(tiny.build("wan", tmp_path_factory.mktemp("models") / "tiny-wan"))


@pytest.fixture(scope="session")
def auraflow_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """A gate inside the branch of another; register tokens before the text."""
    return interp.load(tiny.build("auraflow", tmp_path_factory.mktemp("models") / "tiny-auraflow"))


@pytest.fixture(scope="session")
def chroma_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Gates of all blocks from one network; a mask over text and image tokens."""
    return interp.load(tiny.build("chroma", tmp_path_factory.mktemp("models") / "tiny-chroma"))


@pytest.fixture(scope="session")
def hunyuandit_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """No gates; blocks with a long skip; predicts v, and draws noise at every step."""
    return interp.load(tiny.build("hunyuandit", tmp_path_factory.mktemp("models") / "tiny-hunyuandit"))


@pytest.fixture(scope="session")
def ltx_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Videos whose latents are tokens."""
    return interp.load(tiny.build("ltx", tmp_path_factory.mktemp("models") / "tiny-ltx"))


@pytest.fixture(scope="session")
def cogvideox_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Videos of two streams, the image's first; two projections of both; v from pure noise, where sigma is infinite."""
    return interp.load(tiny.build("cogvideox", tmp_path_factory.mktemp("models") / "tiny-cogvideox"))


@pytest.fixture(scope="session")
def hunyuanimage_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Two texts under masks, which the transformer puts in another order; its own guidance is a part of the pipeline."""
    return interp.load(tiny.build("hunyuanimage", tmp_path_factory.mktemp("models") / "tiny-hunyuanimage"))


@pytest.fixture(scope="session")
def mochi_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Videos; tanh gates of normalised branches, set by the text tokens too; a scheduler that runs backwards."""
    return interp.load(tiny.build("mochi", tmp_path_factory.mktemp("models") / "tiny-mochi"))


@pytest.fixture(scope="session")
def hunyuanvideo_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Videos; an embedded guidance that is given times 1000."""
    return interp.load(tiny.build("hunyuanvideo", tmp_path_factory.mktemp("models") / "tiny-hunyuanvideo"))


@pytest.fixture(scope="session")
def hidream_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Text tokens that every block is given anew; an argument whose rows are its second axis; squares of one size."""
    return interp.load(tiny.build("hidream", tmp_path_factory.mktemp("models") / "tiny-hidream"))


@pytest.fixture(scope="session")
def stableaudio_model(tmp_path_factory: pytest.TempPathFactory) -> interp.Model:
    """Sound: its picture is a spectrogram. No gates; a token before the stream's; a timestep for all rows."""
    return interp.load(tiny.build("stableaudio", tmp_path_factory.mktemp("models") / "tiny-stableaudio"))


@pytest.fixture(scope="session")
def demo_model() -> interp.Model:
    return interp.load("demo")


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
