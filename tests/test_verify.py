"""Damage is found wherever it is, and repaired to the bit; what is whole is left as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from bad_inputs import run as command
from messages import names, refused

import interp
from interp.base.errors import StoreError
from interp.store.verification import verify

TEXTS = ["a red cat", "two dog", "the green circle", "a photo of a dog", "a blue square"]
RECORD = interp.Record(hidden=interp.Select(blocks=(1,)), modulation=True, branches=True, prediction=True, latents="all")
GROUPS = [
    "stats/image/mean",
    "stats/image/mean_abs",
    "gates/image/alpha",
    "gates/image/shift",
    "hidden/image/hidden",
    "outputs/image",
    "outputs/latents",
]


@pytest.fixture(scope="module")
def whole(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rows of every kind of array, in few files."""
    return interp.trace(tiny_model, TEXTS, out=tmp_path_factory.mktemp("whole") / "r.zarr", steps=2, record=RECORD).path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "r.zarr"))


def shards(store: Path, array: str, row: int) -> list[Path]:
    return sorted(path for path in (store / array / "c" / str(row)).rglob("*") if path.is_file())


def data_files(store: Path) -> dict[Path, bytes]:
    return {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file() and "/c/" in str(path)}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x40
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = {"flipped": flip, "cut": cut, "empty": empty, "missing": Path.unlink}


def found_in(store: Path) -> set[tuple[int | None, str]]:
    return {(fault.row, fault.where) for fault in verify(store)}


def test_a_whole_store_has_no_fault(whole: Path) -> None:
    rows: list[tuple[int, int]] = []
    assert verify(whole, lambda done, total: rows.append((done, total))) == []
    assert rows[-1] == (len(TEXTS), len(TEXTS))


def test_every_damage_is_found_in_its_row_and_array(store: Path) -> None:
    """Each damage in each array, in rows of their own; one row of each array stays whole."""
    damaged = set()
    for place, array in enumerate(GROUPS):
        for number, damage in enumerate(DAMAGES.values()):
            row = (place + number) % len(TEXTS)
            damage(shards(store, array, row)[0])
            damaged.add((row, array))
    assert len(damaged) == 28
    assert found_in(store) == damaged


def test_no_array_is_left_out(store: Path) -> None:
    """Row 2 of every array that the disk holds, whatever it is called."""
    kept = {path for path in store.rglob("c/2") if path.parent.parent.name != "done"}
    arrays = {str(path.parent.parent.relative_to(store)) for path in kept}
    assert arrays > {*GROUPS, "branches/image/branch", "outputs/predicted_velocity", "stats/image/var"}
    for path in kept:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert found_in(store) == {(2, array) for array in arrays}


@pytest.mark.full
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("array", GROUPS)
def test_a_single_damage_is_found_in_its_row(array: str, damage: Callable[[Path], None], store: Path) -> None:
    damage(shards(store, array, 2)[0])
    assert found_in(store) == {(2, array)}


def test_a_damaged_mark_counts_as_not_done(store: Path, tiny_model: interp.Model) -> None:
    for row, content in enumerate([b"", b"\x00\x01", b"\x81", b"(\xb5/\xfd"]):
        (store / "done" / "c" / str(row)).write_bytes(content)
    assert interp.open_run(store).rows_done == 1
    assert [(fault.row, fault.where) for fault in verify(store)] == [(row, "done") for row in range(4)]
    again = interp.trace(tiny_model, TEXTS, out=store, steps=2, record=RECORD)
    assert again.rows_done == len(TEXTS)
    assert verify(store) == []


def test_a_missing_or_cut_description_is_an_error(store: Path) -> None:
    (store / "stats" / "image" / "median_abs" / "zarr.json").unlink()
    with refused(StoreError, "stats/image/median_abs", store):
        verify(store)
    shutil.copy(store / "stats" / "image" / "mean" / "zarr.json", store / "stats" / "image" / "median_abs" / "zarr.json")
    text = (store / "gates" / "text" / "alpha" / "zarr.json").read_text()
    (store / "gates" / "text" / "alpha" / "zarr.json").write_text(text[: len(text) // 2])
    with refused(StoreError, store, "description"):
        verify(store)


def test_a_damaged_coordinate_is_found(store: Path) -> None:
    file = next(file for file in sorted((store / "stats" / "image" / "timestep" / "c").rglob("*")) if file.is_file())
    flip(file)
    assert [(fault.row, fault.where) for fault in verify(store)] == [(None, "stats/image/timestep")]


def test_a_repair_that_cannot_trace_the_rows_leaves_the_store(store: Path, dual_folder: Path) -> None:
    flip(shards(store, "stats/image/var", 1)[0])
    before = interp.open_run(store).rows_done
    code, _, err = command(["verify", str(store), "--repair", "--model", str(dual_folder)])
    assert code == 2
    assert names(err, "weights", store) == []
    assert interp.open_run(store).rows_done == before


def test_impossible_values_are_found(store: Path) -> None:
    root = zarr.open_group(str(store), mode="r+")
    values = root["stats/image/mean_abs"][1]
    values[0, 0, 0] = 1e6
    root["stats/image/mean_abs"][1] = values
    nothing = root["stats/image/var"][3]
    nothing[:, 0, 0] = np.nan
    root["stats/image/var"][3] = nothing
    found = {(fault.row, fault.where): fault.reason for fault in verify(store)}
    assert names(found[1, "stats/image"], "mean |x| > max |x|") == []
    assert names(found[3, "stats/image"], "var", "NaN") == []


def test_another_prompt_or_seed_is_found(store: Path) -> None:
    root = zarr.open_group(str(store), mode="r+")
    given = int(root["seed"][3])
    root["seed"][3] = 99
    assert any(not names(fault.reason, "row 3", "seed", 99, given) for fault in verify(store))
    root["prompt_text"][0] = "another prompt"
    assert any(not names(fault.reason, "prompts", "plan", "sha256") for fault in verify(store))


def test_repair_restores_every_bit_and_leaves_whole_rows(tiny_folder: Path, tmp_path: Path) -> None:
    """Row 0 is whole; each other row has a damage of its own."""
    prompts, out = tmp_path / "p.txt", tmp_path / "r.zarr"
    prompts.write_text("\n".join(TEXTS))
    words = ["trace", "--model", str(tiny_folder), "--prompts", str(prompts), "--steps", "2", "--out", str(out)]
    code, _, err = command([*words, "--record", "stats,gates,hidden", "--blocks", "1"])
    assert code == 0, err
    before = data_files(out)
    kept = (out / "done" / "c" / "0").stat().st_mtime_ns
    for row, damage in enumerate([flip, cut, empty], 1):
        damage(shards(out, "stats/image/var", row)[0])
    shards(out, "hidden/image/hidden", 4)[0].unlink()
    code, told, err = command(["verify", str(out), "--json"])
    assert code == 1
    assert {(fault["row"], fault["where"]) for fault in json.loads(told)["faults"]} == {
        *((row, "stats/image/var") for row in (1, 2, 3)),
        (4, "hidden/image/hidden"),
    }
    assert names(err, "--repair") == []
    code, _, err = command(["verify", str(out), "--repair"])
    assert code == 0, err
    assert names(err, "rows", "1, 2, 3, 4") == []
    assert data_files(out) == before
    assert (out / "done" / "c" / "0").stat().st_mtime_ns == kept
