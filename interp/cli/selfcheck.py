"""`interp selfcheck`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated

import typer

from interp.cli.console import human_bytes, print_json
from interp.errors import InterpWarning, TraceError


def selfcheck(
    model: Annotated[str, typer.Option(help="Alias (see `interp models`), diffusers folder, or hub id.")],
    steps: Annotated[int, typer.Option(help="Sampling steps of each run.")] = 2,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    offload: Annotated[str, typer.Option(help="none, model, sequential or group.")] = "none",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Never use the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Pure JSON on stdout.")] = False,
) -> None:
    """Prove, on this machine and these weights, that traces can be believed: PASS or FAIL lines, exit 1 on a FAIL."""
    from interp.plan import at_least
    from interp.testing import selfcheck as run_checks
    from interp.tracing.model import load

    at_least("steps", steps, 1)
    loaded = load(model, dtype=dtype, device=device, revision=revision, offload=offload, local_files_only=local_files_only)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InterpWarning)  # about our own example prompts
        report = run_checks(loaded, steps=steps)
    checks = report.checks
    if as_json:
        values = [{**dataclasses.asdict(check), "passed": check.passed} for check in checks]
        costs = {"seconds_a_step": report.seconds_a_step, "bytes_a_prompt": report.bytes_a_prompt, "steps": report.steps}
        print_json({"model": model, "passed": report.passed, "checks": values, **costs})
    else:
        for check in checks:
            verdict = "PASS" if check.passed else "FAIL"
            print(f"{verdict}  {check.name}: {check.value:.3g} (limit {check.limit:g}); {check.about}")
        cost = f"{report.steps * report.seconds_a_step:.1f} s and {human_bytes(report.bytes_a_prompt)} before compression"
        print(f"a prompt of {report.steps} steps with statistics and gates: about {cost}")
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise TraceError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
