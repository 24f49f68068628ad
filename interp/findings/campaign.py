"""Run all experiments, then judge all claims. The same call resumes a stopped campaign.

claims.csv has the papers' statements, the rules in words, and the experiments they need. A row's `judge` is the rule, a
function of `observed`, `caused`, `helped` or `videos`; names in curly brackets are constants of these modules.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interp.analysis.table import DG, FC
from interp.base.errors import InputError
from interp.base.executor import Execution, OnProgress, Stopped
from interp.base.options import Sampling
from interp.evaluation.prompt_sets import PromptSet
from interp.evaluation.scorer import Scorer
from interp.experiments.clean import sample
from interp.findings import caused, helped, observed, videos
from interp.findings.claims import UNKNOWN, Claim, Evidence, Verdict
from interp.findings.setup import Setup
from interp.findings.stages import STAGES, Pace, Stage
from interp.models.quiet import quiet
from interp.runs.run import execute, provenance
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

TABLE = Path(__file__).parent / "claims.csv"
OnStage = Callable[[int, int, Stage], None]


def read_claims() -> Iterator[Claim]:
    """The claims of the table, in its order."""
    rules = {**vars(observed), **vars(caused), **vars(helped), **vars(videos)}
    words = {**rules, "DG": DG, "FC": FC}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            source, rule = (row[name].format_map(words) for name in ("source", "rule"))
            yield Claim(
                row["name"],
                row["claim"],
                source,
                rule,
                tuple(row["needs"].split()),
                rules[row["judge"]],
                tuple(row["requires"].split()),
            )


CLAIMS: tuple[Claim, ...] = tuple(read_claims())


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim and its verdict."""

    claim: Claim
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Campaign:
    """A model's claims and scorers, ready to run."""

    setup: Setup
    claims: tuple[Claim, ...]
    scorers: tuple[Scorer, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The experiments that the claims need, in order; the first one selects the channels."""
        wanted = {name for claim in self.claims for name in claim.needs} | {"crossed"}
        if not self.setup.others:
            wanted -= {"others"}
        if self.setup.masks is None:  # only segmentation reads them, and they are the largest store
            wanted -= {"states"}
        if not self.setup.model.anatomy.generated.in_frames:
            wanted -= {"frames"}
        return tuple(stage for stage in STAGES if stage.name in wanted)

    def cost(self) -> dict[str, float]:
        """Upper bound of forwards of one row, by stage."""
        return {stage.name: float(stage.most(self.setup)) for stage in self.stages}

    def pace(self) -> Pace:
        """Speed of drawing and tracing on this machine: the shorter of two runs, to reduce the effect of other load."""
        few = self.setup.texts[: self.setup.batch_size]
        one, all_of_them = (prepare(self.setup.model, texts, **self.setup.sampling) for texts in (few[:1], few))
        steps = len(one.schedule.timesteps)
        drawn = min(_seconds(lambda: sample(all_of_them, all_of_them.plan.rows())) for _ in range(2)) / len(few) / steps
        first, whole = (min(self._traced(prepared) for _ in range(2)) for prepared in (one, all_of_them))
        traced = max((whole - first) / (len(few) - 1), 0.0) / steps if len(few) > 1 else first / steps
        return Pace(drawn, max(traced, drawn), max(first - traced * steps, 0.0) if len(few) > 1 else 0.0)

    def _traced(self, prepared: Prepared) -> float:
        with tempfile.TemporaryDirectory() as folder, quiet():
            return _seconds(lambda: execute(prepared, Path(folder) / "pace.zarr", Execution(self.setup.batch_size)))

    def run(
        self,
        *,
        on_stage: OnStage = lambda number, total, stage: None,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> list[Judged]:
        """Run what is missing and judge every claim."""
        self.setup.claim()
        for number, stage in enumerate(self.stages):
            on_stage(number + 1, len(self.stages), stage)
            stage.run(self.setup, Execution(self.setup.batch_size, on_progress=on_progress, stopped=stopped))
        evidence = self.evidence
        return [Judged(claim, judge(claim, evidence)) for claim in self.claims]

    @property
    def evidence(self) -> Evidence:
        """The results so far."""
        return Evidence(self.setup, self.scorers)

    def facts(self) -> dict[str, Any]:
        """The model, prompts and settings that the verdicts apply to."""
        scorers = [f"{m.name}" for one in self.scorers for m in one.measures]
        weights = [text for one in self.scorers for text in getattr(one, "weights", {}).values()]
        said = {"scorers": ", ".join(scorers), "metric_weights": "; ".join(weights)}
        return {**self.setup.to_json(), **said, "provenance": provenance(self.setup.model, self.setup.batch_size)}


def _seconds(do: Callable[[], Any]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """The claim's verdict. If its analysis does not apply to this model, the verdict is "cannot tell" with the reason.

    What a network does that draws no pictures of its prompts is shown, and no verdict on a claim about models that do.
    """
    try:
        for name in claim.requires:
            if reason := evidence.lacks(name):
                measured = f" Measured: {claim.judge(evidence).here}" if name == "pictures" else ""
                return Verdict(UNKNOWN, reason + measured)
        return claim.judge(evidence)
    except InputError as error:
        return Verdict(UNKNOWN, f"not asked of this model: {error}.")


def campaign(
    model: Model,
    prompts: PromptSet,
    folder: str | Path,
    *,
    only: Sequence[str] | None = None,
    scorers: Sequence[Scorer] = (),
    **given: Any,
) -> Campaign:
    """Prepare all findings, or those in `only`; `given`: fields of `Setup` and `Sampling`, such as budget, masks or steps."""
    names = [claim.name for claim in CLAIMS]
    for name in only or ():
        if name not in names:
            raise InputError(f"only must name findings: {', '.join(names)}; got {name!r}")
    chosen = tuple(claim for claim in CLAIMS if only is None or claim.name in only)
    sampled = {field.name: given.pop(field.name) for field in dataclasses.fields(Sampling) if field.name in given}
    drawn = dataclasses.replace(given.pop("drawn", Sampling(repeats=2)), **sampled)
    return Campaign(Setup(model, prompts, Path(folder), drawn, **given), chosen, tuple(scorers))


def counted(judged: Sequence[Judged]) -> dict[str, int]:
    """Number of claims by verdict."""
    said = [one.verdict.said for one in judged]
    return {word: said.count(word) for word in dict.fromkeys([*said, UNKNOWN])}
