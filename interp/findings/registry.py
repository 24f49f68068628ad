"""Every claim that a campaign judges: the paper's statement, the rule, and the experiments it needs."""

from __future__ import annotations

from interp.findings import caused, observed
from interp.findings.caused import CARRIES, COLLAPSE, LEFT, NOTHING
from interp.findings.claims import DG, FC, SPARK, Claim
from interp.findings.observed import FEW, STEADY, SURE, TOKENS

_HELPS = (
    "holds: a measure of detail is better, after correction, none is worse, by itself either, and the prompt is measured and "
    "every measure of it better or no different; "
    "in part: better in one, worse in another; fails: worse and nothing better"
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "few channels",
        "one or two fixed channels are massive, far above the rest",
        f"{DG}, 4.1",
        f"holds: at most 2 (or {FEW:.0%} of the channels) by the criterion, one in {SURE:.0%} of resamples; fails: none",
        ("crossed",),
        observed.few_channels,
    ),
    Claim(
        "every block",
        "they are massive in every block",
        f"{DG}, Figs. 3a, 10-12",
        f"holds: all selected in every block, in {SURE:.0%} of resamples; fails: none of them is; in part: some of them",
        ("crossed",),
        observed.every_block,
    ),
    Claim(
        "every token",
        "they are massive in every token",
        f"{DG}, 4.1, Fig. 2",
        f"holds: the smallest token, mean over samples, is {TOKENS:g} times the median channel in all blocks since birth; "
        "fails: in none",
        ("crossed",),
        observed.every_token,
    ),
    Claim(
        "steady over prompts",
        "their magnitude is nearly constant over prompts",
        f"{DG}, Fig. 4b",
        f"holds: coefficient of variation below {STEADY:g}, whole interval, all steps, blocks since birth; fails: above in all",
        ("crossed",),
        observed.steady_over_prompts,
    ),
    Claim(
        "grows",
        "their magnitude grows steadily as the timestep falls to 0",
        f"{DG}, Fig. 4b",
        "holds: rank correlation with the timestep below 0, whole interval, all blocks since birth; fails: above 0 in all",
        ("crossed",),
        observed.grows,
    ),
    Claim(
        "timestep, not text",
        "set by the timestep; the text has negligible influence",
        f"{DG}, 4.1",
        "holds: all terms with the prompt proved below 5% in all blocks since birth; in part: the timestep more than half; "
        "fails: less than half, whole intervals",
        ("crossed",),
        observed.text_negligible,
    ),
    Claim(
        "gates by timestep",
        "so are the gates",
        f"{DG}, 4.1",
        "holds: the timestep's Shapley share of alpha above half in all gates, exact for these prompts; fails: in none",
        ("crossed", "gates"),
        observed.gates_by_timestep,
    ),
    Claim(
        "alpha peaks",
        "alpha has its peak at the massive channel",
        f"{DG}, Fig. 4a",
        f"holds: among the first {FEW:.0%} of |alpha| in all gates; fails: in none",
        ("crossed",),
        observed.alpha_peaks,
    ),
    Claim("who writes", "-", "-", "-", ("crossed",), observed.who_writes),
    Claim("same set", "-", "-", "-", ("crossed",), observed.same_set),
    Claim(
        "energy",
        "8 channels hold most of the energy",
        SPARK,
        "holds: more than half, whole intervals, in all blocks; fails: less in all",
        ("crossed",),
        observed.energy_of_eight,
    ),
    Claim(
        "subject in clusters",
        "tokens clustered on the top channels are subject and background, above random channels",
        FC,
        "holds: in half of the blocks or more the top channels' interval lies above random ones' and above trivial masks; "
        "fails: below them",
        ("states",),
        observed.subject_in_clusters,
    ),
    Claim(
        "early, all sizes",
        "they emerge early in training and in all sizes",
        f"{DG}, Figs. 3b, 3c",
        "in part: in some other checkpoint or size a channel is massive (which of the two, the name says); fails: in none",
        ("others",),
        observed.early_and_in_all,
    ),
    Claim(
        "alpha governs",
        "alpha governs the massive channels",
        f"{DG}, 4.1",
        f"holds: some one gate's alpha taken away leaves less than {LEFT:g} of the size at the last block; else cannot tell: "
        "gates may act together",
        ("govern",),
        caused.alpha_governs,
    ),
    Claim(
        "detail goes",
        "zeroed in one block, detail goes and structure stays",
        f"{DG}, 4.2",
        "holds: structure proved minimal and the fine spectrum changed for the worse; in part: the "
        "same, but sharper than before; fails: structure changed, or the spectrum nearer to the reference",
        ("disrupt",),
        caused.detail_goes,
    ),
    Claim(
        "random does nothing",
        "random channels zeroed do nothing",
        f"{DG}, 4.2",
        "holds: every measure proved minimal; fails: any changed",
        ("disrupt",),
        caused.random_does_nothing,
    ),
    Claim("norm alone", "-", "-", "-", ("disrupt",), caused.norm_alone),
    Claim(
        "collapse",
        "top channels zeroed: collapse; the lowest: marginal",
        FC,
        f"holds: structure moves by {COLLAPSE:g} of another prompt's or more, whole interval, the lowest less, and the "
        "difference is above 0; fails: less, or no difference",
        ("collapse",),
        caused.collapses,
    ),
    Claim(
        "two doses",
        "small doses take detail alone (DG), large ones the picture (FC)",
        f"{DG}; {FC}",
        "holds: both outcomes come more often with the largest channels than with random ones (Fisher's exact test, 5%), and "
        "every dose of the first is smaller than any of the second; in part: one comes more often, or the order is another",
        ("dose",),
        caused.doses,
    ),
    Claim(
        "carries the prompt",
        "massive channels carry the prompt: transport moves the target to the source",
        FC,
        f"holds: more than {CARRIES:g} of the way, whole interval, and more than a control; in part: more than a control; "
        f"fails: less than {NOTHING:g}",
        ("transport",),
        caused.carries_the_prompt,
    ),
    Claim("patched", "-", "-", "-", ("patch",), caused.patched),
    Claim(
        "timestep, by intervention",
        "set by the timestep, not the text",
        f"{DG}, 4.1",
        "holds: the timestep moves the size more than any text, intervals apart, in all blocks; fails: less in all",
        ("swap",),
        caused.timestep_by_intervention,
    ),
    Claim("lens", "-", "-", "-", ("lens",), caused.lensed),
    Claim(
        "DG helps",
        "Detail Guidance improves detail and keeps the prompt",
        f"{DG}, Table 1",
        _HELPS,
        ("guidance",),
        caused.dg_helps,
    ),
    Claim("DG helps CFG", "so it does beside CFG", f"{DG}, Table 1", _HELPS, ("guidance",), caused.dg_helps_cfg),
)
