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
# # A first trace
#
# A trace runs the unmodified diffusers pipeline once for every prompt and records the inside of the transformer: statistics
# of the hidden states, the AdaLN gates (alpha), hidden states, pictures. This notebook shows what is recorded, along which
# axes, and how to read it with xarray.
#
# The model is `demo`, a small Stable Diffusion 3 pipeline that ships with `interp`, trained on coloured shapes. It needs no
# download and no GPU. The results hold for the demo model only.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import xarray as xr

import interp

model = interp.load("demo")
prompts = interp.read_prompts(files("interp") / "models/demo/prompts.txt")

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))  # stores go here; name a folder of your own to keep them
model

# %% [markdown]
# ## Sites
#
# Every site that can be read or edited has a name: block, stream and kind. `hidden` is a block's output, `input` its input,
# `branch.attn` the output of attention before its gate `alpha.attn` multiplies it. TransformerLens's `resid_post` is
# `hidden`, and `resid_mid` is `mid`.

# %%
[str(site) for site in model.anatomy.sites() if site.block == 0]

# %% [markdown]
# ## The trace
#
# Statistics and gates are small and are recorded by default. Hidden states are large: here only those of the first and the
# last block at the first and the last step, image stream. `interp trace --dry-run` prints the size before a picture is
# drawn.

# %%
record = interp.Record(hidden=interp.Select(blocks="0,-1", steps="0,-1", streams="image"))
run = interp.trace(model, prompts, out=out / "first.zarr", record=record, batch_size=4)
run

# %% [markdown]
# The pictures equal those of the pipeline: recording changes nothing, and guidance is off by default.

# %%
interp.figures.maps.pictures(run.images["image"])

# %% [markdown]
# ## Statistics
#
# `run.stats` holds, for every prompt, step, block, stream and channel, five reductions over the tokens: `mean`, `mean_abs`,
# `max_abs`, `min_abs` and `var`. It is lazy: values are read when they are needed. Steps have coordinates for timestep and
# sigma, blocks for the module's path, prompts for text and seed. Values that a model does not have are NaN: the last block
# of Stable Diffusion 3 has no text output, for example.

# %%
run.stats

# %%
run.stats["step"].to_dataframe()[["timestep", "sigma"]].T.round(2)

# %% [markdown]
# ## Gates
#
# `run.gates["alpha"]` has one more axis, `gate`. Alpha multiplies the output of a branch, channel by channel, before the
# stream receives it. It depends on the conditioning alone (timestep and, in some models, pooled text), so it has no token
# axis.

# %%
run.gates["alpha"]

# %% [markdown]
# ## Hidden states
#
# `run.hidden` is a DataTree, one child per stream. The statistics are reductions of the same states, so the two can be
# compared: the number below is the largest relative difference between `mean_abs` and the mean of |hidden| over tokens. It
# should be of the order of float32 rounding.

# %%
hidden = run.hidden["image"]["hidden"]
hidden

# %%
again = abs(hidden).mean("token").compute()
stored = run.stats["mean_abs"].sel(stream="image", step=hidden["step"], block=hidden["block"]).compute()
print(f"largest relative difference: {float((abs(again - stored) / stored).max()):.1e}")

# %% [markdown]
# ## A first figure
#
# Mean |hidden| of every channel at the last block, averaged over tokens, steps and prompts. The dashed line is the median
# channel, the reference for the size of a channel. Bars with a number are the channels that a named criterion selects;
# notebook 2 tests how reliable the selection is. Every figure states under its title what it is averaged over.

# %%
found = interp.massive.find(run)
interp.figures.channels.spikes(found)

# %% [markdown]
# ## Where the numbers came from
#
# A store holds its plan and its provenance. The same call reads the store and draws nothing; after a kill it resumes;
# another plan raises an error and never overwrites the store. A store is plain zarr, which xarray alone can open.

# %%
{name: run.plan[name] for name in ("model", "steps", "height", "width", "seed", "guidance", "weights")}

# %%
run = interp.trace(model, prompts, out=out / "first.zarr", record=record, batch_size=4)  # nothing left to draw
xr.open_zarr(run.path, group="stats/image", consolidated=False)["mean_abs"].sizes

# %% [markdown]
# ## Without a store
#
# For one prompt, `run_with_cache` keeps any sites in memory, selected by a pattern of their names.

# %%
images, cache = model.run_with_cache(prompts[0], "block.0/image/*", steps=4)
update = cache["alpha.mlp", 0] * cache["branch.mlp", 0]  # what block 0's MLP adds to the stream
update.sizes

# %% [markdown]
# ## Your own model
#
# Change two lines of the first cell:
#
# ```python
# model = interp.load("black-forest-labs/FLUX.1-dev")  # or "sd3", a diffusers folder, another hub id
# prompts = interp.read_prompts("prompts.txt")  # one prompt a line
# ```
#
# `interp.wrap(pipe)` takes a diffusers pipeline that you have built yourself. Steps and size are then that model's
# defaults; `interp.trace(..., steps=28, height=512, width=512)` sets them. Real weights of Stable Diffusion 3 and FLUX.1
# have not been run.
