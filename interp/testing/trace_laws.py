"""Laws of a trace: it stores what plain hooks record on a pipeline that was never wrapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.base.plan import Record
from interp.experiments import grid
from interp.experiments.clean import Clean, clean_run, noised
from interp.models import autoencoder, noise
from interp.models.quiet import quiet
from interp.runs.run import trace
from interp.store.traced_run import Run
from interp.testing.family import FamilyFixtures, generators
from interp.testing.reference import Array, Seen, hooked, last_latents, statistics
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

STEPS, SEED, BATCH = 2, 11, 2


class TraceLaws(FamilyFixtures):
    """A trace of three prompts, in batches of two and one, equals the records of plain hooks."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """A trace with everything recorded."""
        family = cls()
        kept = Record(hidden=True, branches=bool(model.anatomy.gates), prediction=True, latents="all", padding=True)
        out = tmp_path_factory.mktemp(family.name) / "run.zarr"
        return trace(
            model,
            family.prompts[:3],
            out=out,
            steps=STEPS + family.leaves_out,
            seed=SEED,
            seeds="shared",
            batch_size=BATCH,
            record=kept,
            **family.given_size(model),
        )

    @pytest.fixture(scope="class")
    @classmethod
    def batches(cls, model: Model) -> list[tuple[Seen, Array, Array]]:
        """Hook records, pictures and last latents of each batch."""
        family = cls()
        pipe, found, size = family.plain_pipeline(model), [], 1 if model.anatomy.alone else BATCH
        for start in range(0, 3, size):
            prompts = family.prompts[start : min(start + size, 3)]
            more = {
                "num_inference_steps": STEPS + family.leaves_out,
                "generator": generators(len(prompts), SEED),
                "output_type": "np",
                **family.given_size(model),
            }
            with hooked(pipe.transformer, family.hooks) as seen, last_latents(pipe) as last:
                output = family.draw(pipe, prompts, model.settings(), 1.0, **more)
            found.append((seen, family.pictures(output), last[0].float().numpy()))
        return found

    def test_pictures_and_latents_are_those_of_the_plain_pipeline(self, run: Run, batches: Any) -> None:
        """Bit for bit: the same operations in the same batches."""
        np.testing.assert_array_equal(run.images["image"], np.concatenate([pictures for _, pictures, _ in batches]))
        np.testing.assert_array_equal(run.images["latents"].isel(step=-1), np.concatenate([last for *_, last in batches]))

    def test_states_and_predictions_are_what_plain_hooks_see(self, model: Model, run: Run, batches: Any) -> None:
        """Bit for bit in every stream and block; no state is missing or extra."""
        assert len(batches[0][0].hidden) == int(run.stats["present"].sum())
        for stream, block in batches[0][0].hidden:
            stored = run.hidden[stream]["hidden"].sel(block=block)
            np.testing.assert_array_equal(stored, np.concatenate([seen.states(stream, block) for seen, *_ in batches]))
        layout = prepare(model, list(self.prompts[:1]), steps=STEPS, **self.given_size(model)).layout
        parts, predicted = layout.prediction, np.concatenate([np.stack(seen.predictions, axis=1) for seen, *_ in batches])
        predicted = predicted[:, :, layout.span(len(parts))]
        for name, part in zip(parts, np.split(predicted, len(parts), axis=2), strict=True):
            np.testing.assert_array_equal(run.images[f"predicted_{name}"], part)

    def test_statistics_are_those_of_the_states(self, run: Run, batches: Any) -> None:
        """To 1e-6 of numpy's in float64: the mean's of the channel's mean |x|, the variance's of itself and the mean's."""
        for stream, block in batches[0][0].hidden:
            states = np.concatenate([seen.states(stream, block) for seen, *_ in batches])
            here, wanted = run.of_stream("stats", stream).sel(block=block), statistics(states)
            scales = dict.fromkeys(wanted, wanted["mean_abs"]) | {"var": wanted["var"] + 1e-6 * wanted["mean_abs"] ** 2}
            for statistic, expected in wanted.items():
                error = np.abs(here[statistic].to_numpy() - expected)
                assert (error <= 1e-6 * scales[statistic]).all(), (stream, block, statistic)

    def test_gates_are_what_plain_hooks_see(self, model: Model, run: Run, batches: Any) -> None:
        """Bit for bit; a gate that a block does not have is NaN and not present."""
        if not model.anatomy.gates:
            assert not batches[0][0].alpha
            return
        for gate in model.anatomy.gates:
            for stream in model.anatomy.stream_names:
                for block in range(len(model.anatomy.blocks)):
                    here = run.of_stream("gates", stream).sel(gate=gate, block=block)
                    assert bool(here["present"]) == ((stream, gate, block) in batches[0][0].alpha)
                    if bool(here["present"]):
                        expected = np.concatenate([seen.gates(stream, gate, block) for seen, *_ in batches])
                        np.testing.assert_array_equal(here["alpha"], expected)
                    else:
                        assert np.isnan(here["alpha"]).all()

    def test_the_parts_of_a_channel_sum_to_its_state(self, model: Model, run: Run) -> None:
        """Embedding and alpha x branch of every block, against the mean state of the last block, to float32 rounding."""
        from interp.analysis.residual import decompose

        for stream in model.anatomy.stream_names if model.anatomy.gates else ():
            channels = list(range(0, model.anatomy.stream(stream).width, 5))
            found = decompose(run, channels, stream=stream)
            near = 1e-5 * max(float(np.abs(run.stats["mean"].sel(stream=stream)).max()), 1.0)
            assert float(found["remainder"].max()) < near
            last = run.stats["mean"].sel(stream=stream, channel=channels).mean("prompt").dropna("block").isel(block=-1)
            np.testing.assert_allclose(found["contribution"].sum("writer"), last, atol=near)
            assert np.isfinite((found["alpha"] * found["branch"]).to_numpy()).all()
            written = int(found["writer"].str.startswith("block").sum())
            assert written == sum(tap.stream == stream for block in model.anatomy.blocks for tap in block.branches)

    def test_each_row_changes_by_its_own_branches(self, model: Model, run: Run) -> None:
        """Mean state after a block minus that before it, against alpha x branch, row by row, to float32 rounding."""
        mean = run.stats["mean"].isel(stream=0)
        near = 1e-5 * max(float(np.abs(mean).max()), 1.0)
        for index, block in enumerate(model.anatomy.blocks):
            if not index or not model.anatomy.gates or block.remakes:
                continue
            update: Any = 0.0
            for tap in (tap for tap in block.branches if tap.stream == model.anatomy.generated.name):
                here = {"block": index, "stream": tap.stream, "gate": tap.gate}
                alpha = run.gates["alpha"].sel(here) if tap.gated else 1.0
                update = update + alpha * run.branches["branch"].sel(here)
            change = mean.sel(block=index) - mean.sel(block=index - 1)
            np.testing.assert_allclose(update.transpose(*change.dims), change, atol=near)

    def test_the_table_of_gates_is_what_the_run_used(self, model: Model, run: Run) -> None:
        """Gates over a grid of timesteps, computed without running a block, to 1e-5."""
        if model.anatomy.conditioning is None or self.gates_follow_size:
            return
        times = [float(value) for value in run.gates["timestep"]]
        every = list(range(model.anatomy.channels))
        found = grid.tabulate(model, list(self.prompts[:3]), every, timesteps=times)["alpha"]
        found = found.squeeze("guidance") if "guidance" in found.dims else found
        found = found.sel(timestep=times).transpose(..., "timestep", "block", "stream", "gate", "channel")
        stored = run.gates["alpha"].transpose("prompt", "step", "block", "stream", "gate", "channel").to_numpy()
        for number in range(3):
            here = found.isel(prompt=number) if "prompt" in found.dims else found
            np.testing.assert_allclose(here, stored[number], rtol=1e-5, atol=1e-5)

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, model: Model) -> Prepared:
        """One prompt over four steps."""
        return prepare(model, list(cls.prompts[:1]), steps=4 + cls.leaves_out)

    @pytest.fixture(scope="class")
    @classmethod
    def clean(cls, prepared: Prepared) -> Clean:
        """Its run without edits, and the transformer's calls."""
        return clean_run(prepared, prepared.plan.rows()[0])

    def test_decoded_latents_are_the_picture(self, model: Model, prepared: Prepared, clean: Clean) -> None:
        """To one level of 255: the pipeline decodes in another order."""
        if not self.decodes:
            return
        spec, pipe, latents = model.loaded.spec, model.pipe, torch.from_numpy(clean.latents)[None]
        with quiet():
            decoded = autoencoder.decode(pipe, spec, latents, prepared.plan.height, prepared.plan.width)
            assert np.abs((decoded[0].numpy() * 255).round() - clean.image).max() <= 1
            if not prepared.layout.frames:
                assert autoencoder.encode(pipe, spec, decoded).shape == latents.shape

    def test_the_last_clean_estimate_is_the_picture(self, model: Model, prepared: Prepared, clean: Clean) -> None:
        """Adding the implied noise to the clean estimate gives the latents; flow schedulers end on the estimate."""
        kind, first, span = prepared.layout.prediction, model.anatomy.row_inputs[0], prepared.layout.span()
        size = model.loaded.spec.levels.flow_size(model.pipe)
        for step in (1, 3):
            sigma = float(prepared.schedule.sigmas[step])
            given, latents = clean.calls.arguments[step][first], clean.calls.arguments[step][first][:, span]
            output = clean.calls.predictions[step][:, prepared.layout.span(len(kind))]
            estimate = noise.denoised(kind, latents, output, sigma)
            implied = output.chunk(len(kind), dim=1)[0]
            if kind[0].endswith("velocity"):
                implied = estimate + (output if kind[0] == "velocity" else -output)
            if kind[0] == "v":
                implied = (1 + sigma**2) ** 0.5 * implied + sigma * estimate
            whole = given.clone()
            whole[:, span] = implied
            again = noised(prepared, estimate * size, whole, step)
            torch.testing.assert_close(again, given, rtol=1e-4, atol=1e-4)
        if kind[0].endswith("velocity"):
            np.testing.assert_allclose(estimate[0].numpy() * size, clean.latents, rtol=1e-4, atol=1e-4)
