"""Numbers that the papers publish (published.csv): shown next to measured numbers, always marked as published."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

DG = "Detail Guidance, arXiv 2510.11538"
FC = "Few Channels, arXiv 2605.13974"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A published result."""

    topic: str
    """The analysis that measures the same."""
    claim: str
    model: str
    value: str
    source: str


with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
    PUBLISHED = tuple(Finding(**row) for row in csv.DictReader(file))


def about(topic: str) -> list[Finding]:
    """The published results on one topic."""
    return [finding for finding in PUBLISHED if finding.topic == topic]
