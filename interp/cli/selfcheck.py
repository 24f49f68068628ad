"""`interp selfcheck`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated

import typer
from rich.filesize import decimal

from interp.base.errors import InterpWarning, TraceError
from interp.base.options import Loading
from interp.cli.console import print_json
from interp.cli.results import AsJson


def selfcheck(
    loading: Loading,
    steps: Annotated[int, typer.Option(help="Sampling steps of each run.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Check on this machine and these weights that traces are correct: PASS or FAIL lines, exit 1 on a FAIL."""
    from interp.base.plan import at_least
    from interp.testing import selfcheck as run_checks
    from interp.tracing.model import load

    at_least("steps", steps, 1)
    loaded = load(**vars(loading))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)  # about the package's example prompts
        report = run_checks(loaded, steps=steps)
    checks = report.checks
    if as_json:
        values = [{**dataclasses.asdict(check), "passed": check.passed} for check in checks]
        costs = {"seconds_a_step": report.seconds_a_step, "bytes_a_prompt": report.bytes_a_prompt, "steps": report.steps}
        print_json({"model": loading.model, "passed": report.passed, "checks": values, **costs})
    else:
        for check in checks:
            verdict = "PASS" if check.passed else "FAIL"
            print(f"{verdict}  {check.name}: {check.value:.3g} (limit {check.limit:g}); {check.about}")
        cost = f"{report.steps * report.seconds_a_step:.1f} s and {decimal(int(report.bytes_a_prompt))} before compression"
        print(f"a prompt of {report.steps} steps with statistics and gates: about {cost}")
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise TraceError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
