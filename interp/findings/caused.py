"""Claims that need an experiment: edits of states and gates, and pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from scipy import stats

from interp.analysis.massive import LEAST
from interp.findings.claims import (
    FAILS,
    HOLDS,
    MEASURED,
    PARTLY,
    UNKNOWN,
    Evidence,
    Verdict,
    by_all,
    span,
    within,
    would_see,
)

LEFT = 0.5  # of the size, at the last block
COLLAPSE = 0.5  # of the distance between two prompts' pictures
WORDS = ("detail lost alone (DG)", "collapse (FC)")
CARRIES, NEGLIGIBLE = 0.5, 0.1  # shares of the way from the target's picture to the source's


def _disruption(evidence: Evidence) -> xr.Dataset:
    return evidence.experiment("disrupt").result("disruption")


def alpha_governs(evidence: Evidence) -> Verdict:
    """The size at the last block under another alpha, another branch, no alpha; and an ordinary channel's under this alpha."""
    found = evidence.dataset("govern")
    last = found.sel(measured="last")
    low, high, value = (
        {str(arm): last[f"ratio{end}"].sel(arm=arm).to_numpy().ravel() for arm in found["arm"].to_numpy()}
        for end in ("_low", "_high", "")
    )
    raised = found["over_median"].sel(arm="raised_ordinary").to_numpy().ravel()
    gates = np.flatnonzero(np.isfinite(low["removed"]))
    if not len(gates):
        return Verdict(UNKNOWN, "no interval: too few prompts.")
    arms = {"removed": "with alpha 0 in one gate", "alpha_ordinary": "with the median channel's alpha"}
    arms["branch_ordinary"] = "with the median channel's branch"
    here = f"channels {evidence.channels} at the last block, of their size: "
    here += "; ".join(f"{said} {span(value[arm][gates])}" for arm, said in arms.items())
    here += f"; an ordinary channel with their alpha: {span(raised[gates])} times the median channel."
    writing = gates[high["removed"][gates] < LEFT]
    numbers = {arm: value[arm][gates] for arm in value}
    if not len(writing):
        return Verdict(UNKNOWN, f"no single gate sets the size; whether all together do was not asked. {here}", numbers)
    by_alpha = (high["alpha_ordinary"] < LEFT)[writing]
    by_branch = (high["branch_ordinary"] < LEFT)[writing]
    enough = (raised >= LEAST)[writing]
    if (by_alpha & ~by_branch & enough).any():
        return Verdict(HOLDS, here, numbers)
    if (low["alpha_ordinary"][writing] > LEFT).all():
        return Verdict(FAILS, f"the branch sets it: it stays under the median channel's alpha. {here}", numbers)
    return Verdict(PARTLY if by_alpha.any() else UNKNOWN, f"alpha and branch set it together. {here}", numbers)


def detail_goes(evidence: Evidence) -> Verdict:
    """Structure and detail after zeroing the massive channels of one block."""
    found = _disruption(evidence).sel(arm=f"zero {evidence.setup.block}")
    structure, detail, sharp = (found.sel(measure=name) for name in ("structure", "detail", "sharpness"))
    here = (
        f"block {evidence.setup.block}: structure {within(structure)} ({structure['verdict'].item()}), distance of the fine "
        f"spectrum {within(detail)} decades more ({detail['verdict'].item()}), sharpness {within(sharp)} in log2."
    )
    lost = detail["verdict"].item() == "changed" and float(detail["low"]) > 0
    seen = f"structure {would_see(structure['low'], structure['high'])}, spectrum {would_see(detail['low'], detail['high'])}"
    kept, moved = structure["verdict"].item() == "minimal", structure["verdict"].item() == "changed"
    gained, sharper = float(detail["high"]) < 0, float(sharp["low"]) > 0
    if lost and kept and sharper:
        here = f"the fine spectrum is farther off, but by being sharper: nothing is shown to be lost. {here}"
        return Verdict(PARTLY, here, seen=seen)
    said = HOLDS if lost and kept else FAILS if moved or gained else UNKNOWN
    return Verdict(said, here, seen=seen)


def random_does_nothing(evidence: Evidence) -> Verdict:
    """All measures after zeroing random channels of the same block."""
    found = _disruption(evidence).sel(arm=f"random {evidence.setup.block}")
    verdicts = verdicts_of(found)
    said = FAILS if "changed" in verdicts.values() else HOLDS if set(verdicts.values()) == {"minimal"} else UNKNOWN
    return Verdict(said, by_measure(found, verdicts), seen=all_seen(found, verdicts))


def norm_alone(evidence: Evidence) -> Verdict:
    """The effect of LayerNorm's change of scale, without the loss of channels."""
    found, block = _disruption(evidence), evidence.setup.block
    if f"norms_kept {block}" not in found["arm"].to_numpy():
        return Verdict(UNKNOWN, "not measured: this model's blocks have no LayerNorm without weights of its own.")
    parts = []
    for kind, said in (("zero", "zeroed"), ("norms_kept", "zeroed, scale kept"), ("norms_as_if_zero", "scale alone")):
        structure, sharp = (found.sel(arm=f"{kind} {block}", measure=name) for name in ("structure", "sharpness"))
        parts.append(f"{said}: structure {within(structure)}, sharpness {within(sharp)}")
    return Verdict(MEASURED, f"block {block}; " + "; ".join(parts) + ".")


def collapses(evidence: Evidence) -> Verdict:
    """Structure after zeroing the top and the lowest channels of every block."""
    found = evidence.experiment("collapse").result("collapse").sel(measure="structure")
    k = int(found["k"].max())
    top, lowest = (found.sel(kind=kind, k=k) for kind in ("top", "lowest"))
    curve = ", ".join(f"{value:.2g}" for value in found["value"].sel(kind="top").to_numpy())
    here = (
        f"{k} channels of every block: structure moves by {within(top)} of the way to another prompt's picture, the lowest "
        f"{within(lowest)}; the difference {within(top, 'over_lowest')}. Top channels by k: {curve}."
    )
    values = [float(one) for one in (top["low"], top["high"], lowest["high"], top["over_lowest_low"], top["over_lowest_high"])]
    if not np.isfinite(values).all():
        return Verdict(UNKNOWN, here)
    low, high, marginal, over_low, over_high = values
    fell = low >= COLLAPSE and marginal < COLLAPSE and over_low > 0
    said = HOLDS if fell else FAILS if high < COLLAPSE or over_high <= 0 else UNKNOWN
    return Verdict(said, here, seen=would_see(over_low, over_high))


def doses(evidence: Evidence) -> Verdict:
    """The doses at which each paper's claim holds."""
    found = evidence.experiment("dose").result("dose")
    kinds, outcomes = found["kind"].to_numpy().astype(str), found["outcome"].to_numpy().astype(str)
    parts, more = [], []
    for word in WORDS:
        counts = [
            [int(((kinds == kind) & (outcomes == word)).sum()), int((kinds == kind).sum())] for kind in ("massive", "random")
        ]
        (one, of), (other, of_other) = counts
        p = stats.fisher_exact([[one, of - one], [other, of_other - other]], alternative="greater").pvalue
        more.append(bool(p < 0.05))
        parts.append(f"{word}: {one} of {of} doses of the largest channels, {other} of {of_other} of random ones (p {p:.2g})")
    amounts = [found["amount"].to_numpy()[(kinds == "massive") & (outcomes == word)] for word in WORDS]
    ordered = all(len(amount) for amount in amounts) and float(amounts[0].max()) < float(amounts[1].min())
    parts.append("doses share prompts, so that p is a guide alone")
    said = (HOLDS if ordered else PARTLY) if all(more) else PARTLY if any(more) else UNKNOWN
    return Verdict(said, "; ".join(parts) + ".")


def carries_the_prompt(evidence: Evidence) -> Verdict:
    """How far a source's massive channels move the target's picture."""
    found = evidence.experiment("transport").result("transport").sel(metric="picture").isel(strength=-1)
    massive, everything = found.sel(channels="massive"), found.sel(channels="all")
    against = found["over"].assign_coords(low=found["over_low"], high=found["over_high"])
    beside = ", ".join(f"{name} {float(found['moved'].sel(channels=str(name))):.3g}" for name in against["against"].to_numpy())
    here = (
        f"channels {evidence.channels} at every block and step move the picture {within(massive, 'moved')} of the way to the "
        f"source's; controls: {beside}; all channels {float(everything['moved']):.3g}."
    )
    low, high = float(massive["moved_low"]), float(massive["moved_high"])
    more, less = against["low"].to_numpy(), against["high"].to_numpy()
    if not np.isfinite([low, high, *more]).all():
        return Verdict(UNKNOWN, here)
    seen = f"{would_see(low, high)} of the way, {would_see(more, less)} more than a control"
    if (more > 0).all():
        return Verdict(HOLDS if low > CARRIES else FAILS if high < NEGLIGIBLE else PARTLY, here, seen=seen)
    return Verdict(FAILS if high < NEGLIGIBLE or (less < 0).any() else UNKNOWN, here, seen=seen)


def patched(evidence: Evidence) -> Verdict:
    """Recovery with the clean prompt's massive channels in the corrupted run, block by block."""
    found = evidence.experiment("patch").result("patching_picture").isel(column=0)
    names = {"hidden": "the whole state", "massive": "the massive channels", "control": "ordinary ones"}
    parts = [f"{said} {span(found['recovered'].sel(what=what))}" for what, said in names.items()]
    return Verdict(MEASURED, f"one block, all steps, recovered of the clean picture: {', '.join(parts)}.")


def timestep_by_intervention(evidence: Evidence) -> Verdict:
    """Effects of swapping the timestep and the text conditioning at fixed latents."""
    both = evidence.experiment("swap").result("swap")
    found, control = both.sel(set="massive"), both.sel(set="control")
    time = found.sel(factor="timestep")
    texts = found.sel(factor=[name for name in ("pooled", "tokens") if name in found["factor"].to_numpy()])
    here = (
        f"given the other timestep, the size moves by {span(time['moved'])} in log2, another prompt's text by "
        f"{span(texts['moved']) if texts.sizes['factor'] else 'nothing'} (root mean squares over prompts, by block)."
    )
    if not texts.sizes["factor"]:
        return Verdict(HOLDS, "by construction: this model receives no text. " + here)
    apart = time["moved_low"].to_numpy() > texts["moved_high"].max("factor").to_numpy()
    ratio, ordinary = (
        (one["moved"].sel(factor="timestep") / one["moved"].sel(factor=texts["factor"]).max("factor")).to_numpy()
        for one in (found, control)
    )
    here += f" Timestep over text: {span(ratio)}, of ordinary channels {span(ordinary)}."
    above = apart & (ratio > ordinary)
    below = time["moved_high"].to_numpy() < texts["moved_low"].max("factor").to_numpy()
    return by_all(above, below, here, would_see(time["moved_low"], time["moved_high"]))


def lensed(evidence: Evidence) -> Verdict:
    """Distance of every block's picture to the final one."""
    found = evidence.experiment("lens").result("lens").sel(measure="structure")
    whole = found.isel(kind=0, step=found.sizes["step"] // 2)
    values = ", ".join(f"{value:.2g}" for value in whole["value"].to_numpy())
    return Verdict(MEASURED, f"step {int(whole['step'])}: structure's distance to the final picture by block: {values}.")


def verdicts_of(found: xr.Dataset, of: str = "value") -> dict[str, str]:
    """The verdict of every measure that has a value."""
    measures = [str(m) for m in found["measure"].to_numpy()]
    return {m: str(found["verdict"].sel(measure=m).item()) for m in measures if np.isfinite(found[of].sel(measure=m))}


def by_measure(found: xr.Dataset, verdicts: dict[str, str], estimate: str = "") -> str:
    """Each measure with its estimate and verdict, and those without a value."""
    parts = [f"{m.replace('_', ' ')} {within(found.sel(measure=m), estimate)}: {said}" for m, said in verdicts.items()]
    others = [str(m).replace("_", " ") for m in found["measure"].to_numpy() if m not in verdicts]
    return "; ".join([*parts, *([f"not measured: {', '.join(others)}"] if others else [])]) + "."


def all_seen(found: xr.Dataset, measures: Iterable[str], prefix: str = "") -> str:
    """What would have been seen of each measure."""
    each = ((m, would_see(*(found[f"{prefix}{end}"].sel(measure=m) for end in ("low", "high")))) for m in measures)
    return ", ".join(f"{m.replace('_', ' ')} {size}" for m, size in each if size)
