"""`interp inspect`: shapes from the config alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bad_inputs import run
from conftest import ALL

import interp
from interp.models.families import CONFIGS
from interp.models.skeleton import skeleton

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


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_shapes(name: str) -> None:
    kinds, channels, gates, size = PUBLISHED[name]
    bones = skeleton(name, local_files_only=True)
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
    from interp.models.catalog import CATALOG

    assert set(PUBLISHED) == set(CONFIGS) == {name for name, entry in CATALOG.items() if entry.folder is None}


@pytest.mark.parametrize("name", ALL)
def test_a_skeleton_has_the_anatomy_of_the_loaded_model(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    bones = skeleton(model.name)
    assert [str(site) for site in bones.anatomy.sites()] == [str(site) for site in model.anatomy.sites()]
    assert bones.parameters == sum(parameter.numel() for parameter in model.pipe.transformer.parameters())


def test_the_command_prints_blocks_and_sites() -> None:
    code, out, err = run(["inspect", "--model", "flux", "--local-files-only"])
    assert code == 0, err
    for words in ("57, 3072 channels", "0-18", "19-56", "published config", "alpha.attn|mlp", "FluxTransformer2DModel"):
        assert words in out
    code, out, _ = run(["inspect", "--model", "sd3.5-medium", "--local-files-only", "--json"])
    values = json.loads(out)
    assert code == 0
    assert "block.12/image/alpha.attn2" in values["blocks"][12]["sites"]
    assert "block.13/image/alpha.attn2" not in values["blocks"][13]["sites"]


def test_what_has_no_config_is_said(tmp_path: Path) -> None:
    for name, message in (
        ("nothing", "no known name and no folder"),
        ("nobody/nothing", "not on this machine and cannot be fetched"),
        (str(tmp_path), "has no transformer/config.json"),
    ):
        with pytest.raises(interp.ModelError, match=message):
            skeleton(name, local_files_only=True)
