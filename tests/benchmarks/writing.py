"""Writing rows of FLUX.1's statistics (50 steps x 57 blocks x 3,072 channels, five of them): the package's writer, and zarr's
arrays of the same layout written by hand. Then one row with hidden states of bfloat16 values. Bandwidth is of uncompressed
float32. Last, what is paid once a run: making the store, setting up the first row's trace, and writing the summary that was
added up; of the demo, and of a store of FLUX.1's size (20 steps, two streams) with a tiny model of its 57 blocks.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from analyses import schema
from common import Options, interval, ratio, shown, table, turns

import interp
from interp.interventions.hooks import Driver
from interp.models import tiny
from interp.runs.recorded import make_recorders, make_schema
from interp.store.create import create, zarr_quiet
from interp.store.schema import HiddenAxes
from interp.store.summary import Totals, write_summary
from interp.store.writer import Writer
from interp.tracing.envoy import viewed
from interp.tracing.prepare import Prepared, prepare
from interp.tracing.visitor import Visitor

TITLE = "Write bandwidth"
ROWS = 2
STATES = 6
TOKENS = 1024
STATS = "stats/image/"


def measure(options: Options) -> dict[str, Any]:
    """MB/s of both, and their ratio."""
    draw = np.random.default_rng(0)
    axes = HiddenAxes(steps=tuple(range(STATES)), blocks=(0,), tokens=tuple(range(TOKENS)), channels=tuple(range(3072)))
    made = schema(ROWS, hidden={"image": axes})
    shapes = {name: variable.sizes for name, variable in made.variables().items()}
    statistics = {
        name.removeprefix(STATS): draw.lognormal(size=[size for axis, size in sizes.items() if axis != "prompt"]).astype("f4")
        for name, sizes in shapes.items()
        if name.startswith(STATS)
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
                    writer.row(row, {"stats/image": statistics})

        def by_hand() -> None:
            new()
            root = zarr.open_group(str(path), mode="r+")
            for row in range(ROWS):
                for variable, array in statistics.items():
                    root[f"{STATS}{variable}"][row] = array  # type: ignore[index]

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
        "once": once(options),
        "rounds": options.rounds,
    }


def once(options: Options) -> dict[str, Any]:
    """Seconds of what is paid once a run, by size."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tiny_flux = tiny.build("flux", Path(folder) / "model", blocks=19, single_blocks=38)
        runs = {
            "the demo": (prepare(interp.load("demo"), ["a red circle"], steps=20), None),
            "FLUX.1's size": (prepare(interp.load(tiny_flux), ["a red cat"], steps=20), 3072),
        }
        return {
            name: interval([_once(Path(folder) / f"{number}.zarr", *run) for number in range(3)], 2)
            for name, run in runs.items()
        }


def _once(path: Path, prepared: Prepared, channels: int | None) -> float:
    made = make_schema(prepared)
    if channels is not None:
        wide = {name: dataclasses.replace(own.stream, width=channels) for name, own in made.streams.items()}
        wide_axes = {name: dataclasses.replace(own, stream=wide[name]) for name, own in made.streams.items()}
        made = dataclasses.replace(made, streams=wide_axes)
    arrays: dict[str, dict[str, Any]] = {}
    for name, variable in made.variables().items():
        group, _, own = name.rpartition("/")
        arrays.setdefault(group, {})[own] = np.ones(list(variable.sizes.values())[1:], variable.dtype)
    start = time.perf_counter()
    create(path, made, {"plan": {"record": {}}, "provenance": {}})
    set_up(prepared)
    seconds = time.perf_counter() - start
    totals = Totals.of(made)
    with Writer(path, totals=totals) as writer:
        writer.row(0, arrays)
    start = time.perf_counter()
    write_summary(path, totals)
    seconds += time.perf_counter() - start
    shutil.rmtree(path)
    return seconds


def set_up(prepared: Prepared) -> None:
    """What the first row's trace makes before the model runs."""
    rows, transformer = prepared.plan.rows(), prepared.model.pipe.transformer
    recorders = make_recorders(prepared, make_schema(prepared), rows, lambda *state: None)
    visitor = Visitor(prepared, rows, recorders, Driver(prepared.model.anatomy, [[]]), lambda step: None)
    with viewed(transformer, visitor.used) as envoy:
        visitor.observer(envoy)


def _as_bfloat16(values: Any) -> Any:
    """float32 whose lower half is zero, as widened bfloat16 is."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def page(report: dict[str, Any]) -> str:
    """The docs' table."""
    rows = [[name, shown(value)] for name, value in report["MB/s"].items()]
    rows += [["time, interp / zarr", shown(report["interp / zarr, time"])]]
    rows += [["seconds to make the store", shown(report["seconds to make the store"])]]
    targets = {"the demo": 0.3, "FLUX.1's size": 1.0}
    paid = [
        [name, shown(value), f"{targets[name]:g}: {'met' if value['high'] <= targets[name] else '**not met**'}"]
        for name, value in report.get("once", {}).items()
    ]
    found = table(["MB/s of float32", "median, 95% interval"], rows)
    return found + ("\n\n" + table(["paid once a run", "s", "target"], paid) if paid else "")
