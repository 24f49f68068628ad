"""Wan 2.1: videos, so tokens have a frame. Wan 2.2 5B: a timestep for every token."""

from __future__ import annotations

from typing import Any

import torch

import interp
from interp.interventions import Scale, SwapConditioning, edited
from interp.testing import FamilyTests


class TestWan(FamilyTests):
    name = kind = "wan"
    published = {
        "wan2.1": ({"cross": 30}, 1536, ("attn", "mlp"), (1.3, 1.45)),
        "wan2.1-14b": ({"cross": 40}, 5120, ("attn", "mlp"), (14.0, 14.4)),
        "wan2.2-5b": ({"cross": 30}, 3072, ("attn", "mlp"), (4.95, 5.05)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)
            seen.table_gates_before(block, index, "temb")

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        length = settings["max_sequence_length"]
        return {"encoder_hidden_states": pipe.encode_prompt(["x"], "", True, max_sequence_length=length)[1]}


class TestWan22(TestWan):
    """The arguments of a call and of a block have an axis of tokens."""

    name = "wan2.2"
    sizes = {"per_token": True}

    def hooks(self, transformer: Any, seen: Any) -> None:
        def keep(given: Any, table: Any, index: int) -> None:
            temb = given["temb"]
            assert temb.shape[1] == given["hidden_states"].shape[1]
            for gate, row in (("attn", 2), ("mlp", 5)):
                seen.keep_gate(("image",), gate, index, table[:, row] + temb[:, 1, row])

        for index, block in enumerate(transformer.blocks):
            seen.states_after(block, index)
            seen.before(block, lambda given, block=block, index=index: keep(given, block.scale_shift_table, index))

    def test_edits_reach_every_token(self, model: interp.Model) -> None:
        """A swapped timestep gives all tokens its values, and an edited gate is that of all tokens."""
        transformer, seen, table = model.pipe.transformer, [], model.pipe.transformer.blocks[1].scale_shift_table
        with (
            edited(model, [SwapConditioning.of(model, timestep=250.0), Scale(0.0, channels=3, blocks=1, at="alpha.attn")]),
            transformer.blocks[1].register_forward_pre_hook(
                lambda m, args, named: seen.append(named or args), with_kwargs=True
            ),
        ):
            self.draw(model.pipe, self.prompts[:1], model.settings(), 1.0, num_inference_steps=1, **self.given_size(model))
        with torch.no_grad():
            _, flat, _, _ = transformer.condition_embedder(torch.tensor([250.0]), torch.zeros(1, 1, 32))
        wanted, given = flat.unflatten(1, (6, -1)).clone(), seen[0]["temb"]
        wanted[:, 2, 3] = -table[:, 2, 3]
        assert given.shape[:3] == (1, 2 * 4 * 8, 6)
        torch.testing.assert_close(given, wanted[:, None].expand_as(given), rtol=1e-5, atol=1e-5)
