"""Z-Image: lists of pictures; refiner blocks, then joint ones with each row's own text and padding behind its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import interp
from interp.guidance import ClassifierFree
from interp.interventions import Scale, SwapConditioning
from interp.testing import FamilyTests

LONG = " ".join(["a photo of a red cat and a blue dog on the green square"] * 4)


class TestZImage(FamilyTests):
    name = kind = "zimage"
    published = {
        "z-image-turbo": ({"refiner": 2, "joint": 30}, 3840, ("attn", "mlp"), (6.1, 6.2)),
        "z-image": ({"refiner": 2, "joint": 30}, 3840, ("attn", "mlp"), (6.1, 6.2)),
    }
    prompts = ("a red cat", LONG, "the green circle", "a photo of a dog")  # of one, two, one and one times 32 tokens
    size = (32, 48)  # 24 tokens, padded to 32

    def hooks(self, transformer: Any, seen: Any) -> None:
        """A row's image tokens come first; `adaLN_modulation` gives four chunks, the second and the fourth before a tanh."""
        size: list[int] = []

        def measure(given: Any) -> None:
            height, width = given["x"][0].shape[-2:]
            size[:] = [height * width // 4]

        def gates(index: int, output: Any) -> None:
            parts = output.chunk(4, dim=-1)
            seen.keep_gate(["image"], "attn", index, parts[1].tanh())
            seen.keep_gate(["image"], "mlp", index, parts[3].tanh())

        seen.before(transformer, measure)
        for index, block in enumerate([*transformer.noise_refiner, *transformer.layers]):
            seen.after(block, lambda output, index=index: seen.keep_state("image", index, output[:, : size[0]]))
            seen.after(block.adaLN_modulation, lambda output, index=index: gates(index, output))

    def no_prompt(self, pipe: Any, settings: Any) -> dict[str, Any]:
        return {"cap_feats": pipe.encode_prompt([""], do_classifier_free_guidance=False, **settings)[0][0][None]}

    def arguments(self, pipe: Any, prompts: list[str], settings: Any, scale: float) -> dict[str, Any]:
        """Its own scale is one less: c + scale (c - u)."""
        return {"prompt": prompts, "guidance_scale": scale - 1.0, **settings}

    def test_rows_of_other_lengths_are_those_of_their_own(self, model: interp.Model, tmp_path: Path) -> None:
        """To 1e-5: texts of other lengths in one batch against one call each, edited in a joint block and guided."""
        edits = [Scale(3.0, channels=[3, 5], blocks=2, tokens="0-5")]
        more = {"steps": 2, "height": 32, "width": 48, "interventions": edits, "guidance": ClassifierFree(3.0)}
        record = interp.Record(hidden=True, branches=True)
        runs = [
            interp.trace(model, self.prompts[:3], out=tmp_path / f"{size}.zarr", batch_size=size, record=record, **more)
            for size in (3, 1)
        ]
        together, alone = (run.hidden["image"]["hidden"].to_numpy() for run in runs)
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(*(run.branches["branch"].to_numpy() for run in runs), rtol=1e-5, atol=1e-5)

    def test_a_swapped_timestep_rises(self, model: interp.Model) -> None:
        """The scheduler's 300 is 0.7 here, to a rounding."""
        given = SwapConditioning.of(model, timestep=300.0).arguments["t"]
        assert abs(float(given) - 0.7) < 1e-6
