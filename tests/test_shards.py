"""Shares of one run in several processes, and merged stores: the same store as one process gives, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import run as in_process
from messages import names, refused

import interp
from interp.base.errors import InputError, PlanError, StoreError
from interp.base.options import parse_shard
from interp.store.create import writing_lock
from interp.store.merging import merge
from interp.store.verification import verify

TEXTS = ["a red cat", "two dog", "the green circle"]  # of two seeds each: three batches of two
ROWS = 6


@pytest.fixture(scope="module")
def words(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = tmp_path_factory.mktemp("shards") / "p.txt"
    prompts.write_text("\n".join(TEXTS))
    base = ["trace", "--model", str(tiny_folder), "--prompts", str(prompts), "--steps", "2", "--repeats", "2"]
    return [*base, "--batch-size", "2", "--record", "stats,gates,hidden", "--blocks", "1"]


def trace(words: list[str], out: Path, *more: str) -> Path:
    code, _, err = in_process([*words, "--out", str(out), *more])
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trace(words, tmp_path_factory.mktemp("whole") / "r.zarr")


def chunks(store: Path) -> dict[str, bytes]:
    """Every data file but those of the summary, which is compared as numbers."""
    found = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "/c/" in name and not name.startswith("summary")}


def check_equal(store: Path, whole: Path) -> None:
    assert chunks(store) == chunks(whole)
    assert verify(store) == []
    one, other = interp.open_run(store), interp.open_run(whole)
    assert one.stored_summary is not None
    assert np.array_equal(one.summary["mean_abs"], other.summary["mean_abs"], equal_nan=True)


@pytest.mark.processes
def test_three_processes_write_one_store(words: list[str], tmp_path: Path) -> None:
    """Against one process of the same kind: whatever threads this one has."""
    command = [sys.executable, "-m", "interp", *words]
    whole, out = tmp_path / "whole.zarr", tmp_path / "r.zarr"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True, timeout=300)
    running = [
        subprocess.Popen([*command, "--out", str(out), "--shard", f"{n}/3"], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    check_equal(out, whole)


def test_shards_in_any_order_with_an_interruption_give_one_store(words: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.zarr"
    trace(words, out, "--shard", "1/2")
    (out / "done" / "c" / "2").unlink()  # as after a kill: the row is not done
    for share in ("0/2", "1/2"):
        trace(words, out, "--shard", share)
    check_equal(out, whole)


def test_only_other_shards_may_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    with writing_lock(path, (0, 3)) as let_others_in:
        let_others_in()
        with writing_lock(path, (1, 3)) as others:
            others()
            with refused(StoreError, path, "0/3", "--out"), writing_lock(path):
                pass
            with refused(StoreError, path, "shard", "--out"), writing_lock(path, (0, 2)):
                pass
            with refused(StoreError, path, "shard 1/3", "--out"), writing_lock(path, (1, 3)):
                pass
    with writing_lock(path):
        pass


def test_stores_of_separate_shards_are_merged(words: list[str], whole: Path, tmp_path: Path) -> None:
    parts = [trace(words, tmp_path / f"part{n}.zarr", "--shard", f"{n}/2") for n in range(2)]
    out = tmp_path / "all.zarr"
    assert merge(out, parts) == ROWS
    check_equal(out, whole)
    assert merge(out, parts) == 0, "rows that are there are left"
    again = tmp_path / "cli.zarr"
    code, _, err = in_process(["merge", *map(str, parts), "--out", str(again)])
    assert code == 0, err
    assert names(err, f"{ROWS} rows", f"{ROWS} of {ROWS}") == []
    assert chunks(again) == chunks(whole)


def test_stores_of_other_plans_are_not_merged(whole: Path, tiny_run: interp.Run, tmp_path: Path) -> None:
    with refused(PlanError, tiny_run.path):
        merge(tmp_path / "x.zarr", [whole, tiny_run.path])
    with refused(InputError, "parts", whole):
        merge(whole, [whole])
    with refused(InputError, "parts", "stores", "none"):
        merge(tmp_path / "x.zarr", [])
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("text", ["3/3", "x/2", "1", "-1/2", "1/0", "1/2/3", ""])
def test_a_share_that_does_not_exist_is_refused(text: str) -> None:
    with refused(InputError, "shard", "i/n", text):
        parse_shard(text)


def test_shares_are_read() -> None:
    assert parse_shard("2/3") == (2, 3)
    assert parse_shard(None) is None
