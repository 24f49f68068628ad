"""The tree of errors. Every message names the field, the rule, the value, and what to type next.

InterpError                 every error that this package raises on purpose
├── InputError              invalid arguments or input files                (exit code 2)
│   ├── ModelError          a model that cannot be found, loaded or traced
│   └── PlanError           a store that holds another run
└── RunError                a run that started and failed                   (exit code 1)
    ├── TraceError          a trace that saw too little, or a state that is not finite
    │   └── PipelineError   the pipeline itself raised on some prompts
    └── StoreError          a store that cannot be read or written
"""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Such as "1 row" and "1,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


class InterpError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class InputError(InterpError):
    """Invalid arguments or input files."""

    exit_code = 2


class ModelError(InputError):
    """A model that cannot be found, loaded or traced."""


class PlanError(InputError):
    """A store that holds another run than the requested one."""


class RunError(InterpError):
    """A run that started and failed."""


class TraceError(RunError):
    """A trace that saw too little, or a state that is not finite."""


class PipelineError(TraceError):
    """The pipeline itself raised on some prompts."""


class StoreError(RunError):
    """A store that cannot be read or written."""

    reason: str = ""
    """The error message of the system or of a codec, if there is one."""


class InterpWarning(UserWarning):
    """An argument has no effect, or changes the meaning of numbers."""
