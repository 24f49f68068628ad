"""Test the papers' findings on one model: experiments, rules, verdicts. `interp findings` runs it."""

from __future__ import annotations

from interp.findings.campaign import Campaign, campaign

__all__ = ["Campaign", "campaign"]
