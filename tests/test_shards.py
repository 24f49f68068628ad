"""Shares of one run in several processes, and stores joined: the same store as one process gives, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import interp
from interp.errors import InputError, PlanError, StoreError
from interp.plan import parse_shard
from interp.store.create import writing_lock
from interp.store.merge import merge
from interp.store.verify import verify

TEXTS = ["a red cat", "two dog", "the green circle", "a photo of a dog", "a blue square"]


@pytest.fixture(scope="module")
def command(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = tmp_path_factory.mktemp("shards") / "p.txt"
    prompts.write_text("\n".join(TEXTS))
    base = [sys.executable, "-m", "interp", "trace", "--model", str(tiny_folder), "--prompts", str(prompts)]
    return [*base, "--steps", "3", "--repeats", "2", "--batch-size", "2", "--record", "stats,gates,hidden"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "r.zarr"
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    return out


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
def test_three_processes_write_one_store(command: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.zarr"
    running = [
        subprocess.Popen([*command, "--out", str(out), "--shard", f"{n}/3"], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    check_equal(out, whole)


@pytest.mark.processes
def test_a_shard_goes_on_after_a_kill_and_alone(command: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.zarr"
    for share in ("1/2", "0/2", "1/2"):
        subprocess.run([*command, "--out", str(out), "--shard", share], check=True, capture_output=True)
        if share == "1/2" and not (out / "summary").exists():
            (out / "done" / "c" / "2").unlink()  # as after a kill: the row is not done
    check_equal(out, whole)


def test_who_may_write_beside_whom(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    with writing_lock(path, (0, 3)) as let_others_in:
        let_others_in()
        with writing_lock(path, (1, 3)) as others:
            others()
            with pytest.raises(StoreError, match="being written by shard 0/3"), writing_lock(path):
                pass
            with pytest.raises(StoreError, match="being written by shard"), writing_lock(path, (0, 2)):
                pass
            with pytest.raises(StoreError, match="another process that has shard 1/3"), writing_lock(path, (1, 3)):
                pass
    with writing_lock(path):
        pass


def test_stores_traced_apart_are_joined(command: list[str], whole: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part{n}.zarr" for n in range(2)]
    for number, part in enumerate(parts):
        subprocess.run([*command, "--out", str(part), "--shard", f"{number}/2"], check=True, capture_output=True)
    out = tmp_path / "all.zarr"
    assert merge(out, parts) == 10
    check_equal(out, whole)
    assert merge(out, parts) == 0, "rows that are there are left"
    again = tmp_path / "cli.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "interp", "merge", *map(str, parts), "--out", str(again)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "10 rows copied; 10 of 10 done" in done.stderr
    assert chunks(again) == chunks(whole)


def test_other_plans_are_not_joined(whole: Path, tiny_run: interp.Run, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="holds another run"):
        merge(tmp_path / "x.zarr", [whole, tiny_run.path])
    with pytest.raises(InputError, match="parts must not hold the store that is written"):
        merge(whole, [whole])
    with pytest.raises(InputError, match="parts must be one or more"):
        merge(tmp_path / "x.zarr", [])
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("text", ["3/3", "x/2", "1", "-1/2", "1/0", "1/2/3", ""])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="shard must be i/n with i from 0 to n - 1"):
        parse_shard(text)
    assert parse_shard("2/3") == (2, 3)
    assert parse_shard(None) is None
