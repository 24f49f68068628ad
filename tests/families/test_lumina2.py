"""Lumina-Image 2.0: refiner blocks, then joint ones in which the image begins behind each row's own number of text tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.guidance import ClassifierFree
from interp.interventions import Scale, edited
from interp.testing import FamilyTests


class TestLumina2(FamilyTests):
    name = kind = "lumina2"
    published = {
        "lumina-image-2": ({"refiner": 2, "joint": 26}, 2304, ("attn", "mlp"), (2.5, 2.7)),
    }
    call = {"cfg_normalization": False}

    def hooks(self, transformer: Any, seen: Any) -> None:
        """In a joint block a row's image tokens come behind as many text tokens as its mask has."""
        texts: list[int] = []
        seen.before(transformer, lambda given: texts.__setitem__(slice(None), given["encoder_attention_mask"].sum(1).tolist()))
        refiner = list(transformer.noise_refiner)
        for index, block in enumerate([*refiner, *transformer.layers]):

            def keep(output: Any, index: int = index) -> None:
                if index >= len(refiner):
                    size = output.shape[1] - max(texts)
                    output = torch.stack([row[text : text + size] for row, text in zip(output, texts, strict=True)])
                seen.keep_state("image", index, output)

            def gates(output: Any, index: int = index) -> None:
                seen.keep_gate(["image"], "attn", index, output[1].tanh())
                seen.keep_gate(["image"], "mlp", index, output[3].tanh())

            seen.after(block, keep)
            seen.after(block.norm1, gates)

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        *_, states, mask = pipe.encode_prompt(["x"], **settings)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def test_rows_of_other_lengths_are_those_of_their_own(self, model: interp.Model, tmp_path: Path) -> None:
        """To 1e-5: three texts of other lengths in one batch against one call each, edited in a joint block and guided."""
        edits = [Scale(3.0, channels=[3, 5], blocks=2, tokens="0-5")]
        runs = [
            interp.trace(
                model,
                self.prompts[:3],
                out=tmp_path / f"{size}.zarr",
                steps=2,
                batch_size=size,
                interventions=edits,
                guidance=ClassifierFree(3.0),
                record=interp.Record(hidden=True, branches=True),
            )
            for size in (3, 1)
        ]
        together, alone = (run.hidden["image"]["hidden"].to_numpy() for run in runs)
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(*(run.branches["branch"].to_numpy() for run in runs), rtol=1e-5, atol=1e-5)

    def test_hooks_edit_each_rows_image(self, model: interp.Model) -> None:
        """To 1e-5 of the picture's levels: `edited` on a batch and on each row."""
        prompts = list(self.prompts[:3])

        def drawn(texts: list[str]) -> Any:
            noise = [torch.Generator().manual_seed(0) for _ in texts]
            with edited(model, [Scale(3.0, channels=[3, 5], blocks=3)]):
                return model.pipe(
                    texts, num_inference_steps=2, generator=noise, guidance_scale=1.0, output_type="latent"
                ).images

        torch.testing.assert_close(drawn(prompts), torch.cat([drawn([text]) for text in prompts]), rtol=1e-5, atol=1e-5)
