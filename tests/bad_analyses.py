"""Bad input of the analyses' commands: the rest of the table of `bad_inputs.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bad_inputs import TRACE, Case, places, run


def traced(*more: str) -> Callable[[Path], None]:
    """A finished store of one prompt, or what else was asked for."""

    def prepare(folder: Path) -> None:
        run([*TRACE.format(**places(folder)).split(), *more])

    return prepare


def two_prompts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red cat\na blue dog\n")
    run(TRACE.format(**places(folder)).split())


def one_step(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red cat\na blue dog\n")
    run([*TRACE.format(**places(folder)).split(), "--steps", "1"])


STORE = traced()
GATES = "gates --model {tiny} --prompts {prompts}"

CASES = [
    Case("analysis of nothing", "massive {folder}/no.zarr", "does not exist; make one with `interp trace"),
    Case("unknown criterion", "massive {out} --criterion best", "criterion must be one of robust, ratio, top", prepare=STORE),
    Case("criterion without a number", "massive {out} --criterion top:many", "criterion top takes a number", prepare=STORE),
    Case("more channels than there are", "massive {out} --criterion top:99", r"k must lie in 1..32; got 99", prepare=STORE),
    Case(
        "channel out of range",
        "massive {out} --channels 32",
        r"channels must lie in -32..31 \(there are 32\); got 32",
        prepare=STORE,
    ),
    Case("channels are words", "massive {out} --channels all", 'channels must read like "0,6,12-20"', prepare=STORE),
    Case("unknown stream", "massive {out} --stream speech", "stream must be one of image, text; got 'speech'", prepare=STORE),
    Case("step out of range", "massive {out} --steps 7", r"steps must lie in -4..3 \(there are 4\); got 7", prepare=STORE),
    Case(
        "unknown kind of figure",
        "massive {out} --figures {folder}/f --format pdf",
        "format must be one of html, png, svg; got 'pdf'",
        prepare=STORE,
    ),
    Case(
        "two_sigma without hidden states",
        "massive {out} --criterion two_sigma",
        "keeps no hidden states; record=Record",
        1,
        STORE,
    ),
    Case(
        "no massive channel, and none named",
        "attribute {out}",
        "channels must be given: no channel of the image stream",
        2,
        STORE,
    ),
    Case(
        "timestep or text from one prompt",
        "attribute {out} --channels 3",
        "needs at least two different prompt texts",
        2,
        STORE,
    ),
    Case(
        "timestep or text from one step",
        "attribute {out} --channels 3",
        "needs at least two steps; this run has one",
        2,
        one_step,
    ),
    Case(
        "margin out of range",
        "attribute {out} --channels 3 --margin 2",
        "margin must lie between 0 and 1; got 2.0",
        2,
        two_prompts,
    ),
    Case("alignment without gates", "alignment {out}", "keeps no AdaLN gates; record=Record", 1, traced("--record", "stats")),
    Case("overlap of no channels", "alignment {out} --k 0", r"k must lie in 1..32; got 0", prepare=STORE),
    Case("residual without branches", "residual {out} --channels 3", "--record stats,gates,branches", 1, STORE),
    Case("segment without hidden states", "segment {out} --channels 3", "--record stats,gates,hidden", 1, STORE),
    Case(
        "segment without true masks",
        "segment {out} --channels 3 --masks {folder}/tiny",
        "has none for row 0; it must be called 00000-mask.png",
        2,
        traced("--record", "stats,hidden"),
    ),
    Case(
        "segment from some of the tokens' steps",
        "segment {out} --channels 3 --steps 0",
        "steps must be one of those stored",
        2,
        traced("--record", "stats,hidden", "--record-steps", "2,3"),
    ),
    Case("comparison of one run", "compare {out}", "runs must be two or more to be compared; got 1", prepare=STORE),
    Case(
        "two runs of one name", "compare {out} {out}", "labels must be as many as runs \\(2\\) and all different", prepare=STORE
    ),
    Case("guidance where none is embedded", GATES + " --guidance 1,4", "has no embedded guidance"),
    Case("guidance in words", GATES + " --guidance strong", 'guidance must be numbers such as "1,3.5,7"'),
    Case("one timestep", GATES + " --timesteps 1", "timesteps must be at least 2; got 1"),
    Case("gates' channel out of range", GATES + " --channels 99", r"channels must lie in -32..31"),
]
