"""Damage is found wherever it is, and repaired to the bit; what is whole is left as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import interp
from interp.errors import StoreError
from interp.store.verify import verify

GROUPS = [
    "stats/mean",
    "stats/mean_abs",
    "gates/alpha",
    "gates/shift",
    "hidden/image/hidden",
    "outputs/image",
    "outputs/latents",
]


@pytest.fixture
def store(tiny_run: interp.Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.path, tmp_path / "r.zarr"))


def shards(store: Path, array: str, row: int) -> list[Path]:
    return sorted(path for path in (store / array / "c" / str(row)).rglob("*") if path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x40
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_a_whole_store_has_no_fault(tiny_run: interp.Run) -> None:
    rows: list[tuple[int, int]] = []
    assert verify(tiny_run.path, lambda done, total: rows.append((done, total))) == []
    assert rows[-1] == (tiny_run.rows_done, tiny_run.rows_done)


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink], ids=["flipped", "cut", "empty", "missing"])
@pytest.mark.parametrize("array", GROUPS)
def test_damage_is_found_in_its_row(array: str, damage: Callable[[Path], None], store: Path) -> None:
    damage(shards(store, array, 2)[0])
    found = verify(store)
    assert {(fault.row, fault.where) for fault in found} == {(2, array)}


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\x81", b"(\xb5/\xfd"], ids=["empty", "long", "flipped", "other"])
def test_a_damaged_mark_counts_as_not_done(content: bytes, store: Path, tiny_model: interp.Model, tiny_run: interp.Run) -> None:
    (store / "done" / "c" / "1").write_bytes(content)
    run = interp.open_run(store)
    assert run.rows_done == tiny_run.rows_done - 1
    assert [(fault.row, fault.where) for fault in verify(store)] == [(1, "done")]
    from conftest import PROMPTS as TEXTS

    record = interp.Record(hidden=True, modulation=True, latents="all")
    again = interp.trace(tiny_model, TEXTS, out=store, record=record, repeats=2)
    assert again.rows_done == tiny_run.rows_done
    assert verify(store) == []


def test_a_description_that_is_gone_or_cut_is_said(store: Path) -> None:
    (store / "stats" / "median_abs" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="its plan asks for stats/median_abs, which is not there"):
        verify(store)
    shutil.copy(store / "stats" / "mean" / "zarr.json", store / "stats" / "median_abs" / "zarr.json")
    text = (store / "gates" / "alpha" / "zarr.json").read_text()
    (store / "gates" / "alpha" / "zarr.json").write_text(text[: len(text) // 2])
    with pytest.raises(StoreError, match="the description of an array is damaged"):
        verify(store)


def test_a_damaged_coordinate_is_found(store: Path) -> None:
    file = next(file for file in (store / "stats" / "timestep" / "c").rglob("*") if file.is_file())
    flip(file)
    assert [(fault.row, fault.where) for fault in verify(store)] == [(None, "stats/timestep")]


def test_nothing_is_forgotten_that_cannot_be_traced_again(store: Path, dual_folder: Path) -> None:
    flip(shards(store, "stats/var", 1)[0])
    before = interp.open_run(store).rows_done
    command = [sys.executable, "-m", "interp", "verify", str(store), "--repair", "--model", str(dual_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "its weights is" in done.stderr
    assert interp.open_run(store).rows_done == before


def test_values_that_cannot_be_are_found(store: Path) -> None:
    root = zarr.open_group(str(store), mode="r+")
    values = root["stats/mean_abs"][1]
    values[0, 0, 0, 0] = 1e6
    root["stats/mean_abs"][1] = values
    nothing = root["stats/var"][3]
    nothing[:, 0, 0, 0] = np.nan
    root["stats/var"][3] = nothing
    found = {(fault.row, fault.where): fault.reason for fault in verify(store)}
    assert "mean |x| > max |x|" in found[1, "stats"]
    assert "var is NaN where it should be a number" in found[3, "stats"]


def test_another_prompt_or_seed_is_found(store: Path) -> None:
    root = zarr.open_group(str(store), mode="r+")
    root["seed"][3] = 99
    assert any("row 3 has seed 99" in fault.reason for fault in verify(store))
    root["prompt_text"][0] = "another prompt"
    assert any("the stored prompts are not those of the plan" in fault.reason for fault in verify(store))


@pytest.mark.parametrize("damage", [flip, cut, empty], ids=["flipped", "cut", "empty"])
def test_repair_gives_the_store_back_to_the_bit(damage: Callable[[Path], None], tiny_folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("a red cat\ntwo dog\nthe green circle\n")
    base = [sys.executable, "-m", "interp"]
    trace = [*base, "trace", "--model", str(tiny_folder), "--prompts", str(prompts), "--steps", "3", "--out", str(out)]
    subprocess.run([*trace, "--record", "stats,gates,hidden"], check=True, capture_output=True)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file() and "/c/" in str(path)}
    damage(shards(out, "stats/var", 1)[0])
    shards(out, "hidden/image/hidden", 2)[0].unlink()
    wrong = subprocess.run([*base, "verify", str(out), "--json"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert {(fault["row"], fault["where"]) for fault in json.loads(wrong.stdout)["faults"]} == {
        (1, "stats/var"),
        (2, "hidden/image/hidden"),
    }
    assert "--repair traces the rows again" in wrong.stderr
    done = subprocess.run([*base, "verify", str(out), "--repair"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "traced again: rows 1, 2" in done.stderr
    after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file() and "/c/" in str(path)}
    assert after == before
