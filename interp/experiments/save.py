"""Write generated pictures: PNG files with their recipe as metadata, a contact sheet, and the recipe as JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from interp.base.errors import InputError
from interp.store.create import storage_errors

RECIPE = "interp"  # the PNG's text chunk
LABEL = 14  # height of a label, pixels
NARROWEST = 96  # minimum width of a picture on the sheet, pixels


def save(drawn: xr.Dataset, folder: str | Path, provenance: dict[str, Any]) -> list[Path]:
    """Write the result of `interp.generate`: 00000-seed0.png, ..., sheet.png and recipe.json; return the pictures' paths."""
    folder = Path(folder)
    recipe = {"plan": drawn.attrs["plan"], "provenance": provenance}
    paths, rows = [], []
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for row in range(drawn.sizes["prompt"]):
            one = drawn.isel(prompt=row)
            text, seed = str(one["prompt_text"].values), int(one["seed"])
            note = PngInfo()
            note.add_itxt(RECIPE, json.dumps({"prompt": text, "seed": seed, **recipe}, ensure_ascii=False))
            paths.append(folder / f"{row:05d}-seed{seed}.png")
            rows.append({"file": paths[-1].name, "prompt": text, "seed": seed})
            Image.fromarray(one["image"].to_numpy()).save(paths[-1], pnginfo=note)
        sheet(drawn).save(folder / "sheet.png")
        (folder / "recipe.json").write_text(
            json.dumps({**recipe, "pictures": rows}, indent=1, ensure_ascii=False), encoding="utf-8"
        )
    return paths


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read the recipe from a picture's file."""
    with Image.open(path) as picture:
        found = getattr(picture, "text", {}).get(RECIPE)
    if found is None:
        raise InputError(f"{path} has no recipe: it was not written by `interp generate`")
    return dict(json.loads(found))


def sheet(drawn: xr.Dataset) -> Image.Image:
    """A contact sheet: one row per prompt, with the prompt above it, and its pictures in order."""
    texts = drawn["prompt_text"].to_numpy().astype(str).tolist()
    rows, columns = list(dict.fromkeys(texts)), max(Counter(texts).values())
    side = max(NARROWEST, min(drawn.sizes["x"], 256))
    tall = round(side * drawn.sizes["y"] / drawn.sizes["x"])
    canvas = Image.new("RGB", (columns * (side + 4) + 4, len(rows) * (tall + LABEL + 6) + 4), "white")
    pen = ImageDraw.Draw(canvas)
    for number, text in enumerate(rows):
        pen.text((4, number * (tall + LABEL + 6) + 3), text[: max(8, canvas.width // 6)], fill="black")
    for row in range(drawn.sizes["prompt"]):
        picture = Image.fromarray(np.asarray(drawn["image"].isel(prompt=row))).resize((side, tall), Image.Resampling.NEAREST)
        x, y = texts[:row].count(texts[row]), rows.index(texts[row])
        canvas.paste(picture, (x * (side + 4) + 4, y * (tall + LABEL + 6) + LABEL + 4))
    return canvas
