"""Results as files, and how figures look: what is written is what was found, and colours stay apart."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from messages import refused
from planted_data import noise, statistics

from interp.analysis import trend
from interp.base.errors import InputError
from interp.figures import channels as figures
from interp.figures import style
from interp.store import tables


def found() -> xr.Dataset:
    return xr.Dataset(
        {"value": (("block", "channel"), np.arange(6.0).reshape(2, 3)), "chosen": ("channel", [True, False, True])},
        {"block": [0, 1], "channel": [3, 5, 7], "name": ("block", np.array(["a", "b"], dtype=object))},
        {"model": "demo", "channels": [1, 2], "nothing": None, "parts": {"a": 1}, "yes": True},
    )


def test_a_table_has_a_line_a_cell() -> None:
    table = tables.table(found())
    assert len(table) == 6
    row = table[(table["block"] == 1) & (table["channel"] == 5)].iloc[0]
    assert row["value"] == 4
    assert row["name"] == "b"
    assert not row["chosen"]


def test_axes_that_do_not_meet_are_long() -> None:
    data = xr.Dataset({"x": ("a", [1.0, 2.0]), "y": ("b", [3.0, 4.0, 5.0]), "z": 6.0})
    table = tables.table(data)
    assert len(table) == 2 + 3 + 1, "no cross product"
    assert table[table["variable"] == "y"]["value"].tolist() == [3, 4, 5]


@pytest.mark.parametrize("kind", ["csv", "parquet", "nc"])
def test_files_read_back(kind: str, tmp_path: Path) -> None:
    data, content = found(), tables.encode(found(), kind)
    if kind == "nc":
        (tmp_path / "x.nc").write_bytes(content)
        again = xr.open_dataset(tmp_path / "x.nc", engine="h5netcdf")
        assert np.array_equal(again["value"], data["value"])
        assert again["name"].to_numpy().tolist() == ["a", "b"]
        assert again.attrs["model"] == "demo"
        assert again.attrs["parts"] == '{"a": 1}'
        return
    table = pd.read_csv(io.BytesIO(content)) if kind == "csv" else pd.read_parquet(io.BytesIO(content))
    assert table["value"].tolist() == list(range(6))


def test_an_array_alone_is_a_table_too() -> None:
    assert tables.table(found()["value"])["value"].tolist() == list(range(6))


def test_unknown_and_missing_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(InputError, "format", "csv, parquet, nc", "xlsx"):
        tables.encode(found(), "xlsx")
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with refused(InputError, "nc", "h5netcdf", "h5py", "pip install 'interp[export]'"):
        tables.encode(found(), "nc")


# Machado, Oliveira and Fernandes (2009), severity 1; linear RGB
VISION = {
    "all three cones": np.eye(3),
    "no long cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as an eye sees it."""
    value = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", VISION)
def test_colours_stay_apart_for_every_eye(eye: str) -> None:
    """A difference of 2 can just be seen; lines that one must tell apart want far more."""
    seen = np.array(VISION[eye])
    for one, other in itertools.combinations(style.COLOURS, 2):
        assert np.linalg.norm(lab(one, seen) - lab(other, seen)) > 10, (one, other)


@pytest.mark.parametrize("background", ["#ffffff", "#171614"])
def test_colours_show_on_light_and_on_dark(background: str) -> None:
    for colour in (*style.COLOURS, style.CONTROL, *style.along(8)):
        assert np.linalg.norm(lab(colour, np.eye(3)) - lab(background, np.eye(3))) > 25, colour


def test_a_prompt_in_a_figure_is_text() -> None:
    assert style.short("a <b>bold</b> & more") == "a &lt;b&gt;bold&lt;/b&gt; &amp; more"
    assert style.short("one two three", 8) == "one two<br>three", "a line break is ours"


def test_a_trend_has_a_line_a_block_each_in_its_shade() -> None:
    data = statistics(noise((3, 4, 5, 16)))
    figure = figures.trend(trend.over_timesteps(data, [3]))
    lines = [trace for trace in figure.data if trace.name and trace.name.startswith("block")]
    assert len(lines) == 5
    assert len({trace.line.color for trace in lines}) == len(lines)
