"""Streams as data: names, widths, roles; stores of schema 1 beside those of schema 2; no name outside of the models."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from messages import refused
from test_house import modules

import interp
from interp.base.streams import GENERATED, Stream, find_stream
from interp.models import tiny
from interp.store.first_schema import Rows
from interp.store.verification import verify

ROOT = Path(__file__).parent.parent
NAMES = {"image", "text", "audio", "reference"}
GROUPS = ("stats", "gates", "branches")
CALLS, HOLDERS = ("Site", "check_stream", "tokens", "consensus"), ("hidden", "frames", "streams", "lengths")


def test_a_stream_reads_back_and_is_found_by_name_and_role() -> None:
    streams = [Stream("image", "generated", 8, ("y", "x")), Stream("text", "conditioning", 4)]
    assert [Stream.from_json(stream.to_json()) for stream in streams] == streams
    assert find_stream(streams, GENERATED) is find_stream(streams, "image") is streams[0]
    assert find_stream(streams, "conditioning") is streams[1]
    with refused(interp.InputError, "stream", "image, text", "'speech'"):
        find_stream(streams, "speech")


def named(tree: ast.AST) -> set[str]:
    """The names of streams that code gives to a parameter, a default, a selection or a site."""
    found = set()
    for node in ast.walk(tree):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.keyword) and node.arg in ("stream", "streams"):
            given = [node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "Site",
            "check_stream",
            "tokens",
            "consensus",
        ):
            given = list(node.args)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "stream":
            given = [node.value]
        elif isinstance(node, ast.FunctionDef):
            arguments = node.args
            pairs = [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
            places = [*arguments.posonlyargs, *arguments.args]
            pairs += zip(places[len(places) - len(arguments.defaults) :], arguments.defaults, strict=True)
            given = [value for argument, value in pairs if argument.arg == "stream"]
        elif isinstance(node, ast.Compare) and "stream" in ast.unparse(node.left):
            given = [inner for value in node.comparators for inner in ast.walk(value) if isinstance(inner, ast.Constant)]
        elif isinstance(node, ast.Dict):
            given = [value for key, value in zip(node.keys, node.values, strict=True) if "stream" in ast.unparse(key or value)]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] in (
            "hidden",
            "frames",
            "streams",
            "lengths",
        ):
            given = [node.slice]
        found |= {str(one.value) for one in given if isinstance(one, ast.Constant) and one.value in NAMES}
    return found


def test_no_stream_is_named_outside_of_the_models() -> None:
    """The command line's defaults may be names; `testing/reference.py` is what hooks of families' tests use."""
    allowed = ("interp/models/", "interp/cli/", "interp/testing/reference.py", "interp/testing/laws.py")
    guilty = {}
    for path in [*modules(), *(ROOT / "dashboards").rglob("*.py")]:
        place = path.relative_to(ROOT).as_posix()
        names = named(ast.parse(path.read_text(encoding="utf-8")))
        if names and not place.startswith(allowed):
            guilty[place] = sorted(names)
    assert guilty == {}
    assert named(ast.parse('def f(*, stream: str = "image"): g(stream="text"); h.hidden["audio"]')) == {
        "image",
        "text",
        "audio",
    }


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    """A run of the demo model that an earlier version traced."""
    with zipfile.ZipFile(ROOT / "tests" / "before" / "stores.zip") as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.startswith("run.zarr/")])
    return tmp_path / "run.zarr"


def test_a_store_of_schema_1_gives_what_is_in_its_files(first_schema: Path) -> None:
    run, root = interp.open_run(first_schema), zarr.open_group(str(first_schema), mode="r")
    assert root.attrs["schema"] == 1
    assert [(stream.name, stream.role, stream.width) for stream in run.streams] == [
        ("image", "generated", 96),
        ("text", "conditioning", 96),
    ]
    for group in (name for name in GROUPS if name in root):
        for name, array in getattr(run, group).data_vars.items():
            stored = np.asarray(root[f"{group}/{name}"][...])  # type: ignore[index,call-overload]
            np.testing.assert_array_equal(array, stored)
            for place, stream in enumerate(("image", "text")):
                axis = array.dims.index("stream")
                np.testing.assert_array_equal(run.of_stream(group, stream)[name], stored.take(place, axis))


def test_a_store_of_schema_1_is_resumed_in_its_form(first_schema: Path, tmp_path: Path) -> None:
    """A row that is traced again is what it was to rounding (`median_abs` was of another sample then); the store verifies."""
    before = {group: getattr(interp.open_run(first_schema), group).load() for group in ("stats", "gates", "summary")}
    plan = interp.open_run(first_schema).plan
    last = interp.open_run(first_schema).rows_total - 1
    texts = interp.open_run(first_schema).prompts[:: plan["repeats"]]
    os.remove(first_schema / "done" / "c" / str(last))
    shutil.rmtree(first_schema / "summary")
    given = {name: plan[name] for name in ("steps", "seed", "height", "width", "repeats")}
    record = plan["record"]
    kept = interp.Record(
        **{name: record[name] for name in ("stats", "gates", "modulation", "branches", "latents") if name in record},
        hidden=interp.Select.from_json(record["hidden"]) if record.get("hidden") else False,
        padding=True,
    )
    resumed = interp.trace("demo", texts, out=first_schema, record=kept, seeds="shared", **given)
    for group, dataset in before.items():
        for name, array in dataset.drop_vars("median_abs", errors="ignore").data_vars.items():
            np.testing.assert_allclose(getattr(resumed, group)[name], array, rtol=2e-5, atol=2e-5)
    assert zarr.open_group(str(first_schema), mode="r").attrs["schema"] == 1
    assert verify(first_schema) == []


def test_streams_of_a_model_that_a_store_of_schema_1_lacks_or_names_otherwise() -> None:
    """Mochi's text is left out; Stable Audio's sound was called image."""
    values = {"mean": np.ones((2, 3, 4), np.float32)}
    mochi, sound = Rows(["image"], ["image", "text"]), Rows(["image"], ["audio"])
    assert (mochi.stored, sound.stored) == ({"image": "image"}, {"audio": "image"})
    found = mochi.joined({"stats/image": values, "stats/text": {"mean": np.zeros((2, 3, 2), np.float32)}, "outputs": {}})
    assert found["stats"]["mean"].shape == (2, 3, 1, 4)
    assert found["stats"]["mean"].all()
    assert sound.joined({"stats/audio": values})["stats"]["mean"].shape == (2, 3, 1, 4)


def test_streams_of_two_widths_have_channels_of_their_own(tmp_path: Path) -> None:
    """Mochi's text is half as wide as its video: stored without padding, NaN side by side."""
    model = interp.load(tiny.build("mochi", tmp_path / "mochi"))
    run = interp.trace(model, ["a red cat", "two dog"], out=tmp_path / "run.zarr", steps=2)
    wide, narrow = (stream.width for stream in run.streams)
    assert (wide, narrow) == (32, 16)
    assert run.of_stream("stats", "text")["mean"].sizes["channel"] == narrow
    side = run.stats["mean"].sel(stream="text")
    assert np.isnan(side.isel(channel=slice(narrow, None))).all()
    np.testing.assert_array_equal(side.isel(channel=slice(narrow)), run.of_stream("stats", "text")["mean"])
    stored = zarr.open_group(str(run.path), mode="r")["stats/text/mean"]
    assert stored.shape[-1] == narrow  # type: ignore[union-attr]
    found = interp.massive.find(run)
    score = found["score"].sel(stream="text")
    assert np.isfinite(score.isel(channel=slice(narrow), block=0)).all()
    assert np.isnan(score.isel(channel=slice(narrow, None))).all()
    alone = interp.massive.find(run.of_stream("stats", "text").expand_dims(stream=["text"]))
    np.testing.assert_allclose(alone["score"].isel(stream=0), score.isel(channel=slice(narrow)), rtol=1e-12)
    with refused(interp.InputError, "channels", 15):
        interp.generate(model, ["a red cat"], steps=2, interventions=[wide_edit()])


def wide_edit() -> interp.interventions.Zero:
    return interp.interventions.Zero(channels=20, blocks=0, stream="text")


def test_a_store_says_what_its_streams_are(tmp_path: Path) -> None:
    model = interp.load(tiny.build("wan", tmp_path / "wan"))
    run = interp.trace(model, ["a red cat"], out=tmp_path / "run.zarr", steps=2, record=interp.Record(hidden=True))
    (stream,) = run.streams
    assert dataclasses.astuple(stream) == ("image", "generated", model.anatomy.channels, ("frame", "y", "x"))
    states = run.hidden["image"]
    assert {"token_frame", "token_y", "token_x"} <= set(states.coords)
    sizes = run.attributes["streams"][0]["sizes"]
    assert np.prod(sizes) == states.sizes["token"]
    assert [int(states[f"token_{axis}"].max()) + 1 for axis in ("frame", "y", "x")] == sizes
