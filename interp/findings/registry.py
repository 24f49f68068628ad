"""Every claim that a campaign judges. claims.csv has the papers' statements, the rules in words, and the experiments they need.

A row's `judge` is the rule, a function of `observed` or `caused`; names in curly brackets are constants of these modules.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from interp.analysis.table import DG, FC
from interp.findings import caused, observed
from interp.findings.claims import Claim

TABLE = Path(__file__).parent / "claims.csv"


def read_claims() -> Iterator[Claim]:
    """The claims of the table, in its order."""
    rules = {**vars(observed), **vars(caused)}
    words = {**rules, "DG": DG, "FC": FC}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            source, rule = (row[name].format_map(words) for name in ("source", "rule"))
            yield Claim(row["name"], row["claim"], source, rule, tuple(row["needs"].split()), rules[row["judge"]])


CLAIMS: tuple[Claim, ...] = tuple(read_claims())
