"""The published models' shapes from their configs alone, and the README's table made from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from bad_inputs import run

from interp.models import families, support, tiny
from interp.models.catalog import CATALOG
from interp.models.published import CONFIGS
from interp.models.skeleton import Skeleton, build

ROOT = Path(__file__).parent.parent
PUBLISHED = {  # blocks by kind, channels, gates, parameters (milliards)
    "sd3": ({"joint": 24}, 1536, ("attn", "mlp"), (2.0, 2.1)),
    "sd3.5": ({"joint": 38}, 2432, ("attn", "mlp"), (8.0, 8.2)),
    "sd3.5-medium": ({"joint-dual": 13, "joint": 11}, 1536, ("attn", "attn2", "mlp"), (2.2, 2.6)),
    "flux": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
    "flux-schnell": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
    "flux-dedistilled": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (11.8, 12.0)),
    "dit-xl": ({"class-conditional": 28}, 1152, ("attn", "mlp"), (0.6, 0.8)),
    "flux2-klein": ({"double": 5, "single": 20}, 3072, ("attn", "mlp"), (3.7, 4.1)),
    "flux2-klein-9b": ({"double": 8, "single": 24}, 4096, ("attn", "mlp"), (8.8, 9.3)),
    "qwen-image": ({"joint": 60}, 3072, ("attn", "mlp"), (20.0, 20.8)),
    "sana1.5": ({"cross": 20}, 2240, ("attn", "mlp"), (1.55, 1.65)),
    "sana1.5-4.8b": ({"cross": 60}, 2240, ("attn", "mlp"), (4.6, 4.9)),
    "pixart": ({"cross": 28}, 1152, ("attn", "mlp"), (0.6, 0.62)),
    "pixart-sigma": ({"cross": 28}, 1152, ("attn", "mlp"), (0.6, 0.62)),
    "auraflow": ({"joint": 4, "single": 32}, 3072, ("attn", "mlp"), (6.6, 7.0)),
    "wan2.1": ({"cross": 30}, 1536, ("attn", "mlp"), (1.3, 1.45)),
    "chroma": ({"double": 19, "single": 38}, 3072, ("attn", "mlp"), (8.8, 9.0)),
    "hunyuandit": ({"cross": 21, "skip": 19}, 1408, (), (1.49, 1.51)),
    "ltx-video": ({"cross": 28}, 2048, ("attn", "mlp"), (1.9, 1.95)),
    "cogvideox-2b": ({"joint": 30}, 1920, ("attn", "mlp"), (1.65, 1.75)),
    "cogvideox-5b": ({"joint": 42}, 3072, ("attn", "mlp"), (5.5, 5.65)),
    "hunyuanimage2.1": ({"double": 20, "single": 40}, 3584, ("attn", "mlp"), (17.2, 17.6)),
    "hunyuanimage2.1-distilled": ({"double": 20, "single": 40}, 3584, ("attn", "mlp"), (17.2, 17.6)),
    "mochi": ({"joint": 48}, 3072, ("attn", "mlp"), (10.0, 10.1)),
    "hunyuanvideo": ({"double": 20, "single": 40}, 3072, ("attn", "mlp"), (12.8, 12.9)),
    "hidream": ({"double": 16, "single": 32}, 2560, ("attn", "mlp"), (17.0, 17.2)),
    "stable-audio": ({"cross": 24}, 1536, (), (1.05, 1.06)),
    "wan2.1-14b": ({"cross": 40}, 5120, ("attn", "mlp"), (14.0, 14.4)),
}
EMITTED = {  # outside of the blocks, for those that are given their gates
    "temb_mod_img": "double_stream_modulation_img.linear",
    "temb_mod_txt": "double_stream_modulation_txt.linear",
    "temb_mod": "single_stream_modulation.linear",
    "temb": "distilled_guidance_layer.out_proj",  # a chunk at a time
}


@pytest.fixture(scope="module")
def published() -> dict[str, Skeleton]:
    """Every published model on the meta device, built once."""
    return {name: build(name, config, "published") for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def table(published: dict[str, Skeleton]) -> list[dict[str, str]]:
    """The table of supported families, from the models built already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "build", lambda name, config, origin: published[name])
        return support.support()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_shapes(name: str, published: dict[str, Skeleton]) -> None:
    kinds, channels, gates, size = PUBLISHED[name]
    bones = published[name]
    found: dict[str, int] = {}
    for block in bones.anatomy.blocks:
        found[block.kind] = found.get(block.kind, 0) + 1
    assert found == kinds
    assert (bones.anatomy.channels, bones.anatomy.gates) == (channels, gates)
    assert size[0] < bones.parameters / 1e9 < size[1]
    assert all(parameter.is_meta for parameter in bones.transformer.parameters())
    for index, block in enumerate(bones.anatomy.blocks):
        for modulation in block.modulations:  # each projection is as wide as its chunks say
            wide = len(modulation.chunks) * channels
            if modulation.table is not None:
                assert getattr(bones.transformer.get_submodule(block.path), modulation.table).numel() == wide
                continue
            place = f"{block.path}.{modulation.module}" if modulation.module else EMITTED[str(modulation.argument)]
            linear = bones.transformer.get_submodule(place)
            linear = linear[-1] if isinstance(linear, torch.nn.Sequential) else linear
            chunks = len(modulation.chunks) if modulation.argument == "temb" else 1
            assert linear.out_features * chunks == wide, (index, modulation.name)
        for tap in block.taps:
            bones.transformer.get_submodule(f"{block.path}.{tap.module}")


def test_every_catalog_model_has_a_shape() -> None:
    assert set(PUBLISHED) == set(CONFIGS) == {name for name, entry in CATALOG.items() if entry.folder is None}


def test_the_readmes_table_is_current(table: list[dict[str, str]]) -> None:
    block = re.search(r"<!-- models -->(.*)<!-- /models -->", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    written = block[1][block[1].index("| models") :]
    assert written == support.markdown(table), "write the README's table with `interp models --markdown`"


def test_every_family_is_in_the_table_and_has_a_tiny_model(table: list[dict[str, str]]) -> None:
    named = {name.strip() for row in table for name in row["pipeline"].split(",")}
    assert named == set(families.PIPELINES)
    assert set(tiny.BUILDERS) == set(families.OWN_GUIDANCE)
    assert all("tiny random" in row["tested on"] for row in table)


def test_the_command_prints_it(table: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "support", lambda: table)
    code, out, err = run(["models", "--support", "--json"])
    assert (code, err) == (0, "")
    assert json.loads(out) == table
