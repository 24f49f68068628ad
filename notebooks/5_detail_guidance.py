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
# # Detail Guidance
#
# Detail Guidance (DG, arXiv 2510.11538) guides away from a model with disrupted massive channels: with c the conditional
# prediction and d the same with those channels set to 0 at the output of block m, it adds w (c - d). It can be summed with
# classifier-free guidance (CFG). This notebook shows pictures side by side, a sweep over w with its controls, and the same
# on a plain diffusers pipeline.
#
# The demo model draws captions of a world with known real pictures, so the measures have a ground truth. The results hold
# for this toy model only.

# %%
import tempfile
from pathlib import Path

import numpy as np
import torch

import interp
from interp.guidance import PRESETS, ClassifierFree, DetailGuidance
from interp.models.demo import world

scenes = list(world.sample(12, seed=5))  # real pictures below: (picture, y, x, rgb) uint8
model = interp.load("demo")
prompts, real = [scene.caption() for scene in scenes], np.stack([scene.picture() for scene in scenes])

# %% [markdown]
# ## Which channels, which block
#
# A preset holds the paper's settings if it states them; for the demo model, ours. For any other model `DetailGuidance.auto`
# takes the massive channels of a traced run, and the first block from which all of them are massive. The depth matters: on
# the demo model a wrong m reverses the effect (docs/findings.md). With `run=`, a preset warns if its channels are not
# massive in the trace.

# %%
out = Path(tempfile.mkdtemp(prefix="interp-"))
run = interp.trace(model, prompts[:8], out=out / "run.zarr", batch_size=8)
known = model.name in PRESETS
detail = DetailGuidance.preset(model.name, run=run) if known else DetailGuidance.auto(run)
detail

# %% [markdown]
# ## Side by side
#
# One seed per prompt, the same in every column. CFG at scale 1 is the plain conditional prediction; DG with w = 0 has no
# effect.

# %%
guidances = {"none": None, "CFG 3": ClassifierFree(3), "DG": detail, "CFG 3 + DG": ClassifierFree(3) + detail}
pictures = [interp.generate(model, prompts[:4], guidance=one, batch_size=4)["image"].values for one in guidances.values()]
rows = [[column[row] for column in pictures] for row in range(4)]
interp.figures.drawn.picture_grid(rows, list(guidances), [f"prompt {row}" for row in range(4)], "guidances, same seeds")

# %% [markdown]
# ## A sweep over w
#
# Every prompt under every setting, in one store. Braces are expanded. The other settings are compared with the first, no
# guidance. `ordinary` is a control: the same method at the same block with a random ordinary channel for every massive one.

# %%
agreed = interp.massive.find(run, resamples=0)["selected"].sel(stream="image").any("block")
candidates = agreed["channel"].values[~agreed.values]
ordinary = np.random.default_rng(0).choice(candidates, len(detail.channels), replace=False)
weights = [0.5, 1, 2, 4]


def said(channels):
    """Detail Guidance with these channels, as text, for every w."""
    return f"dg:{{{','.join(map(str, weights))}}}:block={detail.block}:channels={','.join(map(str, channels))}"


settings = ["none", "cfg:3", said(detail.channels), f"cfg:3+{said(detail.channels)}", said(ordinary)]
plan = interp.sweep(model, prompts, settings, out=out / "sweep.zarr", reference=real)
print("massive:", detail.channels, "ordinary:", ordinary, "|", plan.cost)
drawn = plan.run()

# %% [markdown]
# Points are means over prompts with 95% intervals; x is w. The dashed line is no guidance. `detail` is the distance of the
# fine radial spectrum to that of real pictures (lower is nearer), `sharpness` is log2 of the ratio of the Laplacian's
# variance to theirs (0 is as sharp), `structure` is the distance of the blurred picture to the real one of the same
# caption. Read detail and sharpness together: excess high frequencies count like missing ones. The ordinary channel shows
# the effect of any small disturbance.

# %%
measured = drawn.result("sweep")
interp.figures.guidance.sweep(measured)

# %% [markdown]
# `over_first` is the difference from no guidance of the same prompt and seed, `win` the share of pictures nearer to real
# spectra, and `forwards` the cost of a picture. An interval of `over_first` that contains 0, or one of `win` that contains
# 0.5, shows no difference.

# %%
over = measured[["over_first", "over_first_low", "over_first_high"]].sel(measure="detail", drop=True)
win = measured[["win", "win_low", "win_high"]].sel(won="detail", drop=True)
table = over.assign(win).assign(forwards=measured["forwards"])
table.to_dataframe()[list(table.data_vars)].round(3)

# %%
labels = ["none", "CFG 3", *(f"{name} {w}" for name in ("DG", "CFG 3 + DG", "ordinary") for w in weights)]
interp.figures.drawn.strip(drawn, range(4), range(len(labels)), labels)

# %% [markdown]
# ## On a diffusers pipeline of your own
#
# `interp.guided` guides every call of a pipeline inside the `with` block and removes its hooks at the end. The pipeline's
# own CFG may be on. The cell compares it with `interp.generate`: the same equation, computed by the pipeline and by
# `interp`. It is written for Stable Diffusion 3, where `guidance_scale` is CFG, and for FLUX.1 dev, where `guidance_scale`
# is an input of the model. A DiT pipeline takes class labels instead of a prompt.

# %%
pipe = model.pipe  # or a pipeline that you have built: interp.guided needs no interp.Model
pipe.set_progress_bar_config(disable=True)
settings = model.settings()
same = detail if "embedded_guidance" in settings else ClassifierFree(3) + detail
both = interp.generate(model, prompts[:1], guidance=same)
arguments = {
    "num_inference_steps": both.attrs["plan"]["steps"],
    "height": both.sizes["y"],
    "width": both.sizes["x"],
    "guidance_scale": settings.get("embedded_guidance", 3.0),
    "max_sequence_length": settings["max_sequence_length"],
}

plain = pipe(prompts[0], generator=torch.Generator().manual_seed(0), **arguments).images[0]
with interp.guided(pipe, detail):
    inside = pipe(prompts[0], generator=torch.Generator().manual_seed(0), **arguments).images[0]
after = pipe(prompts[0], generator=torch.Generator().manual_seed(0), **arguments).images[0]

three = [np.asarray(plain), np.asarray(inside), both["image"].values[0]]
away = int(abs(three[1].astype(int) - three[2]).max())
print(f"largest difference of guided to interp.generate: {away} of 255; the pipeline is itself again:", after == plain)
interp.figures.drawn.picture_grid([three], ["pipeline", "guided", "generate"], [""], "the stock pipeline")

# %% [markdown]
# ## Your own model
#
# Change two lines of the first cell:
#
# ```python
# model = interp.load("sd3")  # its preset is the paper's; needs access to the weights
# prompts, real = interp.read_prompts("prompts.txt"), None
# ```
#
# Without real pictures, the pictures of the first setting replace them: `detail` and `sharpness` then measure the distance
# from no guidance, not an improvement, and `structure` is left out. `real` may also be any set of real pictures of the same
# size, (picture, y, x, rgb) uint8. Steps and size are the model's defaults; the scale of CFG and the values of w are this
# notebook's.
