"""Guidance as text and JSON, presets, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import prompts_for
from messages import refused, warned

import interp
from interp.guidance import (
    ClassifierFree,
    DetailGuidance,
    PerturbedAttention,
    from_json,
    parse,
)
from interp.tracing.prepare import prepare


def test_text_and_json(demo_model: interp.Model) -> None:
    found = parse("cfg:4+dg:1", demo_model)
    assert found == ClassifierFree(4) + DetailGuidance.preset("demo")
    assert "not from the paper" in found.methods[1].to_json()["source"]
    for text in (
        "cfg:4",
        "apg:4:eta=0.1:limit=2",
        "cfg0:3",
        "cfgpp:0.6",
        "slg:2.8:blocks=2-3:steps=0-4",
        "pag:3:blocks=1",
        "amplify:1.2",
    ):
        made = parse(text, demo_model)
        assert from_json(made.to_json()) == made, text
    with_model = parse("auto:1", demo_model, interp.load)
    assert with_model.methods[0].model.name == "demo-early"
    assert from_json(with_model.to_json(), interp.load).to_json() == with_model.to_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dgg:1", ("guidance", "dgg", "cfg, apg")),
        ("cfg", ("cfg", "scale")),
        ("cfg:x", ("scale", "cfg", "'x'")),
        ("cfg:nan", ("scale", "cfg", "nan")),
        ("cfg:4:colour=3", ("cfg", "'colour'")),
        ("cfg:4+apg:3", ("cfg", "apg")),
        ("cfgpp:3", ("scale", "cfgpp", "0..1")),
        ("slg:2", ("slg", "blocks")),
        ("dg:1:channels=99:block=1", ("channels", "0..95", 99)),
        ("dg:1:channels=3:block=8", ("blocks", "0..7", 8)),
        ("slg:1:blocks=9", ("blocks", "slg", "0..7")),
        ("dg:1:edit=blur", ("edit", "dg", "blur")),
        ("dg:1:of=both", ("of", "cond", "uncond", "both")),
        ("dg:1:stream=text:block=7", ("block 7", "text")),
    ],
)
def test_bad_guidance_gets_one_clear_message(text: str, words: tuple[Any, ...], demo_model: interp.Model) -> None:
    with refused(interp.InputError, *words):
        prepare(demo_model, ["a red circle"], guidance=text)


def test_guidance_that_a_family_cannot_have(dit_model: interp.Model, flux_model: interp.Model) -> None:
    with refused(interp.InputError, "negative_prompt"):
        interp.generate(dit_model, ["1"], guidance=ClassifierFree(4.0), negative_prompt="ugly", steps=1)
    with refused(interp.InputError, "attention", "block 3"):
        prepare(flux_model, ["a cat"], guidance=PerturbedAttention(blocks=3, scale=1.0))
    with refused(interp.InputError, "preset"):
        prepare(flux_model, ["a cat"], guidance="dg:1")


def test_presets_name_their_source() -> None:
    sd3 = DetailGuidance.preset("sd3")
    assert (sd3.channels, sd3.block, sd3.scale) == ((810,), 5, 1.0)
    assert "2510.11538" in sd3.source
    assert DetailGuidance.preset("flux-dedistilled").channels == (154, 1446)
    assert "not from the paper" in DetailGuidance.preset("demo").source
    with refused(interp.InputError, "m = 7", "channels"):
        DetailGuidance.preset("dit-xl")
    assert DetailGuidance.preset("dit-xl", channels=[4]).block == 6
    assert DetailGuidance.preset("sd3", reading="input").block == 4  # equation 2: z^6 enters block 6, counted from 1
    assert DetailGuidance.preset("demo", reading="input").block == DetailGuidance.preset("demo").block  # ours
    with refused(interp.InputError, "reading", "output, input", "later"):
        DetailGuidance.preset("sd3", reading="later")


def test_a_preset_is_checked_against_a_trace(demo_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(demo_model, prompts_for("demo_model"), out=tmp_path / "run.zarr", steps=4)
    DetailGuidance.preset("demo", run=run)  # no warning: pytest would make it an error
    with warned(interp.InterpWarning, "guidance", "[3]", "[29"):
        DetailGuidance.preset("demo", run=run, channels=[3])
    with warned(interp.InterpWarning, "guidance", "[3]"):
        interp.trace(demo_model, ["a red circle"], out=tmp_path / "g.zarr", steps=4, guidance="dg:1:channels=3:block=5")


def test_auto_finds_what_was_planted(tmp_path: Path) -> None:
    from interp.testing import plant

    planted = plant("sd3", channels=(7, 11), block=2)
    run = interp.trace(planted.model, planted.prompts(4), out=tmp_path / "run.zarr", steps=3)
    found = DetailGuidance.auto(run, scale=2.0)
    assert (found.channels, found.block, found.scale) == ((7, 11), 2, 2.0)
