"""Bad input of the experiments' commands: the rest of the table of `bad_inputs.py`."""

from __future__ import annotations

from pathlib import Path

from bad_analyses import STORE
from bad_inputs import Case

DISRUPT = "disrupt --model {tiny} --prompts {prompts} --steps 2 --channels 3 --out {folder}/e.zarr"
DOSE = "dose --model {tiny} --prompts {prompts} --steps 2 --out {folder}/e.zarr"
PATCH = "patch --model {tiny} --clean {prompts} --corrupted {folder}/other.txt --steps 2 --channels 3 --out {folder}/e.zarr"
SWAP = "swap --model {tiny} --prompts {folder}/two.txt --steps 4 --channels 3 --out {folder}/e.zarr"
TRANSPORT = (
    "transport --model {tiny} --source {prompts} --target {folder}/other.txt --steps 2 --channels 3 --out {folder}/e.zarr"
)


def other(folder: Path) -> None:
    (folder / "other.txt").write_text("a blue dog\n")


def same(folder: Path) -> None:
    (folder / "other.txt").write_text((folder / "prompts.txt").read_text())


def more(folder: Path) -> None:
    (folder / "other.txt").write_text("a blue dog\nthe cat\n")


def two(folder: Path) -> None:
    (folder / "two.txt").write_text("a red cat\na blue dog\n")


def not_a_result(folder: Path) -> None:
    two(folder)
    (folder / "e.zarr").mkdir()
    (folder / "e.zarr" / "notes.txt").write_text("mine")


CASES = [
    Case(
        "a share that is none",
        "trace --model {tiny} --prompts {prompts} --out {out} --shard 4/4",
        ("shard", "4/4", "i/n", "3/4"),
    ),
    Case(
        "an export of no known kind",
        "export {out} --out {folder}/x.xlsx",
        ("out", "x.xlsx", ".csv", ".parquet", ".nc"),
        prepare=STORE,
    ),
    Case(
        "an export of what is not kept",
        "export {out} --out {folder}/x.csv --what hidden",
        ("what", "hidden", "stats", "gates", "branches", "summary", "analysis/NAME"),
        prepare=STORE,
    ),
    Case(
        "stores that are not there, joined",
        "merge {folder}/a.zarr --out {folder}/b.zarr",
        ("store", "FOLDER/a.zarr", "interp trace --out FOLDER/a.zarr"),
    ),
    Case(
        "a store that is not there, verified",
        "verify {folder}/a.zarr",
        ("store", "FOLDER/a.zarr", "interp trace --out FOLDER/a.zarr"),
    ),
    Case(
        "a folder of runs that is not there",
        "dashboard {folder}/none",
        ("run", "FOLDER/none", "interp trace --out FOLDER/none"),
    ),
    Case("a port that cannot be", "dashboard --port 0", ("--port", 1, "interp dashboard --help")),
    Case("block out of range", DISRUPT + " --blocks 9", ("blocks", 9, "-4..3")),
    Case("the same blocks twice", DISRUPT + " --blocks 1 --blocks 1", ("blocks", "['1', '1']")),
    Case("no draw of a control", DISRUPT + " --controls 0", ("controls", 0, 1)),
    Case("unknown reach of norm controls", DISRUPT + " --reach some", ("reach", "some", "all", "next")),
    Case(
        "real pictures that are not there", DISRUPT + " --reference {folder}/none", ("reference", "FOLDER/none", ".png", ".jpg")
    ),
    Case(
        "channels of a run that is none",
        DISRUPT + " --run {folder}/none.zarr",
        ("store", "FOLDER/none.zarr", "interp trace --out FOLDER/none.zarr"),
    ),
    Case("no massive channel, and none named for dose", DOSE + " --counts 30", ("counts", "[30]", "1..16")),
    Case("budget too small", DOSE + " --budget 3", ("budget", "doses", 3)),
    Case("unknown window", DOSE + " --windows noon", ("windows", "noon", "all", "early", "late")),
    Case("pairs of unequal length", PATCH, ("clean", "corrupted", 1, 2), prepare=more),
    Case("clean and corrupted are one prompt", PATCH, ("clean", "corrupted", "pair", 0, "a red cat"), prepare=same),
    Case(
        "unknown thing to patch",
        PATCH + " --what soul",
        ("what", "soul", "hidden", "massive", "control", "alpha", "everything"),
        prepare=other,
    ),
    Case("unknown metric", PATCH + " --metric taste", ("metric", "taste", "picture", "structure", "latents"), prepare=other),
    Case("more windows than steps", PATCH + " --windows 9", ("windows", 9, 2, "steps"), prepare=other),
    Case("windows and regions", PATCH + " --windows 2 --regions 2", ("windows", "regions", "one"), prepare=other),
    Case("too many regions", PATCH + " --regions 99", ("regions", 99, 8), prepare=other),
    Case("one prompt to swap", SWAP.replace("two.txt", "prompts.txt"), ("prompts", "two", "text")),
    Case("one step to swap", SWAP + " --pair 3", ("pair", "'3'", "4,16"), prepare=two),
    Case("late before early", SWAP + " --pair 3,1", ("pair", "[3, 1]", "0..3"), prepare=two),
    Case("a result's place is taken", SWAP, ("out", "FOLDER/e.zarr", "--out"), prepare=not_a_result),
    Case("strength in words", TRANSPORT + " --strengths much", ("strengths", "much", "0.5,1"), prepare=other),
    Case("strength 0", TRANSPORT + " --strengths 0", ("strengths", "[0.0]", 0), prepare=other),
    Case("unknown mask", TRANSPORT + " --mask face", ("mask", "face", "everywhere", "subject"), prepare=other),
    Case("lens of nothing", "lens --model {tiny} --out {folder}/e.zarr", ("lens", "prompts", "stored=RUN")),
]
