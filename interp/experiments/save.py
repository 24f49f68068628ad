"""Generated pictures as files: PNGs that carry their whole recipe, a contact sheet, and the recipe as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from interp.base.errors import InputError
from interp.store.create import storage_errors

RECIPE = "interp"  # the PNG's text chunk
LABEL = 14  # pixels of a label's line
NARROWEST = 96  # pixels of a picture on the sheet


def save(drawn: xr.Dataset, folder: str | Path, provenance: dict[str, Any]) -> list[Path]:
    """Write what `interp.generate` drew: 00000-seed0.png, ..., sheet.png and recipe.json."""
    folder = Path(folder)
    recipe = {"plan": drawn.attrs["plan"], "provenance": provenance}
    paths = []
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for row in range(drawn.sizes["prompt"]):
            one = drawn.isel(prompt=row)
            text, seed = str(one["prompt_text"].values), int(one["seed"])
            note = PngInfo()
            note.add_itxt(RECIPE, json.dumps({"prompt": text, "seed": seed, **recipe}, ensure_ascii=False))
            paths.append(folder / f"{row:05d}-seed{seed}.png")
            Image.fromarray(one["image"].to_numpy()).save(paths[-1], pnginfo=note)
        sheet(drawn).save(folder / "sheet.png")
        rows = [{"file": p.name, "prompt": str(t), "seed": int(s)} for p, t, s in _rows(drawn, paths)]
        (folder / "recipe.json").write_text(
            json.dumps({**recipe, "pictures": rows}, indent=1, ensure_ascii=False), encoding="utf-8"
        )
    return paths


def _rows(drawn: xr.Dataset, paths: list[Path]) -> Any:
    return zip(paths, drawn["prompt_text"].to_numpy(), drawn["seed"].to_numpy(), strict=True)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe in a picture's file."""
    with Image.open(path) as picture:
        found = getattr(picture, "text", {}).get(RECIPE)
    if found is None:
        raise InputError(f"{path} carries no recipe: it was not written by `interp generate`")
    recipe: dict[str, Any] = json.loads(found)
    return recipe


def sheet(drawn: xr.Dataset) -> Image.Image:
    """All pictures on one: a row for every prompt, a column for every seed, the prompt over its row."""
    texts, seeds = drawn["prompt_text"].to_numpy().astype(str), drawn["seed"].to_numpy()
    rows, columns = list(dict.fromkeys(texts)), sorted(set(seeds.tolist()))
    side = max(NARROWEST, min(drawn.sizes["x"], 256))
    tall = round(side * drawn.sizes["y"] / drawn.sizes["x"])
    canvas = Image.new("RGB", (len(columns) * (side + 4) + 4, len(rows) * (tall + LABEL + 6) + 4), "white")
    pen = ImageDraw.Draw(canvas)
    for number, text in enumerate(rows):
        pen.text((4, number * (tall + LABEL + 6) + 3), text[: max(8, canvas.width // 6)], fill="black")
    for row in range(drawn.sizes["prompt"]):
        picture = Image.fromarray(np.asarray(drawn["image"].isel(prompt=row))).resize((side, tall), Image.Resampling.NEAREST)
        x, y = columns.index(int(seeds[row])), rows.index(str(texts[row]))
        canvas.paste(picture, (x * (side + 4) + 4, y * (tall + LABEL + 6) + LABEL + 4))
    return canvas
