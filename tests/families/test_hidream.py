"""HiDream: every block receives new text tokens; an argument whose rows are its second axis; squares of one size."""

from __future__ import annotations

from typing import Any

from interp.testing import FamilyTests


class TestHiDream(FamilyTests):
    name = kind = "hidream"
    flips = 0.05  # its router gives a token to another expert where rounding decides
    published = {
        "hidream": ({"double": 16, "single": 32}, 2560, ("attn", "mlp"), (17.0, 17.2)),
    }

    def hooks(self, transformer: Any, seen: Any) -> None:
        """One projection a block; 8 + 8 text tokens pass on, 8 more are cut off; single blocks have the image first."""
        doubles = list(transformer.double_stream_blocks)
        for index, block in enumerate([*doubles, *transformer.single_stream_blocks]):

            def keep(output: Any, index: int = index) -> None:
                image, text = output if isinstance(output, tuple) else (output[:, :64], output[:, 64:])
                seen.keep_state("image", index, image)
                seen.keep_state("text", index, text[:, :16])

            seen.after(block, keep)
            double = index < len(doubles)
            for stream, first in (("image", 0), ("text", 6 if double else 0)):
                gates = {"attn": first + 2, "mlp": first + 5}
                seen.gates_after(block.block.adaLN_modulation, index, [stream], gates, chunks=12 if double else 6)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        length = settings["max_sequence_length"]
        _, t5, _, llama, _, pooled = pipe.encode_prompt(["x"], do_classifier_free_guidance=True, max_sequence_length=length)
        llama = llama.movedim(1, 0)  # rows first
        return {"encoder_hidden_states_t5": t5, "encoder_hidden_states_llama3": llama, "pooled_embeds": pooled}
