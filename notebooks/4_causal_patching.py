# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Causal patching, and a disruption with its controls
#
# Where is the difference between two prompts represented? Activation patching, as for language models: draw a *clean* and a
# *corrupted* prompt from one seed, put the clean run's values into the corrupted run at one block and in one window of
# steps, and measure how much of the clean picture is recovered. Then the other direction: ablate the massive channels and
# measure the effect on the picture. The demo model is a toy, and five pairs are few: intervals are wide.
#
# Prompts come in pairs, clean and corrupted in turn. Each pair here differs in one attribute.

# %%
import tempfile
from pathlib import Path

import numpy as np

import interp

model = interp.load("demo")
prompts = [
    "a large red plain circle in the center on a black background",
    "a large blue plain circle in the center on a black background",
    "a large yellow striped square in the center on a navy background",
    "a large yellow striped star in the center on a navy background",
    "a small green dotted star in the top left on a white background",
    "a small green dotted star in the bottom right on a white background",
    "a large purple striped ring in the center on a grey background",
    "a large purple striped ring in the center on a brown background",
    "a large orange plain cross in the center on a teal background",
    "a small orange plain cross in the center on a teal background",
]

# %% [markdown]
# A trace of the same prompts selects the massive channels: those that are massive from the middle block, or an earlier one,
# on. For a model with many blocks, eight evenly spaced ones are used.

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))
clean, corrupted = prompts[0::2], prompts[1::2]
run = interp.trace(model, prompts, out=out / "run.zarr", batch_size=5)
count = len(model.anatomy.blocks)
blocks = sorted({round(block) for block in np.linspace(0, count - 1, min(count, 8))})
middle = blocks[len(blocks) // 2]
found = interp.massive.find(run).sel(stream="image")
massive = found["consensus"] & (found["birth"] <= middle)
channels = found["channel"][massive].values.tolist()
print("blocks:", blocks, "| middle:", middle, "| massive by", found.attrs["criterion"], "there:", channels)

# %% [markdown]
# ## The patch grid
#
# Four kinds of values are patched in the image stream: the whole state (`hidden`), the massive channels alone (`massive`),
# as many ordinary channels (`control`), and the block's gates (`alpha`); at each block, in the early or the late half of
# the steps. The cost is known before drawing: pictures, and forwards of one picture through the transformer. Arms do not
# recompute a prefix that they share with the clean or corrupted run.

# %%
grid = interp.patch(model, clean, corrupted, out=out / "patch.zarr", run=run, channels=channels, blocks=blocks, windows=2)
print(grid.cost, "| massive:", grid.parameters["channels"], "control:", grid.parameters["control"])
drawn = grid.run()

# %% [markdown]
# `recovered` is the position of the patched picture along the straight line from the corrupted picture (0) to the clean one
# (1), in pixels. Hover for intervals over pairs. Compare `massive` with `control` before you draw a conclusion about
# massive channels.

# %%
recovered = drawn.result("patching_picture")
interp.figures.effects.patch_grid(recovered)

# %% [markdown]
# The same as a table, with intervals. It shows the block and window in which each recovers most. That cell is selected as
# the largest, so its value is biased upwards; the control is selected in the same way.

# %%
columns = ["recovered", "recovered_low", "recovered_high"]
flat = recovered[columns].to_dataframe()[columns].round(3)
flat.loc[flat.groupby("what", sort=False)["recovered"].idxmax()]

# %% [markdown]
# ## Look at the pictures
#
# One row per pair, patched at one block in the early half of the steps. A number near 0 can be a picture that has not
# changed, or one that has changed in another direction; only the picture shows which.

# %%
axes = drawn.axes
first = str(recovered["column"].values[0])
cells = [("corrupted", -1, "-"), *((str(what), middle, first) for what in recovered["what"].values), ("clean", -1, "-")]
labels = list(zip(axes["what"].values, axes["block"].values, axes["column"].values, strict=True))
arms = [labels.index(cell) for cell in cells]
interp.figures.drawn.strip(drawn, range(len(clean)), arms, [what for what, _, _ in cells])

# %% [markdown]
# ## A positive control: what recovers everything?
#
# A state does not hold the whole past. The conditioning (timestep, pooled text) enters again in every later block. With
# `hidden` of both streams at all steps, later blocks still receive the corrupted prompt's conditioning. `everything` also
# replaces the conditioning that enters after the block, and must give 1; otherwise the grid above would not be reliable.

# %%
three = sorted({blocks[0], middle, blocks[-1]})
whole = interp.patch(
    model, clean, corrupted, out=out / "whole.zarr", what=["hidden", "everything"], blocks=three, windows=1, stream="both"
).run()
columns = ["recovered", "recovered_low", "recovered_high"]
whole.result("patching_picture")[columns].to_dataframe()[columns].round(3)

# %% [markdown]
# ## Ablating the channels
#
# A disruption of one block. Zeroing a huge channel removes its content *and* rescales all others in the next LayerNorm;
# zeroing random channels of ordinary size removes far less energy. More arms separate these effects: `displaced` moves
# every token by an equal amount in another direction, `norms kept` removes the channels without the change of scale, `norms
# as if zero` changes only the scale.

# %%
plan = interp.disrupt(model, clean, out=out / "disrupt.zarr", run=run, channels=channels, blocks=[middle])
print(plan.cost, "| massive:", plan.parameters["channels"])
disrupted = plan.run()

# %% [markdown]
# Picture against original picture of the same prompt and seed. Controls are grey. Effects within the shaded margin count as
# minimal. Structure: change of the blurred picture. Detail: above 0, the fine spectrum is further from the reference than
# the original's. Sharpness: above 0, sharper. Prompt effect: at -1, the prompt has no effect.

# %%
measured = disrupted.result("disruption")
interp.figures.effects.disruption(measured)

# %% [markdown]
# The verdict is a pair of one-sided tests: `minimal` (proved small), `changed` (proved large), or `cannot tell`. With few
# prompts the last is frequent. `over_control` is the value minus the random control of this block.

# %%
columns = ["value", "low", "high", "over_control", "over_control_low", "over_control_high", "verdict"]
measured[columns].sel(measure=["structure", "sharpness"]).to_dataframe()[columns].round(3)

# %%
kinds = disrupted.axes["kind"].values.tolist()
arms = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
interp.figures.drawn.strip(disrupted, range(len(clean)), arms, [kinds[arm].replace("_", " ") for arm in arms])

# %% [markdown]
# ## Your own model
#
# Change the two definitions of the first cell:
#
# ```python
# model = interp.load("black-forest-labs/FLUX.1-dev")
# prompts = interp.read_prompts("pairs.txt")  # clean and corrupted in turn
# ```
#
# Look at `grid.cost` before `grid.run()`. Experiments are stores and resume after a kill, so name a folder of your own
# instead of the temporary one. `windows=None` patches every step separately, `regions=4` patches parts of the picture.
