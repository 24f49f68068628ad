"""Anatomies by example: counts of sites, an unknown transformer. Their laws are in `interp.testing.FamilyTests`."""

from __future__ import annotations

import pytest
from bad_inputs import run as command
from messages import names, refused
from torch import nn

import interp
from interp.models.families import ANATOMIES


def test_sd3_counts(tiny_model: interp.Model, dual_model: interp.Model) -> None:
    anatomy = tiny_model.anatomy
    assert (len(anatomy.blocks), anatomy.channels, anatomy.stream_names, anatomy.gates) == (
        4,
        32,
        ("image", "text"),
        ("attn", "mlp"),
    )
    assert dual_model.anatomy.gates == ("attn", "attn2", "mlp")
    names = [str(site) for site in anatomy.sites()]
    assert len(names) == len(set(names))
    assert "block.3/text/hidden" not in names
    assert "block.3/text/alpha.attn" not in names
    assert "block.2/text/alpha.mlp" in names


def test_an_unknown_transformer_says_how_to_add_it(tiny_model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.models.anatomy import describe

    class MyDiT(nn.Module):
        pass

    with refused(interp.ModelError, "MyDiT", "interp models --support", "register_anatomy"):
        describe(MyDiT(), ANATOMIES)
    monkeypatch.setattr("interp.models.families.ANATOMIES", dict(ANATOMIES))
    from interp.models import families

    families.register_anatomy("MyDiT", lambda transformer: tiny_model.anatomy)
    assert describe(MyDiT(), families.ANATOMIES) is tiny_model.anatomy


def test_blocks_of_a_nested_path_are_one_row() -> None:
    code, out, err = command(["inspect", "--model", "hidream", "--local-files-only"])
    assert code == 0, err
    assert names(out, "double_stream_blocks.*.block", "0-15") == []
