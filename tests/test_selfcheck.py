"""`check_anatomy` and `selfcheck` pass on right models and fail on wrong ones."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from bad_inputs import run
from conftest import every_family
from messages import names

import interp
from interp.models.anatomy import Anatomy
from interp.models.catalog import CATALOG, MassiveClaim
from interp.models.skeleton import skeleton
from interp.testing import check_anatomy, selfcheck
from interp.testing.block_records import swapped_chunks
from interp.testing.checks import check_claim

GATELESS = ["hunyuandit_model", "stableaudio_model"]
pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")  # the example prompts' words


def test_the_demo_is_checked_for_its_massive_channels(demo_model: interp.Model) -> None:
    report = selfcheck(demo_model)
    assert report.passed
    assert len(report.checks) == 6


@pytest.mark.parametrize("name", every_family())
def test_right_models_pass(name: str, request: pytest.FixtureRequest) -> None:
    report = selfcheck(request.getfixturevalue(name))
    assert [check.name for check in report.checks if not check.passed] == []
    assert len(report.checks) == (6 if name == "demo_model" else 5)
    assert report.passed
    assert 0 <= report.seconds_a_step < 10
    assert report.bytes_a_prompt > 10_000


def with_anatomy(model: interp.Model, anatomy: Anatomy) -> interp.Model:
    return interp.Model(dataclasses.replace(model.loaded, anatomy=anatomy))


def swapped_gates(anatomy: Anatomy) -> Anatomy:
    return swapped_chunks(swapped_chunks(anatomy, "alpha.attn", "alpha.mlp"), "text/alpha.attn", "text/alpha.mlp")


def swapped_streams(anatomy: Anatomy) -> Anatomy:
    blocks = [
        dataclasses.replace(b, joint=b.joint[::-1])
        if b.joint
        else dataclasses.replace(b, hidden=dict(zip(b.hidden, reversed(b.hidden.values()), strict=True)))
        for b in anatomy.blocks
    ]
    return dataclasses.replace(anatomy, blocks=tuple(blocks))


@pytest.mark.parametrize("name", every_family(without=GATELESS))
def test_swapped_gates_fail(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    checks = {check.name: check for check in check_anatomy(with_anatomy(model, swapped_gates(model.anatomy)))}
    assert not checks["residual identity"].passed


@pytest.mark.parametrize("name", every_family())
def test_swapped_streams_fail(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    if len(model.anatomy.streams) == 1:
        assert swapped_streams(model.anatomy) == model.anatomy
        return
    assert not all(check.passed for check in check_anatomy(with_anatomy(model, swapped_streams(model.anatomy))))


@pytest.mark.parametrize("name", every_family(without=GATELESS))
def test_a_wrong_conditioning_is_found_out(name: str, request: pytest.FixtureRequest) -> None:
    """The gates are also computed from what the transformer receives, which a wrong conditioning changes."""
    model = request.getfixturevalue(name)
    conditioning = model.anatomy.conditioning
    assert conditioning is not None

    def twisted(value: Any) -> Any:
        if isinstance(value, list):
            return [twisted(part) for part in value]
        return value * 0.5 + 0.1 if value.is_floating_point() else (value + 1) % 1000  # a class's number

    def wrong(transformer: Any, inputs: Any) -> dict[str, Any]:
        return {key: twisted(value) for key, value in conditioning.inputs(transformer, inputs).items()}

    sabotaged = dataclasses.replace(model.anatomy, conditioning=dataclasses.replace(conditioning, inputs=wrong))
    checks = {c.name: c for c in check_anatomy(interp.Model(dataclasses.replace(model.loaded, anatomy=sabotaged)))}
    assert not checks["gates from conditioning alone"].passed
    assert checks["residual identity"].passed


def test_channels_that_are_not_massive_are_found_out(demo_model: interp.Model) -> None:
    _, cache = demo_model.run_with_cache("a red circle", steps=2)
    assert check_claim(cache, MassiveClaim(4, (29,), "")).passed
    for block, channels in ((4, (30,)), (4, (29, 30)), (4, (500,))):
        assert not check_claim(cache, MassiveClaim(block, channels, "")).passed


def test_the_papers_channels_exist_in_the_published_configs() -> None:
    claims = {name: entry.massive for name, entry in CATALOG.items() if entry.massive is not None}
    assert {name: claims[name].channels for name in ("sd3", "sd3.5", "flux-dedistilled")} == {
        "sd3": (810,),
        "sd3.5": (676,),
        "flux-dedistilled": (154, 1446),
    }
    for name, claim in claims.items():
        anatomy = skeleton(name, local_files_only=True).anatomy
        assert claim.block < len(anatomy.blocks)
        assert max(claim.channels) < anatomy.channels


def test_the_command_passes_on_the_demo_and_says_what_is_missing() -> None:
    code, out, err = run(["selfcheck", "--model", "demo"])
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["PASS"] * 6 + ["a"]
    code, out, _ = run(["selfcheck", "--model", "demo", "--json"])
    assert json.loads(out)["passed"] is True
    code, out, err = run(["selfcheck", "--model", "sd3", "--local-files-only"])
    assert (code, out) == (2, "")
    assert names(err, "sd3", "stabilityai/stable-diffusion-3-medium-diffusers") == []
