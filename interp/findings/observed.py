"""Claims that can be judged from traces alone."""

from __future__ import annotations

import numpy as np

from interp.analysis import attribution, massive
from interp.findings.claims import (
    FAILS,
    HOLDS,
    MEASURED,
    PARTLY,
    UNKNOWN,
    Evidence,
    Verdict,
    by_all,
    finite,
    span,
    within,
    would_see,
)
from interp.store.schema import Array

SURE = 0.95  # of bootstrap resamples
FEW = 0.01  # of the channels, two at least
STEADY = 0.1  # coefficient of variation
TOKENS = 2.0  # times the median channel
MAINLY = 0.5


def _selected(evidence: Evidence) -> tuple[Array, Array]:
    """(block, channel): whether the massive channels are selected, and their share of resamples."""
    here = evidence.massive.sel(channel=evidence.channels)
    return here["selected"].to_numpy().astype(bool), here["frequency"].to_numpy()


def few_channels(evidence: Evidence) -> Verdict:
    """Number of massive channels."""
    found, channels = evidence.massive, evidence.channels
    if not evidence.any_massive:
        largest = within(found[["score_low", "score", "score_high"]].sel(channel=channels).max(), "score")
        return Verdict(FAILS, f"none by {found.attrs['criterion']}; the largest score, of channel {channels[0]}, is {largest}.")
    selected, frequency = _selected(evidence)
    limit = max(2, round(FEW * found.sizes["channel"]))
    score = found["score"].sel(channel=channels).where(selected).to_numpy()
    sure = max(float(np.median(frequency[:, place][selected[:, place]])) for place in range(len(channels)))
    here = f"channels {channels}, scores where selected {span(score)}, the runner-up's {span(found['runner_up'])}."
    numbers = {"channels": channels, "score": score, "frequency": frequency}
    if len(channels) > limit:
        return Verdict(PARTLY, f"{len(channels)} of {found.sizes['channel']} channels: {here}", numbers)
    return Verdict(HOLDS if sure >= SURE else UNKNOWN, here, numbers)


def every_block(evidence: Evidence) -> Verdict:
    """Blocks in which the massive channels are selected."""
    selected, frequency = _selected(evidence)
    every, count = selected.all(axis=0), selected.sum(axis=0)
    here = f"selected in {', '.join(f'{n} of {len(selected)}' for n in count)} blocks (channels {evidence.channels})."
    numbers = {"selected": selected, "frequency": frequency}
    if not evidence.any_massive:
        return Verdict(UNKNOWN, "no channel is massive.", numbers)
    if every.all():
        return Verdict(HOLDS if frequency.min() >= SURE else UNKNOWN, here, numbers)
    surely, lacking = (frequency >= SURE).all(axis=0), (~selected & (frequency <= 1 - SURE)).any(axis=0)
    if lacking.all():
        return Verdict(FAILS, here, numbers)
    return Verdict(PARTLY if lacking.any() and surely.any() else UNKNOWN, here, numbers)


def every_token(evidence: Evidence) -> Verdict:
    """Size of the channels in the smallest token."""
    (least,) = finite(evidence.profile["in_every_token"])
    here = f"the smallest token of channels {evidence.channels}, mean over samples: {span(least)} times the median channel."
    return by_all(least >= TOKENS, least < TOKENS, here, in_every_token=least)


def steady_over_prompts(evidence: Evidence) -> Verdict:
    """Spread over prompts at a fixed timestep."""
    found = evidence.trend
    other = found["ordinary_variation"].broadcast_like(found["variation"])
    low, high, other = finite(found["variation_low"], found["variation_high"], other)
    here = f"coefficient of variation {span(found['variation'])}; other channels {span(found['ordinary_variation'])}."
    limit = np.minimum(STEADY, other)
    return by_all(high < limit, low > limit, here, would_see(low, high), variation=found["variation"].to_numpy())


def grows(evidence: Evidence) -> Verdict:
    """Rank correlation of size and timestep."""
    found = evidence.trend
    low, high, other = finite(found["trend_low"], found["trend_high"], found["ordinary_trend"].broadcast_like(found["trend"]))
    here = f"Spearman with the timestep {span(found['trend'])}; other channels {span(found['ordinary_trend'])}."
    if len(low) and (low > 0).all():
        here += " It falls."
    return by_all(high < np.minimum(0, other), low > 0, here, would_see(low, high), trend=found["trend"].to_numpy())


def text_negligible(evidence: Evidence) -> Verdict:
    """Shares of timestep and text in the variance."""
    found = evidence.attribution
    time, others = found.sel(term="timestep"), found["ordinary"].sel(term="timestep")
    of_prompt = (
        found["ordinary"].sel(term=[str(term) for term in found["term"].to_numpy() if "prompt" in str(term)]).sum("term")
    )
    here = (
        f"timestep {span(time['share'])} of the variance, all terms with the prompt {span(found['any_prompt'])}; "
        f"other channels: timestep {span(others)}, prompt {span(of_prompt)}."
    )
    numbers = {"timestep": time["share"].to_numpy(), "any_prompt": found["any_prompt"].to_numpy()}
    proved = found["prompt_negligible"].where(np.isfinite(found["any_prompt"]), True).to_numpy()
    here += str(found.attrs.get("note", "")).partition(attribution.CONFOUNDED)[2]
    beaten = (found["any_prompt"] < of_prompt) | found["any_prompt"].isnull()
    low, high, other = finite(time["share_low"], time["share_high"], others.broadcast_like(time["share"]))
    seen = would_see(low, high)
    if proved.all() and np.isfinite(found["any_prompt"]).any() and bool(beaten.all()):
        return Verdict(HOLDS, here, numbers, seen)
    if not len(low):
        return Verdict(UNKNOWN, here, numbers)
    if (low > np.maximum(MAINLY, other)).all():
        here = f"mainly the timestep; that the text is negligible is not shown everywhere. {here}"
        return Verdict(PARTLY, here, numbers, seen)
    return Verdict(FAILS if (high < MAINLY).all() else UNKNOWN, here, numbers, seen)


def gates_by_timestep(evidence: Evidence) -> Verdict:
    """Shapley share of the timestep in alpha, exact."""
    found = evidence.dataset("gates").isel(stream=0)
    if "text" not in found["player"].to_numpy():
        return Verdict(HOLDS, "by construction: no text enters this model's gates.")
    (share,) = finite(found["shapley"].sel(player="timestep"))
    here = (
        f"the timestep's Shapley share of alpha at channels {evidence.channels}: {span(share)}, median {np.median(share):.2g}."
    )
    if not len(share):
        return Verdict(UNKNOWN, "the gates were not split into players.")
    if (share > MAINLY).all():
        return Verdict(HOLDS, here, {"timestep": share})
    return Verdict(FAILS if (share < MAINLY).all() else PARTLY, here, {"timestep": share})


def alpha_peaks(evidence: Evidence) -> Verdict:
    """Rank of alpha at the largest channel."""
    found = evidence.alignment
    (rank,) = finite(found["alpha_rank"])
    count = evidence.massive.sizes["channel"]
    first = rank < max(1, round(FEW * count))
    here = f"rank of |alpha| at the largest channel, 0 is first of {count}: {', '.join(f'{value:.0f}' for value in rank)}."
    return by_all(first, ~first, here, alpha_rank=rank)


def who_writes(evidence: Evidence) -> Verdict:
    """The writers of the largest contributions."""
    found = evidence.residual
    parts = []
    for channel in evidence.channels[:3]:
        one = found["over_steps"].sel(channel=channel)
        top = [str(w) for w in one["writer"].to_numpy()[np.argsort(-np.abs(one.to_numpy()), kind="stable")][:3]]
        said = [f"{w} {float(one.sel(writer=w)):.3g}" for w in top]
        parts.append(f"channel {channel} of {float(one.sum()):.3g}: {', '.join(said)}")
    return Verdict(MEASURED, "; ".join(parts) + ".")


def same_set(evidence: Evidence) -> Verdict:
    """Overlap of the eight largest channels."""
    found = evidence.stability
    here = (
        f"Jaccard overlap of the 8 largest channels: another prompt {span(found['prompts'])}, another seed "
        f"{span(found['seeds'])}; by chance {float(found['chance']):.2g}."
    )
    return Verdict(MEASURED, here)


def energy_of_eight(evidence: Evidence) -> Verdict:
    """Share of the energy that eight channels hold."""
    found = evidence.energy.sel(k=8)
    low, high = finite(found["share_low"], found["share_high"])
    here = f"{span(found['share'])} of the energy, by block; an even split would give {span(found['even'])}."
    return by_all(low > MAINLY, high < MAINLY, here, would_see(low, high), share=found["share"].to_numpy())


def subject_in_clusters(evidence: Evidence) -> Verdict:
    """IoU of the top channels, of random ones, and of masks that need no model."""
    found = evidence.segmentation
    if found is None:
        return Verdict(UNKNOWN, "no true masks were given (--masks).")
    here = found.isel(step=-1)
    top, random = here.sel(strategy="top"), here.sel(strategy="random")
    trivial = float(found["trivial"].max())
    floor = np.maximum(random["iou_high"].to_numpy(), trivial)
    above, below = top["iou_low"].to_numpy() > floor, top["iou_high"].to_numpy() < np.maximum(random["iou_low"], trivial)
    ious = ", ".join(f"{name} {span(here['iou'].sel(strategy=name))}" for name in ("top", "random", "bottom"))
    best = span(here["either"].sel(strategy="top"))
    said = f"IoU by block: {ious}, trivial masks up to {trivial:.2g}; where the truth picks the side, top {best}."
    half, seen = len(above) / 2, would_see(top["iou_low"], top["iou_high"])
    return Verdict(HOLDS if above.sum() >= half else FAILS if below.sum() >= half else UNKNOWN, said, seen=seen)


def early_and_in_all(evidence: Evidence) -> Verdict:
    """Massive channels of other checkpoints or sizes."""
    if not evidence.others:
        return Verdict(UNKNOWN, "no other checkpoint or size was given (--other).")
    parts, any_of = [], []
    for name, run in zip(evidence.setup.others, evidence.others, strict=True):
        found = massive.find(run, resamples=0).isel(stream=0)
        agreed = [int(c) for c in found["channel"].to_numpy()[found["consensus"].to_numpy()]]
        any_of.append(bool(agreed))
        parts.append(f"{name}: {agreed or 'none'}, largest score {float(found['score'].max()):.3g}")
    said = PARTLY if any(any_of) else FAILS  # checkpoints are no evidence for sizes, nor sizes for training
    return Verdict(said, "; ".join(parts) + ".")
