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
# Some channels of a hidden state are far larger than the others. This notebook finds them: which ones, by which definition,
# in which blocks, and how reliably with this number of prompts. One trace of statistics is enough; the analyses need no
# model. The demo model is a toy, and the results hold for it only.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import pandas as pd

import interp

model = interp.load("demo")
prompts = interp.read_prompts(files("interp") / "models/demo/prompts.txt")

# %% [markdown]
# Two seeds per prompt separate the effects of prompt and seed. Rows that share a text are averaged first, because seeds of
# one prompt are not independent samples of prompts. Every interval below is over prompt texts.

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))
run = interp.trace(model, prompts, out=out / "run.zarr", repeats=2, batch_size=8)
run

# %% [markdown]
# ## Which channels?
#
# The default criterion, `robust`, selects channels whose mean |hidden| is larger than the largest of as many ordinary
# channels would be by chance, in robust standard deviations of the logarithm and as a multiple of the median. It needs no
# count in advance.

# %%
found = interp.massive.find(run)
interp.figures.channels.spikes(found)

# %% [markdown]
# Read the table block by block. `score` is the criterion's score with its 95% interval; `frequency` is the share of
# bootstrap resamples of the prompts that select the channel. With a low frequency, other prompts might not select the
# channel. The rows `selected` = False are the control: the runner-up of every block, the largest channel that is not
# selected. The further apart the two intervals are, the less the result depends on the threshold.

# %%
image = found.sel(stream="image")
runner_up = image["score"].where(~image["selected"]).dropna("block", how="all").idxmax("channel")
shown = image["selected"] | (image["channel"] == runner_up)
columns = ["size", "score", "score_low", "score_high", "selected", "frequency"]
table = image[columns].where(shown).to_dataframe()[columns].dropna()
table.astype({"selected": bool}).round(2)

# %% [markdown]
# The consensus over blocks contains a channel if at least half of the blocks, from its first block (`birth`) on, select it.
# The rest of this notebook uses these channels and one ordinary channel for comparison: the runner-up of the most blocks.

# %%
channels = [int(channel) for channel in image["channel"][image["consensus"]]]
ordinary = int(runner_up.where(~runner_up.isin(channels), drop=True).to_series().mode()[0])
print("consensus:", channels, "first selected in block:", [int(image["birth"].sel(channel=c)) for c in channels])
print("ordinary channel next to them:", ordinary)

# %% [markdown]
# ## By which criterion?
#
# There is no agreed definition. The table applies the definitions of several papers, and our own, to the same trace. A
# criterion with a count (`top:4`) always selects that many channels. `two_sigma` is left out: it needs hidden states, and
# this trace holds statistics only.

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
interp.figures.channels.layers(profile)

# %% [markdown]
# `in_every_token` is the smallest |hidden| of the channel over tokens, divided by the median channel's mean. Above 1, the
# channel exceeds a typical channel's mean even in its smallest token; near 0, it is large in some tokens only.

# %%
profile["in_every_token"].to_series().unstack("channel").round(2)

# %% [markdown]
# ## How much of the energy?
#
# Share of E[x²] in the k largest channels. The control is an even split, given in the legend.

# %%
interp.figures.channels.energy(interp.energy.shares(run))

# %% [markdown]
# ## Is it the same set?
#
# Jaccard overlap of the k largest channels between samples; k is the size of the consensus or 4, whichever is larger.
# Compare `same prompt, other seed` with `other prompt, same seed`: if the first is above the second, the set depends on the
# prompt. `chance` is the overlap of two random sets.

# %%
interp.figures.channels.stability(interp.stability.sets(run, k=max(4, len(channels))))

# %% [markdown]
# ## Along depth, all channels at once
#
# The criterion's score of every channel in every block. A channel that is massive everywhere is a vertical line.

# %%
interp.figures.channels.scores(found)

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
# Channels come from the analysis, steps and size from the model's defaults. If no channel reaches the consensus, the cell
# that picks `ordinary` and the later cells still work, with the ordinary channel alone. With an existing store, `run =
# interp.open_run(PATH)` replaces the trace, and no model is needed.
