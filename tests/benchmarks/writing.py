"""Writing rows of FLUX.1's statistics (50 steps x 57 blocks x 3,072 channels, five of them): the package's writer, and zarr's
arrays of the same layout written by hand. Then one row with hidden states of bfloat16 values. Bandwidth is of uncompressed
float32.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from analyses import schema
from common import Options, interval, ratio, shown, table, turns

from interp.store.create import create, zarr_quiet
from interp.store.schema import HiddenAxes
from interp.store.writer import Writer

TITLE = "Write bandwidth"
ROWS = 2
STATES = 6
TOKENS = 1024


def measure(options: Options) -> dict[str, Any]:
    """MB/s of both, and their ratio."""
    draw = np.random.default_rng(0)
    axes = HiddenAxes(steps=tuple(range(STATES)), blocks=(0,), tokens=tuple(range(TOKENS)), channels=tuple(range(3072)))
    made = schema(ROWS, hidden={"image": axes})
    shapes = {name: variable.sizes for name, variable in made.variables().items()}
    statistics = {
        name.removeprefix("stats/"): draw.lognormal(size=[size for axis, size in sizes.items() if axis != "prompt"]).astype(
            "f4"
        )
        for name, sizes in shapes.items()
        if name.startswith("stats/")
    }
    states = _as_bfloat16(draw.normal(size=(STATES, TOKENS, 3072)).astype("f4"))
    megabytes = ROWS * sum(array.nbytes for array in statistics.values()) / 1e6
    with tempfile.TemporaryDirectory(dir=options.folder) as name, zarr_quiet():
        path = Path(name) / "run.zarr"

        def new() -> None:
            shutil.rmtree(path, ignore_errors=True)
            create(path, made, {"plan": {}, "provenance": {}})

        def through_writer() -> None:
            new()
            with Writer(path) as writer:
                for row in range(ROWS):
                    writer.row(row, {"stats": statistics})

        def by_hand() -> None:
            new()
            root = zarr.open_group(str(path), mode="r+")
            for row in range(ROWS):
                for variable, array in statistics.items():
                    root[f"stats/{variable}"][row] = array  # type: ignore[index]

        def hidden() -> None:
            new()
            with Writer(path) as writer:
                for step, state in enumerate(states):
                    writer.hidden("image", (0, step, 0), lambda state=state: state, state.nbytes)

        rounds = turns({"interp": through_writer, "zarr": by_hand, "hidden": hidden, "create": new}, options.rounds)
    speed = {which: interval([megabytes / (one[which] - one["create"]) for one in rounds], 0) for which in ("interp", "zarr")}
    hidden_speed = interval([states.nbytes / 1e6 / (one["hidden"] - one["create"]) for one in rounds], 0)
    return {
        "MB/s": {**speed, "hidden states": hidden_speed},
        "interp / zarr, time": ratio(rounds, "interp", "zarr"),
        "seconds to make the store": interval([one["create"] for one in rounds]),
        "rounds": options.rounds,
    }


def _as_bfloat16(values: Any) -> Any:
    """float32 whose lower half is zero, as widened bfloat16 is."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = [[name, shown(value)] for name, value in report["MB/s"].items()]
    rows += [["time, interp / zarr", shown(report["interp / zarr, time"])]]
    rows += [["seconds to make the store", shown(report["seconds to make the store"])]]
    return table(["MB/s of float32", "median, 95% interval"], rows)
