"""Tiny models are data: formulas, sizes, and one model from one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from messages import refused

import interp
from interp.models import tiny, vocabulary
from interp.models.quiet import quiet


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("heads * width // 3", 10),
        ("(width // 8) ** 2 - heads", 2),
        ("[width] * heads", [16, 16]),
        ("([0, 1] + [2] * heads)[:3]", [0, 1, 2]),
        ('"many" if heads else None', "many"),
        ("not nothing", True),
        ("nothing or width", 16),
    ],
)
def test_a_formula_is_arithmetic_of_the_sizes(text: str, value: object) -> None:
    assert tiny.formula(text, {"heads": 2, "width": 16, "nothing": None}) == value


@pytest.mark.parametrize("text", ["len('a')", "width.real", "[x for x in [1]]", "lambda: 1", "(width := 3)", "f'{width}'"])
def test_a_formula_holds_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="a formula must hold"):
        tiny.formula(text, {"width": 16})


def test_formulas_are_found_in_lists_and_mappings_and_nothing_else_changes() -> None:
    data = {"a": ["= n + 1", {"b": "= n"}], "c": "n", "d": None, "e": 1.5}
    assert tiny.resolved(data, {"n": 2}) == {"a": [3, {"b": 2}], "c": "n", "d": None, "e": 1.5}
    assert data["a"] == ["= n + 1", {"b": "= n"}]


def test_unknown_families_and_sizes_are_refused_and_those_there_are_named(tmp_path: Path) -> None:
    with refused(interp.InputError, "family", "sdx", "sd3", "hunyuanvideo"):
        tiny.make("sdx")
    with refused(interp.InputError, "sizes", "sd3", "frames", "blocks", "heads", "dual_attention", "resolution"):
        tiny.build("sd3", tmp_path / "model", frames=3)
    assert not (tmp_path / "model").exists()
    with refused(interp.InputError, "sizes", "autoencoder", "depth", "levels"):
        tiny.recipe("autoencoder", depth=3)


@pytest.mark.parametrize("family", ["sd3", "mochi"])
def test_one_seed_gives_one_model_and_leaves_the_random_numbers_alone(family: str) -> None:
    def weights(seed: int) -> dict[str, Any]:
        with quiet():
            return dict(tiny.make(family, seed=seed)[0].transformer.state_dict())

    before = torch.get_rng_state()
    first, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", vocabulary.TOKENIZERS)
def test_a_tokenizer_is_the_same_each_time_and_knows_its_words(name: str) -> None:
    made = [vocabulary.TOKENIZERS[name](tiny.WORDS, 32) for _ in range(10)]
    made = [getattr(one, "tokenizer", one) for one in made]  # that of a processor
    assert all(one.get_vocab() == made[0].get_vocab() for one in made)
    last = made[0].tokenize("a red square")[-2:]
    assert [piece.strip("\u2581\u0120").removesuffix("</w>") for piece in last] == ["red", "square"]
