"""Results in the store, figures, and the commands that make both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from bad_inputs import run
from conftest import DEMO_PROMPTS
from messages import refused
from planted_frames import planted

import interp
from interp.analysis import comparison, energy, segmentation, stability, table, trend
from interp.analysis.frames import over_frames
from interp.experiments.grid import tabulate
from interp.experiments.keypoint_pairs import demo_pairs
from interp.figures import causes, channels, maps, marks, style
from interp.store.saved_results import write_result


@pytest.fixture(scope="module")
def demo_run(demo_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A run of the demo that keeps everything the analyses can use."""
    record = interp.Record(hidden=True, branches=True)
    out = tmp_path_factory.mktemp("demo") / "run.zarr"
    return interp.trace(demo_model, DEMO_PROMPTS, out=out, steps=2, batch_size=4, record=record)


# in the store


def test_a_result_reads_back_as_it_was_and_the_store_can_resume(tiny_model: interp.Model, tmp_path: Path) -> None:
    out, prompts = tmp_path / "run.zarr", ["a red cat", "two dog"]
    first = interp.trace(tiny_model, prompts, out=out)
    found = interp.massive.find(first, "top:2")
    write_result(out, "massive", found)
    again = interp.open_run(out).result("massive")
    xr.testing.assert_equal(again, found)
    assert again.attrs["criterion"] == "top(k=2)"
    write_result(out, "massive", interp.massive.find(first, "top:3"))  # in its place
    assert interp.open_run(out).result("massive").attrs["criterion"] == "top(k=3)"
    assert interp.open_run(out).results == ["massive"]
    assert "results" in repr(interp.open_run(out))
    assert interp.trace(tiny_model, prompts, out=out).rows_done == 2
    with refused(interp.InputError, "trend", "massive"):
        interp.open_run(out).result("trend")
    shutil.rmtree(out / "analysis" / "massive" / "score")
    (out / "analysis" / "massive" / "selected" / "zarr.json").write_text("{")
    with refused(interp.StoreError, "result", "massive"):
        interp.open_run(out).result("massive")


def test_a_result_needs_a_plain_name_and_plain_attributes(demo_run: interp.Run) -> None:
    found = interp.massive.find(demo_run, resamples=0)
    with refused(interp.InputError, "name", "../elsewhere"):
        write_result(demo_run.path, "../elsewhere", found)
    with refused(interp.InputError, "attributes", "JSON"):
        write_result(demo_run.path, "massive", found.assign_attrs(wrong=object()))


# figures


def every_figure(model: interp.Model, demo_run: interp.Run, folder: Path) -> dict[str, go.Figure]:
    found = interp.massive.find(demo_run, resamples=20)
    truth = np.zeros((4, 64, 64), bool)
    truth[:, 16:48, 16:48] = True
    split = interp.attribution.decompose(demo_run, [29])
    table = tabulate(model, DEMO_PROMPTS, timesteps=4)
    pair = comparison.runs([demo_run, demo_run], ["a", "b"])
    pck = interp.features(model, demo_pairs(2), out=folder / "f.zarr", channels=[29], blocks=[3, 5], steps=2)
    return {
        "spikes": channels.spikes(found),
        "scores": channels.scores(found),
        "surface": channels.surface(energy.surface(demo_run)),
        "layers": channels.layers(interp.massive.profile(demo_run, [29])),
        "trend": channels.trend(trend.over_timesteps(demo_run, [29])),
        "stability": channels.stability(stability.sets(demo_run)),
        "energy": channels.energy(energy.shares(demo_run)),
        "frames": channels.frames(over_frames(planted([3.0, 3.0, 2.0, 2.0, 1.5, 1.5], 1.2), [3, 7])),
        "outliers": channels.outliers(energy.outliers(demo_run)),
        "token_norms": channels.token_norms(energy.token_norms(demo_run, [29])),
        "alignment": causes.alignment(interp.alignment.compare(demo_run)),
        "attribution": causes.attribution(split),
        "gates": causes.gates(table),
        "residual": causes.residual(interp.residual.decompose(demo_run, [29])),
        "comparison": causes.comparison(pair),
        "clusters": maps.clusters(interp.segmentation.masks(demo_run, [29])),
        "token_map": maps.token_map(segmentation.similarity(demo_run, 3)),
        "overlap": maps.overlap(segmentation.score(demo_run, truth, k=4, repeats=2)),
        "principal": maps.principal(segmentation.principal_map(demo_run)),
        "pictures": maps.pictures(demo_run.images["image"]),
        "pck": maps.pck(pck.run().result("features")),
        **at_a_glance(demo_run),
    }


def at_a_glance(run: interp.Run) -> dict[str, go.Figure]:
    """The figures that the dashboard's pages draw from a summary, or from one state."""
    found, ratio = interp.glance.massive(run), interp.glance.ratio(run, 29)
    place = {"prompt": 1, "step": int(ratio["step"][-1]), "block": 3}
    here = interp.tokens.channel_map(run, 29, **place)
    written = interp.residual.decompose(run, [29])
    return {
        "threshold": channels.threshold(found),
        "one_state": channels.one_state(interp.glance.channels(run, block=3, step=0), selected=[29]),
        "steps": channels.steps(ratio, "ratio", "times", block=1, step=1),
        "step_cells": marks.clickable(channels.steps(ratio, "ratio", "times")),
        "curves": causes.curves(run.stats["mean_abs"].sel(block=3, stream="image", channel=29), prompt=1),
        "variance": causes.variance(interp.glance.variance(run, [29])),
        "gate_grid": causes.gate_grid(interp.glance.alpha(run, 29)),
        "alpha_and_size": causes.alpha_and_size(interp.glance.alpha_and_size(run, block=1), selected=[29]),
        "factors": causes.factors(written),
        "over_picture": maps.over_picture(here, run.images["image"].sel(prompt=1).to_numpy(), token=(2, 3)),
        "token_cells": marks.clickable(maps.over_picture(here)),
        "token_channels": maps.token_channels(interp.tokens.token(run, 2, 3, **place)),
    }


def test_every_figure_function_draws_and_is_labelled(demo_model: interp.Model, demo_run: interp.Run, tmp_path: Path) -> None:
    figures = every_figure(demo_model, demo_run, tmp_path)
    for module in (channels, causes, maps):
        own = {n for n, f in vars(module).items() if callable(f) and f.__module__ == module.__name__}
        public = {name for name in own if not name.startswith("_")}
        assert public <= set(figures), f"figures of {module.__name__} that nothing draws: {public - set(figures)}"
    for name, made in figures.items():
        assert made.data, name
        assert made.layout.title.text, name
        if name not in ("surface", "clusters", "principal", "pictures", "factors"):
            assert made.layout.xaxis.title.text, name
            assert made.layout.yaxis.title.text, name
    path = style.write(figures["layers"], tmp_path / "deep" / "layers.html")
    assert "plotly" in path.read_text(encoding="utf-8")[:100_000].lower()
    with refused(interp.InputError, "layers.pdf", "html", "png", "svg"):
        style.write(figures["layers"], tmp_path / "layers.pdf")


def test_a_picture_without_a_browser_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Image export requires kaleido\nmore")

    monkeypatch.setattr(go.Figure, "to_image", fail)
    with refused(interp.InputError, "x.png", "kaleido", "Chrome", "Image export requires kaleido"):
        style.write(go.Figure(), tmp_path / "x.png")


# commands


MASSIVE = ["massive", "profile of the image stream", "trend over timesteps", "stability of the top 8"]
BY_ELEMENTS = ["massive", "--criterion", "two_sigma", "--channels", "29"]
TOKENS = {True: ["token norms"], False: []}


@pytest.mark.parametrize(
    ("as_json", "as_table", "sections"),
    [
        (BY_ELEMENTS, ["massive"], MASSIVE),
        pytest.param(["massive"], BY_ELEMENTS, MASSIVE, marks=pytest.mark.full),
        *((words, words, [words[0]]) for words in (["alignment", "--stream", "text"], ["residual", "--channels", "29"])),
        (["attribute"], ["attribute"], ["magnitude", "alpha.attn", "alpha.mlp"]),
        pytest.param(["segment"], ["segment"], ["segmentation"], marks=pytest.mark.long),
    ],
)
def test_commands_print_json_and_tables_and_keep_results(
    as_json: list[str], as_table: list[str], sections: list[str], demo_run: interp.Run
) -> None:
    store = str(demo_run.path)
    code, out, err = run([as_json[0], store, *as_json[1:], "--json"])
    assert code == 0, err
    document = json.loads(out)
    assert {*sections, *TOKENS[as_json == BY_ELEMENTS]} <= set(document)
    for section in document.values():
        assert section["interval"]
        assert section["control"]
        assert section["averaged_over"]
    code, out, _ = run([as_table[0], store, *as_table[1:], "--no-save"])
    assert code == 0
    assert all(section in out for section in (*sections, *TOKENS[as_table == BY_ELEMENTS]))
    assert demo_run.results
    for name in demo_run.results:
        assert demo_run.result(name).attrs["analysis"]


def test_what_the_papers_measured_is_in_no_result(demo_run: interp.Run) -> None:
    _, out, _ = run(["alignment", str(demo_run.path), "--no-save"])
    assert "channel 810" in out, "a sentence of a paper, next to the table"
    _, out, _ = run(["alignment", str(demo_run.path), "--no-save", "--json"])
    assert "channel 810" not in out
    for finding in table.PUBLISHED:
        assert finding.source
        assert finding.value


def test_segment_scores_against_the_demo_worlds_masks(demo_model: interp.Model, tmp_path: Path) -> None:
    assert run(["demo", "world", "--count", "3", "--out", str(tmp_path / "world")])[0] == 0
    prompts = tmp_path / "world" / "prompts.txt"
    interp.trace(demo_model, prompts, out=tmp_path / "run.zarr", steps=2, batch_size=3, record=interp.Record(hidden=True))
    words = ["segment", str(tmp_path / "run.zarr"), "--masks", str(tmp_path / "world"), "--k", "4", "--blocks", "5", "--json"]
    code, out, err = run(words)
    assert code == 0, err
    rows = json.loads(out)["IoU with the true masks"]["rows"]
    assert [row["channels"] for row in rows] == ["top", "bottom", "random", "none: everything", "none: centre disc"]


def test_compare_and_gates_commands(demo_run: interp.Run, tmp_path: Path) -> None:
    copy = tmp_path / "other.zarr"
    shutil.copytree(demo_run.path, copy)
    code, out, _ = run(["compare", str(demo_run.path), str(copy), "--json", "--figures", str(tmp_path / "figures")])
    assert code == 0
    rows = json.loads(out)["comparison"]["rows"]
    assert [row["run"] for row in rows] == ["run", "other"]
    assert rows[0]["channel"] == rows[1]["channel"] == 29
    assert (tmp_path / "figures" / "comparison.html").exists()
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\na blue star\na cross\n")
    words = ["gates", "--model", "demo", "--prompts", str(file), "--channels", "29", "--timesteps", "5"]
    code, out, _ = run([*words, "--out", str(tmp_path / "gates.zarr"), "--json"])
    assert code == 0
    stored = interp.open_experiment(tmp_path / "gates.zarr").result("gates")
    assert stored["alpha"].sizes == {"prompt": 3, "timestep": 5, "block": 8, "stream": 2, "gate": 2, "channel": 1}
    assert run([*words, "--out", str(tmp_path / "gates.zarr")])[0] == 0
    assert run([*words[:-1], "6", "--out", str(tmp_path / "gates.zarr")])[0] == 2
