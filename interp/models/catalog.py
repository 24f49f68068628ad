"""Names that `interp.load` and `--model` accept: hub id, pipeline class and sampling defaults. No torch here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.base.errors import ModelError

PACKAGED = Path(__file__).parent / "demo"
SIDECAR = "interp.json"  # in a pipeline folder: its defaults and vocabulary


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Defaults of a run; `None` leaves a value to the pipeline."""

    steps: int = 28
    height: int | None = None
    width: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: frozenset[str] = frozenset()
    """Words a small model was trained on; other words give a warning. Empty: any."""


@dataclasses.dataclass(frozen=True)
class MassiveClaim:
    """Channels claimed to be massive in a model's image stream, at the output of a block (0-based)."""

    block: int
    channels: tuple[int, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One alias of the catalog."""

    name: str
    source: str
    """Hub id, or a folder inside the package."""
    pipeline_class: str
    about: str
    defaults: Defaults = dataclasses.field(default_factory=Defaults)
    revision: str | None = None
    massive: MassiveClaim | None = None
    """The paper's claim, if there is one; `interp selfcheck` tests it."""

    @property
    def folder(self) -> Path | None:
        """The packaged folder, for a model that ships with this package."""
        return PACKAGED / self.source if self.source in ("weights", "early") else None


_DG = "Detail Guidance (arXiv 2510.11538), Table 4"
_SD3, _FLUX, _DIT = "StableDiffusion3Pipeline", "FluxPipeline", "DiTPipeline"
_KLEIN, _QWEN, _SANA, _WAN = "Flux2KleinPipeline", "QwenImagePipeline", "SanaPipeline", "WanPipeline"
_COG = "CogVideoXPipeline"
CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "demo",
            "weights",
            _SD3,
            "trained toy, ships with interp: 64x64 shapes, colours and textures",
            massive=MassiveClaim(4, (29,), "measured on these weights; not from a paper"),
        ),
        Entry("demo-early", "early", _SD3, "an early checkpoint of demo's training, ships with interp"),
        Entry(
            "sd3",
            "stabilityai/stable-diffusion-3-medium-diffusers",
            _SD3,
            "Stable Diffusion 3 Medium",
            massive=MassiveClaim(6, (810,), _DG),
        ),
        Entry(
            "sd3.5",
            "stabilityai/stable-diffusion-3.5-large",
            _SD3,
            "Stable Diffusion 3.5 Large",
            massive=MassiveClaim(20, (676,), _DG),
        ),
        Entry(
            "sd3.5-medium",
            "stabilityai/stable-diffusion-3.5-medium",
            _SD3,
            "Stable Diffusion 3.5 Medium, dual attention",
            Defaults(steps=40),
        ),
        Entry("flux", "black-forest-labs/FLUX.1-dev", _FLUX, "FLUX.1 dev, guidance-distilled", Defaults(steps=50)),
        Entry("flux-schnell", "black-forest-labs/FLUX.1-schnell", _FLUX, "FLUX.1 schnell", Defaults(steps=4)),
        Entry(
            "flux-dedistilled",
            "InstantX/flux-dev-de-distill-diffusers",
            _FLUX,
            "FLUX.1 dev without its guidance distillation",
            Defaults(steps=50),
            massive=MassiveClaim(22, (154, 1446), _DG),
        ),
        Entry("dit-xl", "facebook/DiT-XL-2-256", _DIT, "DiT-XL/2, ImageNet classes", Defaults(steps=50)),
        Entry("flux2-klein", "black-forest-labs/FLUX.2-klein-4B", _KLEIN, "FLUX.2 klein 4B, distilled", Defaults(steps=4)),
        Entry("flux2-klein-9b", "black-forest-labs/FLUX.2-klein-9B", _KLEIN, "FLUX.2 klein 9B, distilled", Defaults(steps=4)),
        Entry("qwen-image", "Qwen/Qwen-Image", _QWEN, "Qwen-Image", Defaults(steps=50)),
        Entry("sana1.5", "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers", _SANA, "SANA 1.5 1.6B", Defaults(steps=20)),
        Entry(
            "sana1.5-4.8b", "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers", _SANA, "SANA 1.5 4.8B", Defaults(steps=20)
        ),
        Entry(
            "pixart", "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArtAlphaPipeline", "PixArt-alpha XL/2, 1024", Defaults(steps=20)
        ),
        Entry(
            "pixart-sigma",
            "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            "PixArtSigmaPipeline",
            "PixArt-Sigma XL/2, 1024",
            Defaults(steps=20),
        ),
        Entry("wan2.1", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", _WAN, "Wan 2.1 1.3B, text to video", Defaults(steps=50)),
        Entry("auraflow", "fal/AuraFlow", "AuraFlowPipeline", "AuraFlow 0.1", Defaults(steps=50)),
        Entry("chroma", "lodestones/Chroma1-HD", "ChromaPipeline", "Chroma 1 HD", Defaults(steps=35)),
        Entry(
            "hunyuandit",
            "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
            "HunyuanDiTPipeline",
            "Hunyuan-DiT 1.2, no gates",
            Defaults(steps=50),
        ),
        Entry("ltx-video", "Lightricks/LTX-Video", "LTXPipeline", "LTX-Video 2B, text to video", Defaults(steps=50)),
        Entry("cogvideox-2b", "THUDM/CogVideoX-2b", _COG, "CogVideoX 2B, text to video", Defaults(steps=50)),
        Entry("cogvideox-5b", "THUDM/CogVideoX-5b", _COG, "CogVideoX 5B, text to video", Defaults(steps=50)),
        Entry(
            "hunyuanimage2.1",
            "hunyuanvideo-community/HunyuanImage-2.1-Diffusers",
            "HunyuanImagePipeline",
            "HunyuanImage 2.1, without its guider",
            Defaults(steps=50),
        ),
        Entry(
            "hunyuanimage2.1-distilled",
            "hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",
            "HunyuanImagePipeline",
            "HunyuanImage 2.1, distilled (MeanFlow)",
            Defaults(steps=8),
        ),
        Entry("mochi", "genmo/mochi-1-preview", "MochiPipeline", "Mochi 1 preview, text to video", Defaults(steps=64)),
        Entry(
            "hunyuanvideo",
            "hunyuanvideo-community/HunyuanVideo",
            "HunyuanVideoPipeline",
            "HunyuanVideo, text to video, guidance-distilled",
            Defaults(steps=50),
        ),
        Entry("hidream", "HiDream-ai/HiDream-I1-Full", "HiDreamImagePipeline", "HiDream-I1 Full", Defaults(steps=50)),
        Entry(
            "stable-audio",
            "stabilityai/stable-audio-open-1.0",
            "StableAudioPipeline",
            "Stable Audio Open 1.0, no gates",
            Defaults(steps=100),
        ),
        Entry("wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", _WAN, "Wan 2.1 14B, text to video", Defaults(steps=50)),
    )
}


def folder_defaults(folder: Path) -> Defaults | None:
    """Defaults from a pipeline folder's `interp.json`, if it has one."""
    path = folder / SIDECAR
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Defaults(**{**values, "settings": dict(values.get("settings", {})), "vocabulary": _words(values)})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} must hold the fields of interp's Defaults as JSON; {error} (fix or delete it)") from None


def _words(values: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(word) for word in values.get("vocabulary", ()))


def write_defaults(folder: Path, defaults: Defaults) -> None:
    """Write `interp.json` into a pipeline folder."""
    size = {} if defaults.height is None else {"height": defaults.height, "width": defaults.width}
    values = {
        "steps": defaults.steps,
        **size,
        "settings": dict(defaults.settings),
        "vocabulary": sorted(defaults.vocabulary),
    }
    (folder / SIDECAR).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def entry_of(name: str | Path) -> Entry | None:
    """The entry of a name; `None` for a path, also one such as `./demo`: it is a folder and no name."""
    return None if isinstance(name, Path) else CATALOG.get(name)
