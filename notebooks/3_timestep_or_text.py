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
# # Timestep or text?
#
# One paper claims that the timestep sets the massive channels and that text hardly matters; another claims that they carry
# the prompt. Four tests, from a curve to an intervention:
#
# 1. the channels along sampling, and their spread over prompts;
# 2. a split of their variance over prompts, seeds and steps (observational: timestep and noise level are confounded);
# 3. the gates, exactly: alpha depends on the conditioning alone, so it is tabulated without running a block;
# 4. swaps: the model receives another timestep, or another prompt, at the same latents (causal).
#
# The demo model is a toy, and eight prompts are few: read the intervals.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import interp

model = interp.load("demo")
prompts = interp.read_prompts(files("interp") / "models/demo/prompts.txt")

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))
run = interp.trace(model, prompts, out=out / "run.zarr", repeats=2, batch_size=8)
found = interp.massive.find(run).sel(stream="image")
massive = found["consensus"] if bool(found["consensus"].any()) else found["size"].notnull().all("block")
channel = int(found["size"].where(massive).mean("block").idxmax("channel"))
birth = int(found["birth"].sel(channel=channel))
print(f"channel {channel};", f"massive from block {birth} on" if birth >= 0 else "the largest one, but massive by no consensus")

# %% [markdown]
# ## 1. Along sampling
#
# One line per block, with the interval over prompts as a band. Sampling runs to the right. The grey line is the control:
# the median of the other channels at the last block.

# %%
trend = interp.trend.over_timesteps(run, [channel])
interp.figures.channels.trend(trend)

# %% [markdown]
# `trend` is the Spearman correlation of the size with the timestep: +1 falls steadily along sampling, -1 grows. `variation`
# is the spread over prompts (standard deviation over mean) at the middle step. The table also has the median of the other
# channels: a trend that ordinary channels share is not specific to the massive one.

# %%
middle = trend.isel(step=trend.sizes["step"] // 2).sel(channel=channel)
columns = [
    "trend",
    "trend_low",
    "trend_high",
    "ordinary_trend",
    "variation",
    "variation_low",
    "variation_high",
    "ordinary_variation",
]
middle[columns].to_dataframe()[columns].round(3)

# %% [markdown]
# ## 2. Shares of the variance
#
# Variance over prompts, seeds and steps of one run. Solid: the channel. Hatched: the mean of all other channels, the control.
# The lowest part of a bar is the timestep.

# %%
shares = interp.attribution.decompose(run, [channel])
interp.figures.causes.attribution(shares)

# %% [markdown]
# The same with intervals. `any_prompt` is the sum of all terms with the prompt. `prompt_negligible` is an equivalence test:
# True only if the upper end of that share's interval is below `margin`. False does not mean that the text matters; the
# prompts may be too few to decide.

# %%
one = shares.sel(channel=channel)
table = one[["share", "share_low", "share_high", "ordinary"]].sel(term="timestep", drop=True)
table = table.rename(
    {"share": "timestep", "share_low": "timestep_low", "share_high": "timestep_high", "ordinary": "others' timestep"}
)
table = table.assign({name: one[name] for name in ("any_prompt", "any_prompt_low", "any_prompt_high", "prompt_negligible")})
print("margin:", shares.attrs["margin"], "|", shares.attrs["note"])
table.to_dataframe()[list(table)].round(3)

# %% [markdown]
# ## 3. The gates
#
# First, do large alphas and large channels coincide? The figure shows the rank correlation over all channels, with its
# interval. The dashed line is the relevant control: the same channels against *another block's* alpha. A correlation does
# not show that alpha governs.

# %%
interp.figures.causes.alignment(interp.alignment.compare(run))

# %% [markdown]
# Second, what sets alpha itself? `interp.gates` computes alpha over the full grid of prompts x timesteps, not only at the
# steps of one sampling run. The split is exact for this grid; the interval is over prompts. `shapley` assigns half of the
# interaction to each player.

# %%
gates = interp.gates(model, prompts, out=out / "gates.zarr", channels=[channel]).run()
table = gates.result("gates").sel(stream="image", channel=channel)
text = table["shapley"].sel(player="text", drop=True).rename("text, Shapley share")
main = table[["share", "share_low", "share_high"]].sel(term="text", drop=True)
main = main.rename({"share": "text alone", "share_low": "text alone, low", "share_high": "text alone, high"})
whole = main.assign({text.name: text, "mean alpha": table["mean"]})
print(table.attrs["grid"], "|", table.attrs["interval"])
whole.to_dataframe()[list(whole)].round(3)

# %% [markdown]
# The control is every other channel: the text's share in all gates. Compare the massive channel's column with its
# neighbours.

# %%
print("massive channel:", channel)
every = interp.gates(model, prompts, out=out / "every.zarr").run()
interp.figures.causes.gates(every.result("gates"))

# %% [markdown]
# ## 4. The intervention
#
# In a run, timestep and noise level are confounded. `interp.swap` makes single calls of the transformer and swaps four
# factors alone and in all combinations: the timestep input, the noise level of the latents, the pooled text, the text
# tokens. `moved` is the change of the channel's size by a swap, in log2, without sign (root mean square over prompts).
# Solid: the massive channel; dotted: a random ordinary channel. The prompts are few, so the intervals are wide.

# %%
swapped = interp.swap(model, prompts[:6], out=out / "swap.zarr", channels=[channel], run=run).run().result("swap")
interp.figures.effects.swap(swapped)

# %%
columns = ["moved", "moved_low", "moved_high"]
moved = swapped[columns].to_dataframe()[columns].round(2)
moved.apply(lambda row: f"{row['moved']:.2f} [{row['moved_low']:.2f}, {row['moved_high']:.2f}]", axis=1).unstack(
    ["factor", "set"]
)

# %% [markdown]
# Direction: `effect` is late minus early, in log2. Below 0, the late timestep makes the channel smaller. Text has no
# direction: every prompt is once own and once other.
#
# `own_level` is a check of the experiment: the channel's size with latents noised to a step's level, divided by its size in
# the run. Near 1, the swapped calls resemble calls of a run.

# %%
columns = ["effect", "effect_low", "effect_high"]
late = swapped[columns].sel(factor="timestep")
late.to_dataframe()[columns].round(2).unstack("set")

# %%
swapped["own_level"].to_series().unstack("block").round(2)

# %% [markdown]
# ## Reading the four together
#
# A trend and a share of variance describe associations in a run. The gate table is exact, but describes alpha, not the
# channel. Only the swap changes one cause at a time, in single calls; notebook 4 measures effects on the picture.
#
# ## Your own model
#
# Change two lines of the first cell:
#
# ```python
# model = interp.load("black-forest-labs/FLUX.1-dev")
# prompts = interp.read_prompts("prompts.txt")
# ```
#
# A model without pooled text, or with gates that do not depend on text, has fewer factors, and the results state this. The
# minimum is two different prompts; intervals need a few dozen.
