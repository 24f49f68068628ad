"""Summaries alone: bundles of prompts give the means and variances that every prompt's statistics would."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import names, refused

import interp
from interp.base.errors import InputError, StoreError, TraceError
from interp.store.merging import merge
from interp.store.summary import Moments
from interp.store.verification import forget, verify

TEXTS = ["a red cat", "two dog", "the green circle", "a photo of a dog", "a blue square", "a cat", "a dog"]
BUNDLED = interp.Record(bundle=3)


@pytest.fixture(scope="module")
def whole(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    return interp.trace(tiny_model, TEXTS, out=tmp_path_factory.mktemp("whole") / "r.zarr", steps=2)


@pytest.fixture(scope="module")
def bundled(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    return interp.trace(tiny_model, TEXTS, out=tmp_path_factory.mktemp("bundled") / "r.zarr", steps=2, record=BUNDLED)


def check_summary(run: interp.Run, whole: interp.Run) -> None:
    assert set(run.summary.data_vars) == set(whole.summary.data_vars)
    assert run.summary.attrs["rows"] == whole.summary.attrs["rows"]
    for name, expected in whole.summary.data_vars.items():
        found = run.summary[name]
        assert found.dims == expected.dims
        scale = np.nanmax(np.abs(expected.to_numpy())) if expected.size else 1.0
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-6 * scale, equal_nan=True), name


def test_joined_moments_are_those_of_all() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, (11, 4))
    joined = Moments((4,))
    for part in (values[:3], values[3:3], values[3:4], values[4:]):
        joined.join(part.mean(0) if len(part) else np.zeros(4), part.var(0) if len(part) else np.zeros(4), len(part))
    assert joined.count == 11
    assert np.allclose(joined.result(), [values.mean(0), values.var(0)], rtol=1e-6)


def test_the_summary_is_that_of_every_prompt(bundled: interp.Run, whole: interp.Run) -> None:
    check_summary(bundled, whole)
    assert bundled.rows_done == 7
    assert np.array_equal(bundled.images["image"], whole.images["image"])
    assert verify(bundled.path) == []
    for channel in (0, 3):
        assert np.allclose(interp.glance.size(bundled, channel), interp.glance.size(whole, channel), rtol=1e-5)
    assert np.array_equal(interp.glance.massive(bundled)["consensus"], interp.glance.massive(whole)["consensus"])
    size = sum(file.stat().st_size for file in (bundled.path / "bundles").rglob("*") if file.is_file())
    assert size < sum(file.stat().st_size for name in ("stats", "gates") for file in (whole.path / name).rglob("*"))


def test_statistics_of_single_prompts_are_refused(bundled: interp.Run) -> None:
    for name in ("stats", "gates"):
        with refused(StoreError, bundled.path, name, "summary", "run.summary"):
            getattr(bundled, name)
    with refused(StoreError, bundled.path, "summary"):
        interp.massive.find(bundled)


@pytest.mark.parametrize("batch_size", [2, pytest.param(1, marks=pytest.mark.full)])
def test_a_stopped_run_resumes_and_counts_no_prompt_twice(
    batch_size: int, tiny_model: interp.Model, whole: interp.Run, tmp_path: Path
) -> None:
    def stop(state: Any) -> None:
        if state.made and state.done < 7:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"out": tmp_path / "r.zarr", "steps": 2, "record": BUNDLED, "batch_size": batch_size}
    for expected in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            interp.trace(tiny_model, TEXTS, on_progress=stop, **given)
        assert interp.open_run(tmp_path / "r.zarr").rows_done == expected, "bundles are whole or not there"
    check_summary(interp.trace(tiny_model, TEXTS, **given), whole)


def test_a_damaged_bundle_is_found_and_traced_again(
    bundled: interp.Run, whole: interp.Run, tiny_model: interp.Model, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(bundled.path, tmp_path / "r.zarr"))
    file = next(file for file in (path / "bundles/stats/image/mean_abs/c/1").rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:-9])
    found = verify(path)
    assert [(fault.row, fault.where) for fault in found] == [(3, "bundles/stats/image/mean_abs")]
    assert forget(path, found) == [3]
    check_summary(interp.trace(tiny_model, TEXTS, out=path, steps=2, record=BUNDLED), whole)
    assert verify(path) == []


def test_a_failed_prompt_is_left_out_of_its_bundle(
    tiny_model: interp.Model, whole: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(tiny_model.pipe).encode_prompt

    def encode(self: Any, prompt: Any, *arguments: Any, **more: Any) -> Any:
        if "two" in str(prompt) and os.environ["INTERP_TEST_FAILS"] == "yes":
            raise ValueError("this prompt cannot be encoded")
        return original(self, prompt, *arguments, **more)

    given: dict[str, Any] = {"out": tmp_path / "r.zarr", "steps": 2, "record": BUNDLED}
    monkeypatch.setattr(type(tiny_model.pipe), "encode_prompt", encode)
    monkeypatch.setenv("INTERP_TEST_FAILS", "yes")
    with refused(TraceError, "1 of 7 rows", "row 1", "ValueError"):
        interp.trace(tiny_model, TEXTS, **given)
    monkeypatch.setenv("INTERP_TEST_FAILS", "no")
    run = interp.open_run(tmp_path / "r.zarr")
    assert run.rows_done == 6
    others = whole.stats["mean_abs"].isel(prompt=[0, 2, 3, 4, 5, 6])
    assert np.allclose(run.summary["mean_abs"].sel(moment="mean"), others.mean("prompt"), rtol=1e-5, equal_nan=True)
    check_summary(interp.trace(tiny_model, TEXTS, **given, retry_failed=True), whole)


def test_the_command_reads_summaries(bundled: interp.Run, whole: interp.Run, tmp_path: Path) -> None:
    import json

    from bad_inputs import run as command

    path = Path(shutil.copytree(bundled.path, tmp_path / "r.zarr"))
    code, out, err = command(["massive", str(path), "--channels", "1,3", "--json"])
    assert code == 0, err
    assert names(err, "summaries") == []
    found = json.loads(out)
    assert found["profile of the image stream"]["rows"]
    assert interp.open_run(path).results == ["massive", "profile"]
    code, _, err = command(["massive", str(path), "--steps", "0"])
    assert code == 2
    assert names(err, "steps") == []
    code, out, _ = command(["info", str(path)])
    assert code == 0
    assert "summary" in out


def test_shards_and_merged_stores(tiny_model: interp.Model, whole: interp.Run, tmp_path: Path) -> None:
    from interp.runs.run import execute
    from interp.tracing.prepare import prepare

    prepared = prepare(tiny_model, TEXTS, steps=2, record=BUNDLED)
    for index in range(2):
        execute(prepared, tmp_path / "shared.zarr", shard=(index, 2))
        execute(prepared, tmp_path / f"{index}.zarr", shard=(index, 2))
    check_summary(interp.open_run(tmp_path / "shared.zarr"), whole)
    assert merge(tmp_path / "all.zarr", [tmp_path / "0.zarr", tmp_path / "1.zarr"]) == 7
    check_summary(interp.open_run(tmp_path / "all.zarr"), whole)
    assert verify(tmp_path / "all.zarr") == []


def test_an_interrupted_merge_of_bundles_resumes(
    tiny_model: interp.Model, whole: interp.Run, bundled: interp.Run, tmp_path: Path
) -> None:
    def stop(row: int) -> None:
        if row == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "all.zarr", [bundled.path], stop)
    assert merge(tmp_path / "all.zarr", [bundled.path]) > 0
    check_summary(interp.open_run(tmp_path / "all.zarr"), whole)


def test_records_with_bundles() -> None:
    assert interp.Record.parse("summary") == interp.Record(bundle=32)
    assert interp.Record.parse("stats,summary", bundle=5) == interp.Record(gates=False, bundle=5)
    with refused(InputError, "record.bundle", "record.stats=True", "record.gates=True"):
        interp.Record(stats=False, gates=False, bundle=3)
    with refused(InputError, "summary", "--record"):
        interp.Record.parse("stats", bundle=5)
    with refused(InputError, "record.bundle", "integer", 0, -1):
        interp.Record(bundle=-1)
    record = interp.Record(bundle=4)
    assert interp.Record.from_json(record.to_json()) == record
    assert "bundle" not in interp.Record().to_json(), "stores begun before can be continued"
