"""The `interp` command. Data on stdout, everything else on stderr; exit 0, 2 for bad input, 1 for a failure."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from typing import Any

import typer
from typer.exceptions import TyperException

from interp.base.errors import InputError, InterpError, InterpWarning
from interp.cli import demo, evaluate, experiments, findings, generate, models, questions, stores, trace
from interp.cli.flags import flags
from interp.experiments.kinds import registered
from interp.questions import QUESTIONS

app = typer.Typer(
    help="Mechanistic interpretability for Diffusion Transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts contain literal brackets
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Add --debug anywhere on the line to show the traceback of an error.",
)
app.command("trace")(flags(trace.trace))
app.command("info")(stores.info)
app.command("models")(models.models)
app.command("selfcheck")(flags(models.selfcheck))
app.command("inspect")(models.inspect)
for question in QUESTIONS:
    app.command(question.name)(questions.command(question))
app.command("verify")(flags(stores.verify))
app.command("merge")(stores.merge)
app.command("export")(stores.export)
app.command("compare")(questions.compare)
app.command("generate")(flags(generate.generate))
app.command("evaluate")(flags(evaluate.evaluate))
app.command("report")(stores.report)
app.command("findings")(flags(findings.findings))
app.command("dashboard")(stores.dashboard)
app.add_typer(demo.app, name="demo")


def add_experiments() -> None:
    """Add the missing commands of experiments: those of this package, then those registered since."""
    known = {command.name for command in app.registered_commands}
    for name, kind in registered().items():
        if name not in known:
            app.command(name)(experiments.command(kind))


@app.callback()
def interp() -> None:
    """Trace, analyse, edit and guide Diffusion Transformers."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. An error is one line, with a traceback only under --debug."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    add_experiments()
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", InterpWarning)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few characters
    try:
        code = app(args=_checked(words), prog_name="interp", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except TyperException as error:  # click's ClickException: wrong options, missing arguments
        _fail(_usage_message(error), getattr(error, "exit_code", 2), debug)
    except InterpError as error:
        _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; finished rows are kept, the same command resumes", 130, debug)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; finished rows are kept, the same command resumes", 1, debug)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (this is a defect in interp; --debug shows the traceback)", 1, debug)


def _checked(words: list[str]) -> list[str]:
    """The words of a command line, `~` expanded; refused where no command can work."""
    if not __debug__:
        raise InputError("interp does not work under python -O: zarr, which it stores with, needs assertions; leave out -O")
    if any("memory:/" in word for word in words):
        raise InputError("memory:// is lost when the command ends; give a folder, or another URL")
    return [_at_home(word) for word in words if word != "--debug"]


def _at_home(word: str) -> str:
    name, equals, value = word.partition("=")
    if name.startswith("--") and value.startswith("~"):
        return f"{name}{equals}{os.path.expanduser(value)}"
    return os.path.expanduser(word) if word.startswith("~") else word


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"interp: {message}", file=sys.stderr)
    sys.exit(code)


def _usage_message(error: Any) -> str:
    """The error in one line with a pointer to the help; a bare `interp` has already printed its help."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    where = f"see `{context.command_path} --help`" if context is not None else "see `interp --help`"
    return f"{message} ({where})" if message else where


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    if issubclass(category, InterpWarning):
        print(f"interp: warning: {message}", file=sys.stderr)
