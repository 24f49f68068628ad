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
# # Massive channels
#
# Some channels of a hidden state are far larger than the others. Which ones, by which definition, in which blocks, and how
# firmly does this number of prompts say so? All of it from one trace of statistics, without the model. The demo model is a
# toy: what is seen here is about it.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import pandas as pd

import interp

model = interp.load("demo")
prompts = interp.read_prompts(files("interp") / "models/demo/prompts.txt")

# %% [markdown]
# Two seeds a prompt, so that prompt and seed can be told apart. Rows that share a text are averaged first: seeds of one
# prompt are no independent samples of prompts, and every interval below is over prompt texts.

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))
run = interp.trace(model, prompts, out=out / "run.zarr", repeats=2, batch_size=8)
run

# %% [markdown]
# ## Which channels?
#
# The default criterion, `robust`, selects channels whose mean |hidden| lies 3.5 robust standard deviations (on logarithms)
# above the others' and is at least five times the median channel's. It needs no count to be chosen beforehand.

# %%
found = interp.massive.find(run)
interp.figures.massive.spikes(found)

# %% [markdown]
# Read the table block by block. `score` is the criterion's score with its 95% interval; `frequency` is the share of bootstrap
# resamples of the prompts that select the channel. A channel that is selected with a low frequency is one that other prompts
# might not select. The rows `selected` = False are the control: in every block the runner-up, the largest channel that was
# not selected. The further the intervals of the two lie apart, the less the answer depends on the threshold.

# %%
image = found.sel(stream="image")
runner_up = image["score"].where(~image["selected"]).dropna("block", how="all").idxmax("channel")
shown = image["selected"] | (image["channel"] == runner_up)
columns = ["size", "score", "score_low", "score_high", "selected", "frequency"]
table = image[columns].where(shown).to_dataframe()[columns].dropna()
table.astype({"selected": bool}).round(2)

# %% [markdown]
# The consensus over blocks is what at least half of the blocks select, counted from a channel's first block (`birth`) on. The
# rest of this notebook is about these channels, and about one ordinary channel beside them: the runner-up of the most blocks.

# %%
channels = [int(channel) for channel in image["channel"][image["consensus"]]]
ordinary = int(runner_up.where(~runner_up.isin(channels), drop=True).to_series().mode()[0])
print("consensus:", channels, "first selected in block:", [int(image["birth"].sel(channel=c)) for c in channels])
print("ordinary channel beside them:", ordinary)

# %% [markdown]
# ## By which criterion?
#
# There is no agreed definition. The same trace under the definitions of several papers, and our own: read across, not down. A
# criterion that names a count (`top:4`) selects that many whatever the channels look like. `two_sigma` is left out: it needs
# hidden states, and this trace kept statistics.

# %%
names = ["robust", "ratio:10", "top:4", "top_signed:4", "sun", "energy:10"]
lines = []
for name in names:
    one = interp.massive.find(run, name, resamples=0)
    agreed = one["consensus"].sel(stream="image")
    lines.append({"criterion": name, "consensus": [int(c) for c in one["channel"][agreed]], "source": one.attrs["source"]})
pd.DataFrame(lines).set_index("criterion")

# %% [markdown]
# ## In which blocks, and in every token?
#
# Solid with a band: the consensus and the ordinary channel, with their intervals. Grey, dashed: the median channel. Dotted:
# the largest of all others.

# %%
profile = interp.massive.profile(run, [*channels, ordinary])
interp.figures.massive.layers(profile)

# %% [markdown]
# `in_every_token` is the smallest |hidden| of the channel over tokens, over the median channel's mean. Above 1, even the
# token in which the channel is smallest holds more than a typical channel holds on average; near 0, the channel is large in
# some tokens only.

# %%
profile["in_every_token"].to_series().unstack("channel").round(2)

# %% [markdown]
# ## How much of the energy?
#
# Share of E[x²] over all channels that the k largest hold. The control is an even split, given in the legend.

# %%
interp.figures.massive.energy(interp.energy.shares(run))

# %% [markdown]
# ## Is it the same set?
#
# Jaccard overlap of the k largest channels between samples, with k the size of the consensus or 4, whichever is larger.
# Compare `same prompt, other seed` with `other prompt, same seed`: where the first lies above the second, the set carries
# something of the prompt. `chance` is the overlap of two random sets.

# %%
interp.figures.massive.stability(interp.stability.sets(run, k=max(4, len(channels))))

# %% [markdown]
# ## Along depth, all channels at once
#
# The criterion's score of every channel in every block. A channel that is massive everywhere is a vertical line.

# %%
interp.figures.massive.scores(found)

# %% [markdown]
# ## Your own model
#
# Change two lines of the first cell:
#
# ```python
# model = interp.load("black-forest-labs/FLUX.1-dev")
# prompts = interp.read_prompts("prompts.txt")
# ```
#
# Channels come from the analysis, steps and size from the model's defaults. Where no channel reaches the consensus, the cell
# that picks `ordinary` and the ones after it still work, with the ordinary channel alone. With a store that you already have,
# `run = interp.open_run(PATH)` takes the place of the trace and no model is needed.
