"""The tree of errors. Every message names the field, the rule, the value, and what to type next.

InterpError                 anything this package raises on purpose
├── InputError              what was asked cannot be done as asked          (exit code 2)
│   ├── ModelError          a model that cannot be found, loaded or traced
│   └── PlanError           a store that holds another run
└── RunError                what was asked began and failed                 (exit code 1)
    ├── TraceError          a trace that saw too little, or a state that is not finite
    │   └── PipelineError   the pipeline itself raised on some prompts
    └── StoreError          a store that cannot be read or written
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


class InterpError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(InterpError):
    """What was asked cannot be done as asked."""

    exit_code = 2


class ModelError(InputError):
    """A model that cannot be found, loaded or traced."""


class PlanError(InputError):
    """A store that holds another run than the one asked for."""


class RunError(InterpError):
    """What was asked began and failed."""


class TraceError(RunError):
    """A trace that saw too little, or a state that is not finite."""


class PipelineError(TraceError):
    """The pipeline itself raised on some prompts."""


class StoreError(RunError):
    """A store that cannot be read or written."""

    reason: str = ""
    """What the system or a codec said, where that is known."""


class InterpWarning(UserWarning):
    """Something was asked that has no effect, or that changes what numbers mean."""
