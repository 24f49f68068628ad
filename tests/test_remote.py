"""Stores behind fsspec URLs, tried on memory://: the same numbers, continued, verified and exported."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from messages import refused, warned

import interp
from interp.base.errors import InputError, InterpWarning, StoreError
from interp.store.locations import exists, located
from interp.store.merging import merge
from interp.store.tables import export
from interp.store.verification import forget, verify

TEXTS = ["a red cat", "two dog", "the green circle"]
URL = "memory://bucket/run.zarr"
GIVEN: dict[str, Any] = {"steps": 2, "record": interp.Record(hidden=interp.Select(blocks=(1,)))}


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    """An empty bucket, and no warnings of locks, which one test asks for."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*cannot be locked.*", InterpWarning)
        yield
    fs.store.clear()


@pytest.fixture(scope="module")
def local(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    return interp.trace(tiny_model, TEXTS, out=tmp_path_factory.mktemp("local") / "r.zarr", **GIVEN)


def check_equal(run: interp.Run, local: interp.Run) -> None:
    for group in ("stats", "gates", "images", "summary"):
        one, other = getattr(run, group).load(), getattr(local, group).load()
        assert one.equals(other), group
    assert run.hidden["image"].to_dataset().load().equals(local.hidden["image"].to_dataset().load())


def test_a_run_in_a_bucket_is_that_on_a_disk(tiny_model: interp.Model, local: interp.Run) -> None:
    run = interp.trace(tiny_model, TEXTS, out=URL, **GIVEN)
    check_equal(run, local)
    assert verify(run.path) == []
    assert interp.open_run("memory://bucket/run.zarr").facts()["rows"] == "3 of 3 done"
    found = interp.massive.find(run, resamples=0)
    assert found["consensus"].equals(interp.massive.find(local, resamples=0)["consensus"])
    assert not [path for path in fsspec.filesystem("memory").find("/") if "partial" in path]


def test_it_is_continued_and_failures_are_kept(tiny_model: interp.Model, local: interp.Run) -> None:
    def stop(state: Any) -> None:
        if state.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interp.trace(tiny_model, TEXTS, out=URL, on_progress=stop, **GIVEN)
    assert interp.open_run(URL).rows_done == 2
    check_equal(interp.trace(tiny_model, TEXTS, out=URL, **GIVEN), local)
    with refused(interp.PlanError, "steps", 2, 3):
        interp.trace(tiny_model, TEXTS, out=URL, **{**GIVEN, "steps": 3})


def test_what_a_killed_process_left_of_a_new_store_is_no_store(tiny_model: interp.Model, local: interp.Run) -> None:
    (located(URL) / "stats" / "zarr.json").write_bytes(b"{}")
    assert located(URL).exists()
    assert not exists(located(URL))
    check_equal(interp.trace(tiny_model, TEXTS, out=URL, **GIVEN), local)


def test_damage_in_a_bucket(tiny_model: interp.Model, local: interp.Run) -> None:
    run = interp.trace(tiny_model, TEXTS, out=URL, **GIVEN)
    shard = next(path for path in (run.path / "stats/image/var/c/1").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-5])
    faults = verify(run.path)
    assert {(fault.row, fault.where) for fault in faults} == {(1, "stats/image/var")}
    with refused(StoreError, "stats/image/var", URL):
        interp.open_run(URL).stats["var"].isel(prompt=1).load()
    forget(run.path, faults)
    check_equal(interp.trace(tiny_model, TEXTS, out=URL, **GIVEN), local)


def test_results_and_exports(tiny_model: interp.Model, local: interp.Run, tmp_path: Path) -> None:
    from interp.store.saved_results import write_result

    run = interp.trace(tiny_model, TEXTS, out=URL, **GIVEN)
    found = interp.massive.find(run, resamples=0)
    write_result(run.path, "massive", found)
    again = interp.open_run(URL)
    assert again.results == ["massive"]
    assert again.result("massive")["consensus"].equals(found["consensus"])
    for number, source in enumerate((run, local)):
        export(source.stats[["mean_abs"]].isel(block=[0]), tmp_path / f"{number}.csv")
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


def test_an_experiment_in_a_bucket(tiny_model: interp.Model, tmp_path: Path) -> None:
    from interp.experiments.kinds.sweep import sweep

    settings = ["none", "cfg:2"]
    made = [
        sweep(tiny_model, TEXTS[:2], settings, out=out, steps=2).run() for out in ("memory://e/s.zarr", tmp_path / "s.zarr")
    ]
    assert np.array_equal(made[0].done, made[1].done)
    assert made[1].done.sum() == 4, "two prompts under two settings"
    for prompt, arm in np.argwhere(made[1].done):
        assert np.array_equal(made[0].picture(prompt, arm), made[1].picture(prompt, arm))
    assert made[0].result("sweep").equals(made[1].result("sweep"))
    assert interp.open_experiment("memory://e/s.zarr").finished


def test_messages_name_the_url(tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warned(InterpWarning, URL, "locked"):
        interp.trace(tiny_model, TEXTS[:1], out=URL, steps=1)
    with refused(InputError, "memory://bucket/none.zarr", "interp trace"):
        interp.open_run("memory://bucket/none.zarr")
    with refused(InputError, "merge", URL, "folders"):
        merge(tmp_path / "all.zarr", [URL])
    with refused(InputError, "nonsense://bucket/none.zarr"):
        interp.open_run("nonsense://bucket/none.zarr")
    assert str(located(Path("memory://bucket/run.zarr"))) == URL, "pathlib has one slash left"
    assert located("C:/windows") == Path("C:/windows")
    assert located("file:///data/x.zarr") == located(Path("file:///data/x.zarr")) == Path("/data/x.zarr")
    monkeypatch.setitem(sys.modules, "upath", None)
    with refused(InputError, URL, "universal-pathlib", "pip install 'interp[remote]'"):
        located(URL)
