"""Models without gates, and blocks with a long skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import PROMPTS
from messages import refused, warned

import interp
from interp.experiments.grid import tabulate


def test_a_model_without_gates_says_so_and_traces_its_states(hunyuandit_model: interp.Model, tmp_path: Path) -> None:
    prompts, out = PROMPTS[:2], tmp_path / "run.zarr"
    with warned(interp.InterpWarning, "gates", "alpha"):
        run = interp.trace(hunyuandit_model, prompts, out=out, steps=2)
    assert run.stats["max_abs"].sizes["block"] == 4
    with refused(interp.StoreError, "gates", "run.zarr"):
        run.gates  # noqa: B018
    for field in ("modulation", "branches"):
        with refused(interp.InputError, f"record.{field}", "gates"):
            interp.trace(hunyuandit_model, prompts, out=tmp_path / "no.zarr", record=interp.Record(**{field: True}))
    with refused(interp.ModelError, "gates"):
        tabulate(hunyuandit_model, prompts)
    with refused(interp.ModelError, "gates"):
        interp.govern(hunyuandit_model, prompts, out=tmp_path / "govern", channels=[3])
    assert not (tmp_path / "no.zarr").exists()


def test_a_long_skip_is_what_the_identity_leaves_open(hunyuandit_model: interp.Model) -> None:
    """Blocks without one: hidden = input + branches. With one: the state that they add to is `skip_linear`'s."""
    transformer, seen = hunyuandit_model.pipe.transformer, []
    skipping = [index for index, block in enumerate(hunyuandit_model.anatomy.blocks) if block.remakes]
    assert skipping == [3]
    handle = transformer.blocks[3].skip_linear.register_forward_hook(lambda m, a, output: seen.append(output.double().numpy()))
    try:
        _, cache = hunyuandit_model.run_with_cache(PROMPTS[0], "*", steps=2)
    finally:
        handle.remove()
    added = sum(cache[f"branch.{gate}", 3].to_numpy().astype(np.float64) for gate in ("attn", "attn2", "mlp"))
    remade = np.stack(seen, axis=1)
    np.testing.assert_allclose(remade + added, cache["hidden", 3], atol=1e-5)
    assert np.abs(remade - cache["input", 3].to_numpy()).max() > 0.1
