"""Bad input of the analyses' commands: the rest of the table of `bad_inputs.py`."""

from __future__ import annotations

from pathlib import Path

from bad_inputs import Case, finished_store, traced

STORE = traced()
GATES = "gates --model {tiny} --prompts {prompts}"


def two_prompts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red cat\na blue dog\n")
    STORE(folder)


def one_step(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red cat\na blue dog\n")
    finished_store(folder)


CASES = [
    Case("analysis of nothing", "massive {folder}/no.zarr", ("store", "FOLDER/no.zarr", "interp trace --out FOLDER/no.zarr")),
    Case(
        "unknown criterion",
        "massive {out} --criterion best",
        ("criterion", "best", "robust", "ratio", "top", "two_sigma", "top:12"),
        prepare=STORE,
    ),
    Case(
        "criterion without a number",
        "massive {out} --criterion top:many",
        ("criterion", "top", "many", "top:10"),
        prepare=STORE,
    ),
    Case("more channels than there are", "massive {out} --criterion top:99", ("k", 99, "1..32"), prepare=STORE),
    Case(
        "channel out of range",
        "massive {out} --channels 32",
        ("channels", 32, "-32..31"),
        prepare=STORE,
    ),
    Case("channels are words", "massive {out} --channels all", ("channels", "all", "0,6,12-20"), prepare=STORE),
    Case("unknown stream", "massive {out} --stream speech", ("stream", "speech", "image", "text"), prepare=STORE),
    Case("step out of range", "massive {out} --steps 7", ("steps", 7, "-4..3"), prepare=STORE),
    Case(
        "unknown kind of figure",
        "massive {out} --figures {folder}/f --format pdf",
        ("format", "pdf", "html", "png", "svg"),
        prepare=STORE,
    ),
    Case(
        "two_sigma without hidden states",
        "massive {out} --criterion two_sigma",
        ("FOLDER/out.zarr", "hidden", "Record(hidden=True)", "--record stats,gates,hidden"),
        1,
        STORE,
    ),
    Case(
        "no massive channel, and none named",
        "attribute {out}",
        ("channels", "image", "robust(rate=0.05)", "--channels", "--criterion"),
        2,
        STORE,
    ),
    Case(
        "timestep or text from one prompt",
        "attribute {out} --channels 3",
        ("prompts", "timestep", "text"),
        2,
        STORE,
    ),
    Case(
        "timestep or text from one step",
        "attribute {out} --channels 3",
        ("steps", "timestep", "text"),
        2,
        one_step,
    ),
    Case(
        "margin out of range",
        "attribute {out} --channels 3 --margin 2",
        ("margin", 2.0, 0, 1),
        2,
        two_prompts,
    ),
    Case(
        "alignment without gates",
        "alignment {out}",
        ("FOLDER/out.zarr", "gates", "Record(gates=True)"),
        1,
        traced("--record", "stats"),
    ),
    Case("overlap of no channels", "alignment {out} --k 0", ("k", 0, "1..32"), prepare=STORE),
    Case(
        "residual without branches",
        "residual {out} --channels 3",
        ("FOLDER/out.zarr", "branches", "Record(branches=True)", "--record stats,gates,branches"),
        1,
        STORE,
    ),
    Case(
        "frames of a run without them",
        "frames {out} --channels 3",
        ("FOLDER/out.zarr", "latent frames", "Record(frames=True)", "--record stats,gates,frames"),
        1,
        STORE,
    ),
    Case(
        "segment without hidden states",
        "segment {out} --channels 3",
        ("FOLDER/out.zarr", "hidden", "Record(hidden=True)", "--record stats,gates,hidden"),
        1,
        STORE,
    ),
    Case(
        "segment without true masks",
        "segment {out} --channels 3 --masks {folder}/tiny",
        ("masks", "FOLDER/tiny", 0, "00000-mask.png", "00000.png"),
        2,
        traced("--record", "stats,hidden"),
    ),
    Case(
        "segment from some of the tokens' steps",
        "segment {out} --channels 3 --steps 0",
        ("steps", 0, "2, 3"),
        2,
        traced("--record", "stats,hidden", "--record-steps", "2,3"),
    ),
    Case("comparison of one run", "compare {out}", ("runs", 1), prepare=STORE),
    Case("two runs of one name", "compare {out} {out}", ("labels", "runs", 2, "out, out"), prepare=STORE),
    Case("guidance where none is embedded", GATES + " --guidance 1,4", ("guidance", "FOLDER/tiny", "gates")),
    Case("guidance in words", GATES + " --guidance strong", ("guidance", "strong", "0.5,1")),
    Case("one timestep", GATES + " --timesteps 1", ("timesteps", 1, 2)),
    Case("gates' channel out of range", GATES + " --channels 99", ("channels", 99, "-32..31")),
]
