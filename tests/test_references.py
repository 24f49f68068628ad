"""A reference picture behind the generated tokens: what it changes in an anatomy; edits of one leave the other alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_edit_pipelines import picture

import interp
from interp.base.sites import Site
from interp.interventions import NormsAsIfZero, Scale, Zero, ZeroNormsKept, edited
from interp.interventions.hooks import Driver
from interp.models.anatomy import Tap, describe
from interp.models.families import ANATOMIES
from interp.models.references import with_reference
from interp.testing.block_records import error_of_records, recording
from interp.testing.checks import untraced
from interp.tracing.prepare import prepare

KONTEXT = "flux-kontext_model"
HIDDEN = interp.Record(hidden=True, latents="all", prediction=True)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> interp.Model:
    found: interp.Model = request.getfixturevalue(KONTEXT)
    return found


def test_text_to_image_keeps_its_anatomy(model: interp.Model, flux_model: interp.Model) -> None:
    assert flux_model.anatomy.stream_names == ("image", "text")
    assert not flux_model.anatomy.joint
    plain = describe(model.pipe.transformer, ANATOMIES)
    assert plain.blocks == flux_model.anatomy.blocks != model.anatomy.blocks
    assert model.anatomy.stream_names == ("image", "text", "reference")
    assert interp.wrap(model.pipe).anatomy.stream_names == model.anatomy.stream_names
    model.refresh()
    assert model.anatomy.blocks == with_reference(plain, lambda given: 0).blocks


def test_every_site_has_its_counterpart(model: interp.Model, flux_model: interp.Model) -> None:
    """The reference has the generated stream's sites; a gate of both is edited as the generated stream's."""
    sites = list(model.anatomy.sites())
    of_picture = [site for site in sites if site.stream == "image"]
    assert [dataclasses.replace(site, stream="image") for site in sites if site.stream == "reference"] == of_picture
    assert [site for site in sites if site.stream != "reference"] == list(flux_model.anatomy.sites())
    shared = Driver(model.anatomy, [])
    for index, block in enumerate(model.anatomy.blocks):
        for modulation in block.modulations:
            assert {site.stream for site in shared._own_sites(index, modulation).values()} == {modulation.stream}


@pytest.mark.parametrize("stream", ["image", "reference"])
@pytest.mark.parametrize("block", [0, 2, 3])
def test_an_edit_of_one_leaves_the_other(model: interp.Model, stream: str, block: int, tmp_path: Path) -> None:
    """After the edited block; by a trace and by hooks alike."""
    edit, other = Zero(channels=[1, 4], blocks=block, stream=stream), {"image": "reference", "reference": "image"}[stream]
    given: dict[str, Any] = {"steps": 1, "record": HIDDEN}
    clean = interp.trace(model, ["a cat"], out=tmp_path / "clean.zarr", **given)
    run = interp.trace(model, ["a cat"], out=tmp_path / "run.zarr", interventions=[edit], **given)
    for name in (other, "text"):
        np.testing.assert_array_equal(*(one.hidden[name]["hidden"].sel(block=block) for one in (clean, run)))
    before, after = (one.hidden[stream]["hidden"].sel(block=block).to_numpy() for one in (clean, run))
    assert (after[..., [1, 4]] == 0).all()
    np.testing.assert_array_equal(np.delete(after, [1, 4], axis=-1), np.delete(before, [1, 4], axis=-1))
    prepared = prepare(model, ["a cat"], steps=1)
    with edited(model, [edit]):
        hooked = untraced(model, prepared)
    np.testing.assert_array_equal(hooked, run.images["image"])


def test_a_run_holds_both_and_predicts_the_generated(model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(model, ["a cat", "two dog"], out=tmp_path / "run.zarr", steps=2, batch_size=2, record=HIDDEN)
    layout = prepare(model, ["a cat"]).layout
    assert layout.sizes["reference"] == layout.sizes["image"]
    assert run.images["predicted_velocity"].shape[2:] == run.images["latents"].shape[2:]
    for stream in ("image", "reference"):
        assert run.hidden[stream].sizes["token"] == layout.tokens(stream)
    assert not np.array_equal(run.hidden["image"]["hidden"], run.hidden["reference"]["hidden"])


def test_another_picture_changes_the_reference(model: interp.Model, tmp_path: Path) -> None:
    """The reference's states before the first attention are those of its picture alone."""
    given = {"steps": 1, "record": HIDDEN}
    runs = [
        interp.trace(
            model,
            ["a cat"],
            out=tmp_path / f"{seed}.zarr",
            settings={"image": str(picture(tmp_path / f"{seed}.png", seed))},
            **given,  # type: ignore[arg-type]
        )
        for seed in (0, 1)
    ]
    first, second = (run.hidden["reference"]["hidden"].to_numpy() for run in runs)
    assert np.abs(first - second).max() > 1e-3
    assert not np.allclose(runs[0].images["latents"], runs[1].images["latents"], atol=1e-6)


def test_exchanged_streams_break_the_identity(model: interp.Model) -> None:
    prepared = prepare(model, ["a cat"], steps=1)
    with torch.no_grad(), recording(model.pipe.transformer, model.anatomy, branches=True) as (_, records):
        untraced(model, prepared)
    names = {"image": "reference", "reference": "image"}
    blocks = tuple(
        dataclasses.replace(
            block,
            reads=tuple(
                dataclasses.replace(read, joint=tuple(names.get(one, one) for one in read.joint))
                if isinstance(read, Tap)
                else read
                for read in block.reads
            ),
        )
        for block in model.anatomy.blocks
    )
    assert error_of_records(model.anatomy, records, prepared.layout.lengths) < 1e-5
    assert error_of_records(dataclasses.replace(model.anatomy, blocks=blocks), records, prepared.layout.lengths) > 0.01


@pytest.mark.parametrize("stream", ["image", "reference", "text"])
def test_norm_edits_find_their_tokens(model: interp.Model, stream: str) -> None:
    """An edit that removes nothing changes nothing; one that does changes the picture."""
    prepared = prepare(model, ["a cat"], steps=2)
    plain = untraced(model, prepared)
    for kind in (ZeroNormsKept, NormsAsIfZero):
        with edited(model, [kind(channels=[3], blocks=0, stream=stream)]):
            assert not np.array_equal(untraced(model, prepared), plain)
    with edited(model, [Scale(1.0, channels=[3], blocks=0, stream=stream)]):
        np.testing.assert_array_equal(untraced(model, prepared), plain)


def test_the_lens_draws_the_generated_picture(model: interp.Model, tmp_path: Path) -> None:
    drawn = interp.lens(model, ["a cat"], without="none", steps=2, out=tmp_path / "lens.zarr").run()
    assert np.isfinite(drawn.result("lens").to_array()).any()


def test_shape_alone_knows_the_reference(model: interp.Model) -> None:
    from interp.models.skeleton import skeleton

    assert skeleton(model.name).anatomy.stream_names == ("image", "text", "reference")
    assert Site(0, "reference", "hidden") in set(model.anatomy.sites())
