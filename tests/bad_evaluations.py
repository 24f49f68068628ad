"""Bad input of evaluations, reports and findings: the rest of the table of `bad_inputs.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bad_inputs import Case
from PIL import Image


def pictures(**sizes: int) -> object:
    """Folders of two pictures each, of a side in pixels."""

    def prepare(folder: Path) -> None:
        for name, side in sizes.items():
            (folder / name).mkdir()
            for number in range(2):
                Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(folder / name / f"{number}.png")
        (folder / "two.txt").write_text("a red circle\na blue star\n")

    return prepare


def broken(folder: Path) -> None:
    pictures(a=64)(folder)  # type: ignore[operator]
    (folder / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")


EVALUATE = "evaluate --preset"
CASES = [
    Case("nothing to evaluate", "evaluate", ("pictures", "stores", "--preset", "--guidance")),
    Case("an unknown table", f"{EVALUATE} dg-table-9", ("preset", "dg-table-9", "dg-table-1", "fc-segmentation")),
    Case("a table and settings of one's own", f"{EVALUATE} dg-table-1 --guidance none", ("--preset", "--guidance")),
    Case(
        "a table for a model without a preset",
        f"{EVALUATE} dg-table-1 --model {{tiny}} --prompts {{prompts}}",
        ("dg-table-1", "FOLDER/tiny", "--channels", "interp massive RUN", "--block"),
    ),
    Case("a model without prompts", f"{EVALUATE} dg-table-1 --model sd3", ("prompts", "--prompts FILE", "sd3", "demo")),
    Case(
        "a list that is none",
        f"{EVALUATE} dg-table-1 --prompts mine",
        ("prompts", "mine", "demo", "hpsv2", "pick-a-pic", "geneval"),
    ),
    Case(
        "a list that the hub has not",
        f"{EVALUATE} dg-table-1 --prompts geneval",
        ("prompts", "geneval", "prompts/generation_prompts.txt", "geneval=FILE"),
    ),
    Case(
        "half a copy of a list",
        f"{EVALUATE} dg-table-1 --prompts hpsv2={{folder}}",
        ("prompts", "hpsv2", "FOLDER", "anime.json"),
    ),
    Case(
        "a segmentation without true masks",
        f"{EVALUATE} fc-segmentation --model {{tiny}} --prompts {{prompts}} --steps 2 --out {{folder}}/e.zarr",
        ("fc-segmentation", "masks", "--masks FOLDER"),
    ),
    Case(
        "masks for a table that has no use for them",
        f"{EVALUATE} dg-table-1 --masks {{folder}} --out {{folder}}/e.zarr",
        ("masks", "--preset fc-segmentation"),
    ),
    Case(
        "an unknown scorer",
        "evaluate {folder}/a --prompts {folder}/two.txt --scorer beauty",
        ("scorer", "beauty", "demo", "plain", "auto", "clip", "recall"),
        prepare=pictures(a=64),  # type: ignore[arg-type]
    ),
    Case(
        "pictures of two sizes",
        "evaluate {folder}/a {folder}/b --prompts {folder}/two.txt",
        ("pictures", "b", "(32, 32, 3)", "(64, 64, 3)"),
        prepare=pictures(a=64, b=32),  # type: ignore[arg-type]
    ),
    Case(
        "a picture cut short",
        "evaluate {folder}/a --prompts {folder}/two.txt",
        ("FOLDER/a/1.png", "picture"),
        prepare=broken,
    ),
    Case(
        "the demo's judge for other pictures",
        "evaluate {folder}/a --prompts {folder}/two.txt --scorer demo",
        ("demo", "uint8", "64 x 64", "(2, 32, 32, 3)"),
        prepare=pictures(a=32),  # type: ignore[arg-type]
    ),
    Case(
        "a baseline that is no setting",
        f"{EVALUATE} dg-table-1 --baseline slg --out {{folder}}/e.zarr",
        ("baseline", "slg", "none", "dg", "cfg", "cfg+dg"),
    ),
    Case("a margin below nothing", f"{EVALUATE} dg-table-1 --margin=-1 --out {{folder}}/e.zarr", ("margin", "-1.0", 0, "0.2")),
    Case("a page that is none", "findings --page {folder}/v.txt --out {folder}/f", ("page", "v.txt", ".html")),
    Case("findings of one step", "findings --steps 1 --out {folder}/f", ("steps", 1, 2)),
    Case("none of the prompts", f"{EVALUATE} dg-table-1 --count 0 --out {{folder}}/e.zarr", ("count", 0, 1)),
    Case("an unknown finding", "findings --only beauty --out {folder}/f", ("only", "beauty", "few channels", "DG helps CFG")),
    Case("findings of three prompts", "findings --count 3 --out {folder}/f", ("prompts", 4)),
    Case("too small a budget for doses", "findings --count 4 --budget 10 --out {folder}/f", ("budget", "doses", 10)),
    Case("a report of nothing", "report {folder}", ("FOLDER", "zarr.json", "interp trace")),
]
