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
    Case("nothing to evaluate", "evaluate", "give pictures or stores to score, or --preset"),
    Case("an unknown table", f"{EVALUATE} dg-table-9", "preset must be one of dg-table-1"),
    Case("a table and settings of one's own", f"{EVALUATE} dg-table-1 --guidance none", "give --preset or --guidance"),
    Case(
        "a table for a model without a preset",
        f"{EVALUATE} dg-table-1 --model {{tiny}} --prompts {{prompts}}",
        "give --channels, such as those that `interp massive RUN` finds",
    ),
    Case("a model without prompts", f"{EVALUATE} dg-table-1 --model sd3", "give --prompts FILE for sd3"),
    Case("a list that is none", f"{EVALUATE} dg-table-1 --prompts mine", "or one of demo, hpsv2, pick-a-pic"),
    Case("a list that the hub has not", f"{EVALUATE} dg-table-1 --prompts geneval", "are not on the hub"),
    Case("half a copy of a list", f"{EVALUATE} dg-table-1 --prompts hpsv2={{folder}}", "holds no anime.json"),
    Case(
        "a segmentation without true masks",
        f"{EVALUATE} fc-segmentation --model {{tiny}} --prompts {{prompts}} --steps 2 --out {{folder}}/e.zarr",
        "true masks are needed",
    ),
    Case(
        "masks for a table that has no use for them",
        f"{EVALUATE} dg-table-1 --masks {{folder}} --out {{folder}}/e.zarr",
        "masks are for --preset fc-segmentation",
    ),
    Case(
        "an unknown scorer",
        "evaluate {folder}/a --prompts {folder}/two.txt --scorer beauty",
        "scorer must be",
        prepare=pictures(a=64),  # type: ignore[arg-type]
    ),
    Case(
        "pictures of two sizes",
        "evaluate {folder}/a {folder}/b --prompts {folder}/two.txt",
        "pictures must all be of one size",
        prepare=pictures(a=64, b=32),  # type: ignore[arg-type]
    ),
    Case(
        "a picture cut short",
        "evaluate {folder}/a --prompts {folder}/two.txt",
        "is no readable picture",
        prepare=broken,
    ),
    Case(
        "the demo's judge for other pictures",
        "evaluate {folder}/a --prompts {folder}/two.txt --scorer demo",
        "the demo judge looks at uint8 pictures of 64 x 64 pixels",
        prepare=pictures(a=32),  # type: ignore[arg-type]
    ),
    Case(
        "a baseline that is no setting",
        f"{EVALUATE} dg-table-1 --baseline slg --out {{folder}}/e.zarr",
        "baseline must be one of none, dg, cfg",
    ),
    Case("a margin below nothing", f"{EVALUATE} dg-table-1 --margin=-1 --out {{folder}}/e.zarr", "margin must be 0 or"),
    Case("a page that is none", "findings --page {folder}/v.txt --out {folder}/f", "page must end in .html"),
    Case("findings of one step", "findings --steps 1 --out {folder}/f", "steps must be 2 or more"),
    Case("none of the prompts", f"{EVALUATE} dg-table-1 --count 0 --out {{folder}}/e.zarr", "count must be at least 1"),
    Case("an unknown finding", "findings --only beauty --out {folder}/f", "only must name findings"),
    Case("findings of three prompts", "findings --count 3 --out {folder}/f", "4 different ones or more"),
    Case("too small a budget for doses", "findings --count 4 --budget 10 --out {folder}/f", "budget must be at least"),
    Case("a report of nothing", "report {folder}", "is not a store"),
]
