"""Every page on real stores, whole and broken, without a browser; what the pages show is what the library says."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_stores import MARKUP
from streamlit.testing.v1 import AppTest

import interp
from interp.dashboard import choose, frame, panel, roots
from interp.dashboard.pickers import plain
from interp.errors import InputError

APP = Path(__file__).parent.parent / "dashboards" / "app.py"
PAGES = list(frame.TITLES)
EXPERIMENTS = ["disrupt", "dose", "patch", "transport", "swap", "lens", "collapse"]


@pytest.fixture(autouse=True)
def _fresh_listing() -> Iterator[None]:
    choose._stores.clear()
    yield
    choose._stores.clear()


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, page: str, **asked: str) -> AppTest:
    """A page of the app on a folder, with what its address asks for."""
    monkeypatch.setattr(sys, "argv", ["app.py", str(folder)])
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.switch_page(f"pages/{page}.py")
    for name, value in asked.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest, *kinds: str) -> str:
    """The text of boxes of these kinds."""
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_real_stores(page: str, dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, page, **({"run": "demo.zarr"} if page != "study" else {}))
    assert not app.exception
    assert not app.error, said(app, "error")
    assert app.title[0].value == frame.TITLES[page][0]


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_every_experiment_has_a_view(kind: str, dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, "causal", experiment=f"{kind}.zarr")
    assert not app.exception
    assert not app.error, said(app, "error")
    assert not app.info, said(app, "info")


@pytest.mark.parametrize("view", ["Sweep", "Gallery", "Two settings", "Live"])
def test_every_view_of_guidance(view: str, dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, "guidance", view=view)
    assert not app.exception
    assert not app.error, said(app, "error")


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_folder_is_explained(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, tmp_path, page)
    assert not app.exception
    assert not app.error
    live = page in ("study", "guidance")
    assert app.info, "what to type is said"
    assert live or app.code


@pytest.mark.parametrize("page", ["runs", "massive", "timestep_or_text", "where", "writes"])
@pytest.mark.parametrize("store", ["unfinished.zarr", "empty.zarr", "foreign.zarr", "truncated.zarr", "damaged.zarr"])
def test_a_broken_store_is_explained(page: str, store: str, dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "store" if page == "runs" else "run"
    app = opened(monkeypatch, dashboard_stores, page, **{name: store})
    assert not app.exception
    words = said(app, "error", "info", "warning", "caption", "markdown")
    assert "Traceback" not in words
    assert "This part cannot be shown" not in words, words
    expected = {
        "unfinished.zarr": "",
        "empty.zarr": "no row" if page != "runs" else "No row",
        "foreign.zarr": "names no schema",
        "damaged.zarr": "damaged",
        "truncated.zarr": "" if page in ("runs", "where", "writes") else "cannot be read",
    }[store]
    assert expected in words.replace("\\", "")


def test_what_a_link_asks_for_in_vain_is_said(dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, "massive", run="demo.zarr", block="99", blok="1")
    words = said(app, "warning").replace("\\", "")
    assert "block = 99 is what the link asks for, but this store has 0, 1, 2, 3, 4, 5, 6, 7; showing 4." in words
    assert "blok=1" in words
    app = opened(monkeypatch, dashboard_stores, "massive", run="../outside/secret.zarr")
    assert "run = ../outside/secret.zarr" in said(app, "warning").replace("\\", "")


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        *((page, {"run": "demo.zarr"}) for page in ("massive", "timestep_or_text", "writes")),
        *(("where", {"run": "demo.zarr", "set": which}) for which in ("one channel", "the 12 largest of this state")),
        *(("causal", {"experiment": f"{kind}.zarr"}) for kind in EXPERIMENTS),
        ("guidance", {"view": "Sweep"}),
        ("compare", {"run": "demo.zarr", "other": "other.zarr"}),
    ],
)
def test_the_python_beside_a_panel_makes_its_figure(
    page: str, asked: dict[str, str], dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, Any, list[str]]] = []
    original = panel.panel

    def keep(key: str, make: Any, data: Any, code: list[str], **more: Any) -> None:
        drawn.append((key, make().to_json(), list(code)))
        original(key, make, data, code, **more)

    monkeypatch.setattr(panel, "panel", keep)
    app = opened(monkeypatch, dashboard_stores, page, **asked)
    assert not app.exception
    assert drawn
    shown = [element.value for element in app.code]
    for key, figure, code in drawn:
        assert "\n".join(code) in shown
        names: dict[str, Any] = {}
        exec("\n".join(code[:-1]), names)
        again = eval(code[-1], names)
        assert json.loads(again.to_json())["data"] == json.loads(figure)["data"], key


def test_only_stores_under_the_roots(dashboard_stores: Path, tmp_path: Path) -> None:
    found = {store.name: store for store in roots.stores([dashboard_stores])}
    assert "link.zarr" not in found, "a link that leads out"
    assert found["foreign.zarr"].problem
    assert found["damaged.zarr"].problem
    assert found["demo.zarr"].kind == "trace"
    assert found["patch.zarr"].kind == "patch"
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "up.zarr").symlink_to(dashboard_stores / "other.zarr")
    (tmp_path / "near.zarr").symlink_to(inner)
    assert roots.stores([tmp_path]) == []
    one = roots.stores([dashboard_stores / "demo.zarr"])
    assert [store.name for store in one] == ["demo.zarr"], "a store itself may be a root"


@pytest.mark.parametrize("name", ["link.zarr", "../outside/secret.zarr", "/etc"])
def test_nothing_else_is_opened_by_the_address(name: str, dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, "massive", run=name)
    assert f"run = {name} is what the link asks for" in said(app, "warning").replace("\\", "")
    assert app.query_params["run"] in ("demo.zarr", ["demo.zarr"])


def test_a_store_with_a_link_inside_that_leads_out_is_not_opened(dashboard_stores: Path, tmp_path: Path) -> None:
    shutil.copytree(dashboard_stores / "other.zarr", tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "x.zarr" / "outputs")
    (tmp_path / "x.zarr" / "outputs").symlink_to(dashboard_stores / "demo.zarr" / "outputs")
    (found,) = roots.stores([tmp_path])
    assert "leads out" in found.problem


def test_an_unfinished_run_is_said_to_be_so_every_time(dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("massive", "where", "massive"):
        app = opened(monkeypatch, dashboard_stores, page, run="unfinished.zarr")
        assert "unfinished.zarr is unfinished: 4 of 8 rows are done" in said(app, "caption").replace("\\", "")


def test_a_result_of_fewer_rows_is_not_taken_for_current(dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.dashboard import ask

    run = interp.open_run(dashboard_stores / "demo.zarr")
    stored = run.result("massive")
    assert ask.current(run, stored)
    assert not ask.current(run, stored.assign_attrs(rows="4 of 8 done"))


def test_two_roots_with_a_store_of_one_name(dashboard_stores: Path) -> None:
    outside = dashboard_stores.parent / "outside"
    names = [store.name for store in roots.stores([dashboard_stores / "demo.zarr", outside])]
    assert names == ["demo.zarr", "secret.zarr"]


def test_a_root_that_is_not_there() -> None:
    with pytest.raises(InputError, match="run must be a store or a folder"):
        roots.parse(["/nowhere/at/all"])


def test_prompts_are_shown_as_text(dashboard_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, dashboard_stores, "runs", store="demo.zarr")
    assert not app.exception
    for sign in "*<>$:[]`_":
        assert f"\\{sign}" in plain(f"a{sign}b")
    assert plain(MARKUP).replace("\\", "") == MARKUP


def test_no_page_imports_torch(dashboard_stores: Path) -> None:
    import subprocess

    code = (
        "import sys, runpy; sys.argv = ['app.py', sys.argv[1]]\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=120).run()\n"
        f"for page in {PAGES!r}:\n"
        "    app.switch_page(f'pages/{page}.py'); app.run(); assert not app.exception\n"
        "loaded = [name for name in ('torch', 'diffusers', 'transformers', 'pickle5') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(dashboard_stores)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def summaries(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of summaries alone."""
    folder = tmp_path_factory.mktemp("summaries")
    texts = ["a red cat", "two dog", "a cat", "the green circle"]
    interp.trace(tiny_model, texts, out=folder / "b.zarr", steps=2, record=interp.Record(bundle=2))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page != "study"])
def test_every_page_of_a_store_of_summaries(page: str, summaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What means can show is shown; what needs single prompts says what is missing."""
    app = opened(monkeypatch, summaries, page, run="b.zarr")
    assert not app.exception
    if page in ("runs", "massive"):
        assert app.get("plotly_chart") or app.dataframe or app.markdown
    for error in app.error:
        assert "of no single prompt" in str(error.value) or "keeps no" in str(error.value), error.value
