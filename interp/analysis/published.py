"""The papers' own numbers, as data: shown beside ours, never as ours."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a paper says."""

    topic: str
    """The analysis of ours that speaks to it."""
    claim: str
    model: str
    value: str
    source: str


DG = "Detail Guidance, arXiv 2510.11538"
FC = "Few Channels, arXiv 2605.13974"
PUBLISHED: tuple[Finding, ...] = (
    Finding(
        "massive",
        "fixed channels, the same in every token, of mean |x| far above the others",
        "SD3",
        "channel 810",
        f"{DG}, 4.1",
    ),
    Finding("massive", "the same", "SD3.5 Large", "channel 676", f"{DG}, Table 4"),
    Finding("massive", "the same", "FLUX.1, de-distilled", "channels 154, 1446", f"{DG}, Table 4"),
    Finding("massive", "the same claim with another channel", "SD3", "channel 293", f"{DG}, Appendix D (probably an error)"),
    Finding("massive", "in all internal blocks", "SD3, SD3.5, Flux, DiT-XL", "every block", f"{DG}, Figs. 3a, 10-12"),
    Finding("trend", "magnitude grows steadily as the timestep falls to 0", "SD3", "monotone", f"{DG}, Fig. 4b"),
    Finding("trend", "nearly constant over 1,000 prompts", "SD3", "about 150", f"{DG}, Fig. 4b"),
    Finding("trend", "only from half of the timesteps on", "DiT-XL/2", "T/2", f"{DG}, Appendix C"),
    Finding("alignment", "alpha has its peak at the massive channel", "SD3", "channel 810", f"{DG}, Fig. 4a"),
    Finding("attribution", "set by the timestep, the text has negligible influence", "SD3", "no number", f"{DG}, 4.1"),
    Finding("attribution", "carried from the prompt: transport between prompts moves semantics", "FLUX.1", "no number", FC),
    Finding("comparison", "emerge early in training", "DiT-XL", "before 50,000 iterations", f"{DG}, Fig. 3b"),
    Finding("comparison", "in all model sizes", "DiT-S to XL", "all", f"{DG}, Fig. 3c"),
    Finding("disruption", "win rate of one block zeroed, HPSv2.1 and LAION-Aesthetics", "SD3", ".028, .078", f"{DG}, Fig. 5b"),
    Finding("disruption", "the same, CLIP and BLIP (the prompt)", "SD3", ".512, .462", f"{DG}, Fig. 5b"),
    Finding("disruption", "random channels zeroed: no effect", "SD3", "no number", f"{DG}, 4.2"),
    Finding("disruption", "top channels zeroed: quality and prompt collapse; lowest ones: marginal", "FLUX.1", "no number", FC),
    Finding("transport", "a source's massive channels move the target towards the source", "FLUX.1 dev", "no number", FC),
    Finding("guidance", "CFG / DG / CFG+DG on HPSv2 prompts: HPSv2.1", "SD3", "30.24 / 30.14 / 30.96", f"{DG}, Table 2"),
    Finding("guidance", "the same: LAION-Aesthetics", "SD3", "5.93 / 6.14 / 6.13", f"{DG}, Table 2"),
    Finding("guidance", "APG / CFG++ / CFG-Zero*: HPSv2.1", "SD3", "29.46 / 30.02 / 30.57", f"{DG}, Table 2"),
    Finding(
        "segmentation",
        "two clusters of tokens on top channels separate fore- and background",
        "FLUX.1 dev",
        "top above random above bottom",
        FC,
    ),
    Finding("energy", "8 channels hold most of the energy", "TSD-SR", "68.8% image, 85.6% text", "SPARK, 2026"),
    Finding("energy", "Gini of the 32 most energetic channels", "TSD-SR", "0.62 (median)", "SPARK, 2026"),
)


def about(topic: str) -> list[Finding]:
    """What the papers say of one topic."""
    return [finding for finding in PUBLISHED if finding.topic == topic]
