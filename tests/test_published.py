"""The published models' shapes from their configs alone, and the README's table made from them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from bad_inputs import run
from conftest import FAMILIES

from interp.models import families, tiny
from interp.models import skeleton as known
from interp.models.catalog import CATALOG
from interp.models.families import CONFIGS
from interp.models.skeleton import Skeleton, build

ROOT = Path(__file__).parent.parent
PUBLISHED = {name: shape for family in FAMILIES.values() for name, shape in family.published.items()}
EMITTED = {  # outside of the blocks, for those that are given their gates
    "temb_mod_img": "double_stream_modulation_img.linear",
    "temb_mod_txt": "double_stream_modulation_txt.linear",
    "temb_mod": "single_stream_modulation.linear",
    "temb": "distilled_guidance_layer.out_proj",  # a chunk at a time
    "ErnieImageTransformer2DModel/temb": "adaLN_modulation",
    "modulation": "modulation",
}


@pytest.fixture(scope="module")
def published() -> dict[str, Skeleton]:
    """Every published model on the meta device, built once."""
    return {name: build(name, config, "published") for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def table(published: dict[str, Skeleton]) -> list[dict[str, str]]:
    """The table of supported families, from the models built already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "build", lambda name, config, origin: published[name])
        return known.support()


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
            wide = len(modulation.chunks) * bones.anatomy.stream(modulation.stream).width
            if modulation.table is not None:
                table = getattr(bones.transformer.get_submodule(block.path), modulation.table)
                assert table[modulation.first_row :].numel() == wide
                continue
            own, argument = f"{bones.anatomy.model_class}/{modulation.argument}", str(modulation.argument)
            emitted = EMITTED.get(own) or EMITTED.get(argument, "")
            place = f"{block.path}.{modulation.module}" if modulation.module else emitted
            linear = bones.transformer.get_submodule(place)
            linear = linear[-1] if isinstance(linear, torch.nn.Sequential) else linear
            chunks = len(modulation.chunks) if argument == "temb" and own not in EMITTED else 1
            assert linear.out_features * chunks == wide, (index, modulation.name)
        for tap in block.taps:
            bones.transformer.get_submodule(f"{block.path}.{tap.module}")


def test_every_catalog_model_has_a_shape() -> None:
    assert set(PUBLISHED) == set(CONFIGS) == {name for name, entry in CATALOG.items() if entry.folder is None}


def test_the_docs_page_is_filled(table: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook of mkdocs puts the table and the notes of every pipeline where the page has its mark."""
    monkeypatch.setattr(known, "support", lambda: table)
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((ROOT / "docs" / "models.md").read_text(encoding="utf-8"))
    for row in table:
        assert f"| {row['models']} | {row['pipeline']} |" in page
    for name in families.PIPELINES:
        assert f"| `{name}` | " in page, f"write notes on {name} in its family's YAML"


def test_every_family_is_in_the_table_and_has_a_tiny_model(table: list[dict[str, str]]) -> None:
    named = {name.strip() for row in table for name in row["pipeline"].split(",")}
    assert named == set(families.PIPELINES)
    assert set(tiny.FAMILIES) <= set(families.FAMILIES) == {family.kind for family in FAMILIES.values()}
    assert all("tiny random" in row["tested on"] for row in table)


def test_the_command_prints_it(table: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "support", lambda: table)
    code, out, err = run(["models", "--support", "--json"])
    assert (code, err) == (0, "")
    assert json.loads(out) == table
