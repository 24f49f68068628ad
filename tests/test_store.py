"""The store: what is written is read, and what cannot be read is an error, never a wrong number."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import PROMPTS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from messages import names, refused, warned

import interp
from interp.store.summary import Moments


@pytest.fixture
def copied(tiny_run: interp.Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.path, tmp_path / "copy.zarr"))


def test_plain_xarray_opens_a_store(tiny_run: interp.Run) -> None:
    """Without interp: the same values, axes and coordinates."""
    tree = xr.open_datatree(tiny_run.path, engine="zarr", consolidated=False)
    parts = {f"{kind}/{name}": tiny_run.of_stream(kind, name) for kind in ("stats", "gates") for name in ("image", "text")}
    assert {f"/{name}" for name in parts} | {"/hidden/image", "/hidden/text", "/outputs", "/summary/text"} <= set(tree.groups)
    for group, dataset in {**parts, "outputs": tiny_run.images}.items():
        for name, array in dataset.data_vars.items():
            assert tree[group][name].dims == array.dims
            assert np.array_equal(tree[group][name].to_numpy(), array.to_numpy(), equal_nan=array.dtype.kind == "f")
    assert list(tree["stats/image"]["block_path"].values) == [f"transformer_blocks.{k}" for k in range(4)]
    assert list(tree["prompt_text"].values) == [text for text in PROMPTS for _ in range(2)]


def test_axes_and_coordinates(tiny_run: interp.Run) -> None:
    assert tiny_run.stats["mean"].dims == ("prompt", "step", "block", "stream", "channel")
    assert tiny_run.gates["alpha"].dims == ("prompt", "step", "block", "stream", "gate", "channel")
    assert tiny_run.hidden["image"]["hidden"].dims == ("prompt", "step", "block", "token", "channel")
    assert list(tiny_run.stats["stream"].values) == ["image", "text"]
    assert list(tiny_run.gates["gate"].values) == ["attn", "mlp"]
    assert tiny_run.images["image"].dtype == np.uint8
    for dataset in (tiny_run.stats, tiny_run.gates, tiny_run.hidden["image"]):
        assert {"timestep", "sigma", "block_path", "block_kind", "prompt_text", "seed"} <= set(dataset.coords)
        assert dataset["prompt_text"].dtype == object
    image = tiny_run.hidden["image"]
    assert list(image["token_y"].values) == [token // 8 for token in range(64)]
    assert list(image["token_x"].values) == [token % 8 for token in range(64)]


def test_reading_is_lazy_with_one_chunk_a_shard(tiny_run: interp.Run) -> None:
    fresh = interp.open_run(tiny_run.path)
    assert fresh.stats["mean"].chunks == ((1,) * 8, (4,), (4,), (1, 1), (32,))
    assert fresh.hidden["image"]["hidden"].chunks[:3] == ((1,) * 8, (1,) * 4, (1,) * 4)


def test_the_summary_is_the_mean_and_variance_over_prompts(tiny_run: interp.Run) -> None:
    for name in ("mean", "mean_abs", "max_abs", "min_abs", "var"):
        values = tiny_run.stats[name].to_numpy().astype(np.float64)
        assert np.allclose(tiny_run.summary[name].sel(moment="mean"), values.mean(0), rtol=1e-6, equal_nan=True)
        assert np.allclose(tiny_run.summary[name].sel(moment="variance"), values.var(0), rtol=1e-5, atol=1e-12, equal_nan=True)
    alpha = tiny_run.gates["alpha"].to_numpy().astype(np.float64)
    assert np.allclose(tiny_run.summary["alpha"].sel(moment="variance"), alpha.var(0), rtol=1e-5, atol=1e-12, equal_nan=True)
    assert tiny_run.summary.attrs["rows"] == 8


def test_a_summary_added_up_while_writing_is_the_one_that_is_read(tiny_run: interp.Run) -> None:
    """Bit for bit, with the same axes, coordinates and flags."""
    read = tiny_run.summarise()
    xr.testing.assert_identical(tiny_run.summary.drop_attrs(), read.drop_attrs())
    assert tiny_run.summary.attrs["rows"] == read.attrs["rows"]


@given(st.lists(arrays(np.float64, 3, elements=st.floats(-1e3, 1e3)), min_size=1, max_size=9), st.floats(-1e6, 1e6))
def test_running_moments_equal_whole_array_moments_when_means_drift(values: list[np.ndarray], drift: float) -> None:
    moments = Moments((3,))
    drifting = [value + drift * index for index, value in enumerate(values)]
    for value in drifting:
        moments.add(value)
    whole = np.stack(drifting)
    mean, variance = moments.result()
    assert np.allclose(mean, whole.mean(0), rtol=1e-5, atol=1e-3)
    assert np.allclose(variance, whole.var(0), rtol=1e-5, atol=1e-6 * (1 + drift**2))


def test_representations(tiny_run: interp.Run) -> None:
    text, page = repr(tiny_run), tiny_run._repr_html_()
    for word in ("8 of 8", "SD3Transformer2DModel", "64 x 64", "stats, gates, hidden"):
        assert word in text
        assert word in page
    assert set(tiny_run.data.groups) >= {"/stats", "/gates", "/hidden/image", "/hidden/text", "/outputs", "/summary"}


def undo(path: Path, row: int) -> None:
    """Mark a row as not done, as a kill before the last write leaves it."""
    import zarr

    zarr.open_group(str(path), mode="r+")["done"][row] = 0


def test_a_row_that_is_not_done_does_not_exist(copied: Path, tiny_run: interp.Run) -> None:
    undo(copied, 2)
    run = interp.open_run(copied)
    assert (run.rows_done, run.rows_total) == (7, 8)
    kept = [0, 1, 3, 4, 5, 6, 7]
    assert list(run.stats["prompt"].values) == kept
    assert np.array_equal(run.stats["mean"], tiny_run.stats["mean"][kept], equal_nan=True)
    assert np.array_equal(run.images["image"], tiny_run.images["image"][kept])
    assert "unfinished" in repr(run)
    assert run.summary.attrs["rows"] == 7  # the stored one is of 8 rows: computed anew
    assert np.allclose(run.summary["mean_abs"].sel(moment="mean"), run.stats["mean_abs"].mean("prompt"), equal_nan=True)


def test_half_a_shard_of_a_row_that_is_not_done_has_no_effect(copied: Path) -> None:
    undo(copied, 2)
    shard = copied / "stats" / "image" / "mean" / "c" / "2"
    file = next(path for path in shard.rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:100])
    run = interp.open_run(copied)
    assert np.isfinite(run.stats["mean"].sel(stream="image")).all()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0x40
    file.write_bytes(bytes(data))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {"flipped": flip, "truncated": truncate, "missing": Path.unlink, "empty": lambda file: file.write_bytes(b"")}
GROUPS = ["stats/image/mean", "gates/image/alpha", "hidden/image/hidden", "hidden/text/hidden", "outputs/image"]


def array_of(run: interp.Run, group: str) -> xr.DataArray:
    first, *between, name = group.split("/")
    if first == "hidden":
        return run.hidden[between[0]]["hidden"]
    return run.of_stream(first, between[0])[name] if between else run.images[name]


def damage_shard(store: Path, group: str, row: int, damage: Callable[[Path], Any]) -> None:
    damage(next(path for path in sorted((store / group / "c" / str(row)).rglob("*")) if path.is_file()))


def check_damaged(store: Path, group: str, rows: set[int], whole: interp.Run) -> None:
    """The damaged rows are errors that name the array and the row; the other rows read as before."""
    array, expected = array_of(interp.open_run(store), group), array_of(whole, group)
    for row in rows:
        with pytest.raises(interp.StoreError) as caught:
            array.sel(prompt=row).to_numpy()
        assert names(str(caught.value).replace(str(store), "STORE"), "STORE", group, row) == []
    others = sorted(set(range(8)) - rows)
    assert others
    assert np.array_equal(array.sel(prompt=others), expected.sel(prompt=others), equal_nan=array.dtype.kind == "f")


def test_a_damaged_shard_is_an_error_and_other_rows_stay_readable(copied: Path, tiny_run: interp.Run) -> None:
    """Each damage in each array, in rows of their own."""
    for place, group in enumerate(GROUPS):
        for number, damage in enumerate(DAMAGES.values()):
            damage_shard(copied, group, place + number, damage)
    for place, group in enumerate(GROUPS):
        check_damaged(copied, group, set(range(place, place + 4)), tiny_run)


@pytest.mark.full
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("group", GROUPS)
def test_a_single_damaged_shard_is_an_error(
    damage: Callable[[Path], Any], group: str, copied: Path, tiny_run: interp.Run
) -> None:
    damage_shard(copied, group, 5, damage)
    check_damaged(copied, group, {5}, tiny_run)


def change_metadata(path: Path, **attributes: object) -> None:
    file = path / "zarr.json"
    values = json.loads(file.read_text())
    values["attributes"].update(attributes)
    file.write_text(json.dumps(values))


def test_another_schema_is_refused(copied: Path) -> None:
    change_metadata(copied, schema=99)
    with refused(interp.StoreError, copied, "schema", 99, 1, "interp"):
        interp.open_run(copied)


def test_other_folders_are_no_stores(tmp_path: Path, copied: Path) -> None:
    with refused(interp.InputError, tmp_path / "nothing.zarr", "interp trace"):
        interp.open_run(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with refused(interp.InputError, tmp_path / "folder", "zarr.json", "interp trace"):
        interp.open_run(tmp_path / "folder")
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with refused(interp.InputError, tmp_path / "other.zarr", "interp", "schema"):
        interp.open_run(tmp_path / "other.zarr")
    (copied / "zarr.json").write_text("{")
    with refused(interp.StoreError, copied, "zarr"):
        interp.open_run(copied)


def test_another_plan_is_refused_and_nothing_is_lost(tiny_model: interp.Model, copied: Path, tiny_run: interp.Run) -> None:
    record = interp.Record(hidden=True, modulation=True, latents="all")
    for change, field in (({"steps": 3}, "steps"), ({"seed": 1}, "seed"), ({"height": 32}, "height"), ({}, "record")):
        with refused(interp.PlanError, field, copied):
            interp.trace(
                tiny_model, PROMPTS, out=copied, **{"record": record if change else interp.Record(), "repeats": 2, **change}
            )
    with refused(interp.PlanError, "prompts", copied):
        interp.trace(tiny_model, PROMPTS[:2], out=copied, record=record, repeats=2)
    with refused(interp.PlanError, "resume", copied):
        interp.trace(tiny_model, PROMPTS, out=copied, record=record, repeats=2, resume=False)
    assert np.array_equal(interp.open_run(copied).stats["mean"], tiny_run.stats["mean"], equal_nan=True)


def test_a_changed_batch_size_warns(tiny_model: interp.Model, copied: Path) -> None:
    undo(copied, 7)
    with warned(interp.InterpWarning, "batch_size", 1, 2):
        run = interp.trace(
            tiny_model,
            PROMPTS,
            out=copied,
            record=interp.Record(hidden=True, modulation=True, latents="all"),
            repeats=2,
            batch_size=2,
        )
    assert run.rows_done == 8


@pytest.mark.processes
def test_a_second_writer_is_refused(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.store.create import writing_lock

    out = tmp_path / "run.zarr"
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from interp.store.create import writing_lock
        with writing_lock(Path({str(out)!r})):
            print("held", flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with refused(interp.StoreError, out, "process", "--out"):
            interp.trace(tiny_model, PROMPTS[:1], out=out)
        other.kill()  # even a killed writer lets go
    other.wait(60)
    assert interp.trace(tiny_model, PROMPTS[:1], out=out, steps=1).rows_done == 1
    with writing_lock(out):
        pass


def rows_on_disk(out: Path) -> int:
    folder = out / "done" / "c"
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_a_full_disk_is_an_error_and_the_run_can_be_resumed(
    tiny_model: interp.Model, tmp_path: Path, tiny_run: interp.Run
) -> None:
    """A real refusal by the system: from some rows on no file may grow past a limit that every shard exceeds."""
    out = tmp_path / "run.zarr"
    record = interp.Record(hidden=True, modulation=True, latents="all")
    given: dict[str, Any] = {"out": out, "repeats": 2, "record": record}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(progress: Any) -> None:
        if progress.done < 2:
            return
        deadline = time.monotonic() + 60
        while not rows_on_disk(out) and time.monotonic() < deadline:
            time.sleep(0.002)  # the rows are written by a thread
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))

    try:
        with refused(interp.StoreError, out, "space", "command"):
            interp.trace(tiny_model, PROMPTS, on_progress=limit, **given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = interp.open_run(out)
    assert 1 <= kept.rows_done < 8
    assert np.array_equal(kept.stats["mean"], tiny_run.stats["mean"][: kept.rows_done], equal_nan=True)
    whole = interp.trace(tiny_model, PROMPTS, **given)
    assert np.array_equal(whole.stats["mean"], tiny_run.stats["mean"], equal_nan=True)
    assert np.array_equal(whole.hidden["image"]["hidden"], tiny_run.hidden["image"]["hidden"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tiny_model: interp.Model, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with refused(interp.StoreError, tmp_path / "closed" / "run.zarr"):
        interp.trace(tiny_model, PROMPTS[:1], out=tmp_path / "closed" / "run.zarr")


def test_missing_groups_say_how_to_keep_them(tiny_model: interp.Model, tmp_path: Path) -> None:
    run = interp.trace(
        tiny_model, PROMPTS[:1], out=tmp_path / "bare.zarr", steps=1, record=interp.Record(stats=False, gates=False)
    )
    assert run.images["image"].shape == (1, 64, 64, 3)
    with refused(interp.StoreError, run.path, "statistics"):
        _ = run.stats
    with refused(interp.StoreError, run.path, "gates"):
        _ = run.gates
    with refused(interp.StoreError, run.path, "hidden", "--record stats,gates,hidden"):
        _ = run.hidden
