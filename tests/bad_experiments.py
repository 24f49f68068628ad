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
        "shard must be i/n with i from 0",
    ),
    Case(
        "an export of no known kind",
        "export {out} --out {folder}/x.xlsx",
        "out must end in one of .csv, .parquet, .nc",
        prepare=STORE,
    ),
    Case(
        "an export of what is not kept", "export {out} --out {folder}/x.csv --what hidden", "what must be one of", prepare=STORE
    ),
    Case("stores that are not there, joined", "merge {folder}/a.zarr --out {folder}/b.zarr", "a.zarr does not exist"),
    Case("a store that is not there, verified", "verify {folder}/a.zarr", "a.zarr does not exist"),
    Case("a folder of runs that is not there", "dashboard {folder}/none", "run must be a store or a folder of stores"),
    Case("a port that cannot be", "dashboard --port 0", "Invalid value for '--port'"),
    Case("block out of range", DISRUPT + " --blocks 9", r"blocks must lie in -4..3 \(there are 4\); got 9"),
    Case("the same blocks twice", DISRUPT + " --blocks 1 --blocks 1", "blocks must be one or more different sets of blocks"),
    Case("no draw of a control", DISRUPT + " --controls 0", "repeats_of_controls must be an integer of at least 1; got 0"),
    Case("unknown reach of norm controls", DISRUPT + " --reach some", "reach must be one of all, next"),
    Case("real pictures that are not there", DISRUPT + " --reference {folder}/none", "holds no .png or .jpg pictures"),
    Case(
        "channels of a run that is none", DISRUPT + " --run {folder}/none.zarr", "does not exist; make one with `interp trace"
    ),
    Case("no massive channel, and none named for dose", DOSE + " --counts 30", "counts must lie in 1..16"),
    Case("budget too small", DOSE + " --budget 3", r"budget must be at least \d+ pictures for \d+ doses of 3 kinds; got 3"),
    Case("unknown window", DOSE + " --windows noon", "windows must be some of all, early, late; got 'noon'"),
    Case("pairs of unequal length", PATCH, "clean and corrupted prompts come in pairs; got 1 and 2", prepare=more),
    Case("clean and corrupted are one prompt", PATCH, "clean and corrupted are the same prompt", prepare=same),
    Case(
        "unknown thing to patch", PATCH + " --what soul", "what must be one or more of hidden, massive, control", prepare=other
    ),
    Case("unknown metric", PATCH + " --metric taste", "metric must be one of picture, structure, latents", prepare=other),
    Case("more windows than steps", PATCH + " --windows 9", "windows must be at most 2, the steps; got 9", prepare=other),
    Case("windows and regions", PATCH + " --windows 2 --regions 2", "windows and regions: give one of them", prepare=other),
    Case("too many regions", PATCH + " --regions 99", r"regions must be at most \d+, the tokens along a side", prepare=other),
    Case("one prompt to swap", SWAP.replace("two.txt", "prompts.txt"), "prompts must be two different ones or more"),
    Case("one step to swap", SWAP + " --pair 3", "pair must be two steps, such as 4,16; got '3'", prepare=two),
    Case("late before early", SWAP + " --pair 3,1", "pair must be an early and a late step", prepare=two),
    Case("a result's place is taken", SWAP, "is not a store: it has no zarr.json", prepare=not_a_result),
    Case("strength in words", TRANSPORT + " --strengths much", "strengths must be numbers between commas", prepare=other),
    Case("strength 0", TRANSPORT + " --strengths 0", "strengths must be finite numbers other than 0", prepare=other),
    Case("unknown mask", TRANSPORT + " --mask face", "mask must be one of everywhere, subject; got 'face'", prepare=other),
    Case("lens of nothing", "lens --model {tiny} --out {folder}/e.zarr", "lens: give prompts to run live, or stored=RUN"),
]
