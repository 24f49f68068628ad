"""Results of an evaluation as tables, for the terminal, JSON and pages."""

from __future__ import annotations

from interp.analysis.table import Table

PICTURES = Table(
    ("measure", "setting"),
    {
        "measure": "measure",
        "setting": "setting",
        "value": "value",
        "interval": ("low", "high"),
        "less the baseline": "over",
        "its interval": ("over_low", "over_high"),
        "wins": "win",
        "wins, interval": ("win_low", "win_high"),
        "p, Holm": "p_holm",
        "effect": "effect",
        "verdict": "verdict",
    },
)
"""Every measure of pictures under every setting."""
SETS = Table(
    ("set_measure", "setting"),
    {"measure of sets": "set_measure", "setting": "setting", "value": "set_value", "interval": ("set_low", "set_high")},
)
"""Every measure of sets under every setting."""
PAPERS = Table(
    ("setting",),
    {"setting": "setting", "the paper, on its own models and prompts": "paper"},
    keep=lambda one: "paper" in one.coords and one["paper"].item(),
)
"""The paper's published numbers for each setting that has some; not measured here."""
