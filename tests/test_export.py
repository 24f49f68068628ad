"""Exported files hold what the store holds, a row at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bad_inputs import run as command
from messages import names, refused

import interp
from interp.base.errors import InputError, StoreError
from interp.store.tables import export


def check(table: pd.DataFrame, data: xr.Dataset) -> None:
    """Every line's values are the cell's."""
    cells = int(np.prod([data.sizes[axis] for axis in data["mean_abs"].dims]))
    assert len(table) == cells
    for line in table.sample(60, random_state=0).to_dict("records"):
        place = {axis: line[axis] for axis in map(str, data["mean_abs"].dims)}
        cell = data.sel(place)
        for name in data.data_vars:
            value = float(cell[name]) if cell[name].ndim == 0 else None
            assert value is None or np.isclose(value, line[str(name)], rtol=1e-6, equal_nan=True)
        assert line["prompt_text"] == str(cell["prompt_text"].item())


@pytest.mark.parametrize("kind", ["csv", "parquet", "nc"])
def test_files_hold_the_store(kind: str, tiny_run: interp.Run, tmp_path: Path) -> None:
    data = tiny_run.stats.drop_vars("present")
    rows: list[tuple[int, int]] = []
    path = export(data[["mean", "mean_abs"]], tmp_path / f"x.{kind}", lambda done, total: rows.append((done, total)))
    assert rows[-1] == (data.sizes["prompt"],) * 2
    if kind == "nc":
        again = xr.open_dataset(path, engine="h5netcdf")
        assert np.array_equal(again["mean_abs"], data["mean_abs"], equal_nan=True)
        assert again["prompt_text"].to_numpy().tolist() == data["prompt_text"].to_numpy().tolist()
        return
    check(pd.read_csv(path) if kind == "csv" else pd.read_parquet(path), data[["mean", "mean_abs"]])


def test_one_row_at_a_time(tiny_run: interp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read spans two prompts."""
    read: list[int] = []
    original = xr.Dataset.load

    def load(self: xr.Dataset, **more: object) -> xr.Dataset:
        read.append(self.sizes.get("prompt", 0))
        return original(self, **more)

    monkeypatch.setattr(xr.Dataset, "load", load)
    export(tiny_run.stats.drop_vars("present"), tmp_path / "x.csv")
    assert read == [1] * tiny_run.rows_done


def test_nothing_is_left_of_a_failed_export(tiny_run: interp.Run, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tiny_run.stats.drop_vars("present"), tmp_path / "x.csv", stop)
    assert list(tmp_path.iterdir()) == []


def test_refusals(tiny_run: interp.Run, tmp_path: Path) -> None:
    with refused(InputError, "out", ".csv", ".parquet", ".nc", "x.xlsx"):
        export(tiny_run.stats, tmp_path / "x.xlsx")
    with refused(InputError, "export", "variable"):
        export(xr.Dataset(), tmp_path / "x.csv")
    (tmp_path / "file").write_text("")
    with refused(StoreError, tmp_path / "file" / "x.csv"):
        export(tiny_run.stats, tmp_path / "file" / "x.csv")


def test_the_command(tiny_run: interp.Run, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    words = ["export", str(tiny_run.path), "--out", str(out), "--variables", "max_abs"]
    more = ["--blocks", "1", "--channels", "3,5", "--stream", "image", "--steps", "-1", "--json"]
    code, printed, err = command([*words, *more])
    assert code == 0, err
    table = pd.read_parquet(out)
    assert json.loads(printed)["axes"] == {"prompt": tiny_run.rows_done, "step": 1, "block": 1, "stream": 1, "channel": 2}
    expected = tiny_run.stats["max_abs"].isel(step=[-1]).sel(block=[1], channel=[3, 5], stream=["image"]).to_numpy().ravel()
    assert table["max_abs"].to_numpy() == pytest.approx(expected)
    code, _, err = command([*words[:-1], "beauty"])
    assert code == 2
    assert names(err, "variables", "mean", "mean_abs", "beauty") == []
