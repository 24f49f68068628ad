"""`interp inspect`: shapes from the config alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bad_inputs import run
from conftest import every_family
from messages import refused

import interp
from interp.models.skeleton import skeleton


@pytest.mark.parametrize("name", every_family())
def test_a_skeleton_has_the_anatomy_of_the_loaded_model(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    bones = skeleton(model.name)
    assert [str(site) for site in bones.anatomy.sites()] == [str(site) for site in model.anatomy.sites()]
    assert bones.parameters == sum(parameter.numel() for parameter in model.pipe.transformer.parameters())


def test_the_command_prints_blocks_and_sites() -> None:
    code, out, err = run(["inspect", "--model", "flux", "--local-files-only"])
    assert code == 0, err
    for words in ("generated, 3072 channels", "0-18", "19-56", "published config", "alpha.attn|mlp", "FluxTransformer2DModel"):
        assert words in out
    code, out, _ = run(["inspect", "--model", "sd3.5-medium", "--local-files-only", "--json"])
    values = json.loads(out)
    assert code == 0
    assert "block.12/image/alpha.attn2" in values["blocks"][12]["sites"]
    assert "block.13/image/alpha.attn2" not in values["blocks"][13]["sites"]


def test_what_has_no_config_is_refused(tmp_path: Path) -> None:
    for name, hint in (
        ("nothing", "interp models"),
        ("nobody/nothing", "hf download"),
        (str(tmp_path), "transformer/config.json"),
    ):
        with refused(interp.ModelError, "model", name, hint):
            skeleton(name, local_files_only=True)
