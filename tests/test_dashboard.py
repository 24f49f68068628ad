"""Every page on real stores, whole and broken, without a browser; what the pages show is what the library computes."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_stores import EXPERIMENTS, MARKUP, build
from messages import names, refused
from streamlit.testing.v1 import AppTest

import interp
from interp.base.errors import InputError
from interp.dashboard import choose, frame, panel, pictures, roots
from interp.dashboard.pickers import plain

APP = Path(__file__).parent.parent / "dashboards" / "app.py"
PAGES = list(frame.TITLES)
QUICK_EXPERIMENTS = ("disrupt", "patch")


@pytest.fixture(autouse=True)
def _fresh_listing() -> Iterator[None]:
    choose._stores.clear()
    yield
    choose._stores.clear()


@pytest.fixture(scope="module")
def few_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole and broken stores, with two kinds of experiments alone; `dashboard_stores` has all kinds."""
    return build(tmp_path_factory.mktemp("few") / "stores", QUICK_EXPERIMENTS)


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, page: str, **asked: str) -> AppTest:
    """A page of the app on a folder, with what its address asks for."""
    monkeypatch.setattr(sys, "argv", ["app.py", str(folder)])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the page becomes it; worker processes import it
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.switch_page(f"pages/{page}.py")
    for name, value in asked.items():
        app.query_params[name] = value
    return app.run()


def text_of(app: AppTest, *kinds: str) -> str:
    """The text of boxes of these kinds, as a reader sees it."""
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind)).replace("\\", "")


def full(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.full)


def long(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize("page", [page if page in ("runs", "study") else full(page) for page in PAGES])
def test_every_page_opens_on_real_stores(page: str, few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"study": {}, "runs": {"store": "demo.zarr"}}.get(page, {"run": "demo.zarr"})
    app = opened(monkeypatch, few_stores, page, **asked)
    assert not app.exception
    assert not app.error, text_of(app, "error")
    assert app.title[0].value == frame.TITLES[page][0]


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        ("massive", {"run": "demo.zarr"}),
        *(long(page, {"run": "demo.zarr"}) for page in ("timestep_or_text", "writes")),
        long("where", {"run": "demo.zarr", "set": "one channel"}),
        full("where", {"run": "demo.zarr", "set": "the 12 largest of this state"}),
        *(("causal", {"experiment": f"{kind}.zarr"}) for kind in QUICK_EXPERIMENTS),
        *(full("causal", {"experiment": f"{kind}.zarr"}) for kind in EXPERIMENTS if kind not in QUICK_EXPERIMENTS),
        long("guidance", {"view": "Sweep"}),
        long("compare", {"run": "demo.zarr", "other": "other.zarr"}),
    ],
)
def test_a_page_opens_and_the_python_of_each_panel_makes_its_figure(
    page: str, asked: dict[str, str], few_stores: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    here = "experiment" not in asked or (few_stores / asked["experiment"]).exists()
    folder = few_stores if here else request.getfixturevalue("dashboard_stores")
    drawn: list[tuple[str, Any, list[str]]] = []
    original = panel.panel

    def keep(key: str, make: Any, data: Any, code: list[str], **more: Any) -> None:
        drawn.append((key, make().to_json(), list(code)))
        original(key, make, data, code, **more)

    monkeypatch.setattr(panel, "panel", keep)
    app = opened(monkeypatch, folder, page, **asked)
    assert not app.exception
    assert not app.error, text_of(app, "error")
    assert page != "causal" or not app.info, text_of(app, "info")
    assert app.title[0].value == frame.TITLES[page][0]
    assert drawn
    shown = [element.value for element in app.code]
    for key, figure, code in drawn:
        assert "\n".join(code) in shown
        names_in: dict[str, Any] = {}
        exec("\n".join(code[:-1]), names_in)
        again = eval(code[-1], names_in)
        assert json.loads(again.to_json())["data"] == json.loads(figure)["data"], key


@pytest.mark.parametrize("view", ["Gallery", "Two settings", "Live"])
def test_every_view_of_guidance(view: str, few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, few_stores, "guidance", view=view)
    assert not app.exception
    assert not app.error, text_of(app, "error")


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_folder_is_explained(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, tmp_path, page)
    assert not app.exception
    assert not app.error
    assert not names(text_of(app, "info"), tmp_path)
    assert any(element.value.startswith("interp ") for element in app.code), "a command that makes such a store"


BROKEN = {  # what the page names; a truncated store can be read where its cut arrays are not needed
    "unfinished.zarr": lambda page: () if page == "runs" else ("unfinished.zarr", 4, 8),
    "empty.zarr": lambda page: ("row",) if page == "runs" else ("row", "empty.zarr"),
    "foreign.zarr": lambda page: ("foreign.zarr", "schema"),
    "damaged.zarr": lambda page: ("damaged.zarr", "zarr.json", "JSONDecodeError"),
    "truncated.zarr": lambda page: () if page in ("runs", "where", "writes") else ("truncated.zarr", "mean_abs"),
}
QUICK = {
    "runs": "empty.zarr",
    "massive": "damaged.zarr",
    "timestep_or_text": "truncated.zarr",
    "where": "unfinished.zarr",
    "writes": "foreign.zarr",
}


@pytest.mark.parametrize(
    ("page", "store"),
    [(page, store) if QUICK[page] == store else full(page, store) for page in QUICK for store in BROKEN],
)
def test_a_broken_store_is_explained(
    page: str, store: str, few_stores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # streamlit logs to the standard error of another test
    app = opened(monkeypatch, few_stores, page, **{"store" if page == "runs" else "run": store})
    assert not app.exception
    words = text_of(app, "error", "info", "warning", "caption", "markdown")
    assert not names(words.lower(), *(str(word).lower() for word in BROKEN[store](page))), words
    assert "Traceback" not in words + capsys.readouterr().err, "an error that is none of interp's"


def test_what_an_address_asks_for_in_vain_is_named(few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, few_stores, "massive", run="demo.zarr", block="99", blok="1")
    boxes = text_of(app, "warning").splitlines()
    assert any(not names(box, "block", 99, "0, 1, 2, 3, 4, 5, 6, 7", 4) for box in boxes), boxes
    assert any(not names(box, "blok=1") for box in boxes), boxes


def test_only_stores_under_the_roots(few_stores: Path, tmp_path: Path) -> None:
    found = {store.name: store for store in roots.stores([few_stores])}
    assert "link.zarr" not in found, "a link that leads out"
    assert found["foreign.zarr"].problem
    assert found["damaged.zarr"].problem
    assert found["demo.zarr"].kind == "trace"
    assert found["patch.zarr"].kind == "patch"
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "up.zarr").symlink_to(few_stores / "other.zarr")
    (tmp_path / "near.zarr").symlink_to(inner)
    assert roots.stores([tmp_path]) == []
    one = roots.stores([few_stores / "demo.zarr"])
    assert [store.name for store in one] == ["demo.zarr"], "a store itself may be a root"


@pytest.mark.parametrize("name", ["../outside/secret.zarr", full("link.zarr"), full("/etc")])
def test_nothing_else_is_opened_by_the_address(name: str, few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(monkeypatch, few_stores, "massive", run=name)
    assert not names(text_of(app, "warning"), "run", name, "demo.zarr")
    assert app.query_params["run"] in ("demo.zarr", ["demo.zarr"])


def test_a_store_with_a_link_inside_that_leads_out_is_not_opened(few_stores: Path, tmp_path: Path) -> None:
    shutil.copytree(few_stores / "other.zarr", tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "x.zarr" / "outputs")
    (tmp_path / "x.zarr" / "outputs").symlink_to(few_stores / "demo.zarr" / "outputs")
    (found,) = roots.stores([tmp_path])
    assert found.kind == "foreign"
    assert not names(found.problem, "link")


def test_an_unfinished_run_is_named_every_time(few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("where", "where"):
        app = opened(monkeypatch, few_stores, page, run="unfinished.zarr")
        assert any(not names(line, "unfinished.zarr", 4, 8) for line in text_of(app, "caption").splitlines())


def test_a_result_of_fewer_rows_is_not_taken_for_current(few_stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.dashboard import ask

    run = interp.open_run(few_stores / "demo.zarr")
    stored = run.result("massive")
    assert ask.current(run, stored)
    assert not ask.current(run, stored.assign_attrs(rows="4 of 8 done"))


def test_two_roots_with_a_store_of_one_name(few_stores: Path) -> None:
    outside = few_stores.parent / "outside"
    names = [store.name for store in roots.stores([few_stores / "demo.zarr", outside])]
    assert names == ["demo.zarr", "secret.zarr"]


def test_a_root_that_is_not_there() -> None:
    with refused(InputError, "run", "/nowhere/at/all"):
        roots.parse(["/nowhere/at/all"])


def test_prompts_are_shown_as_text() -> None:
    for sign in "*<>$:[]`_":
        assert f"\\{sign}" in plain(f"a{sign}b")
    assert plain(MARKUP).replace("\\", "") == MARKUP


@pytest.mark.processes
def test_no_page_imports_torch(few_stores: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['app.py', sys.argv[1]]\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=120).run()\n"
        f"for page in {PAGES!r}:\n"
        "    app.switch_page(f'pages/{page}.py'); app.run(); assert not app.exception\n"
        "loaded = [name for name in ('torch', 'diffusers', 'transformers', 'pickle5') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(few_stores)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def summaries(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of summaries alone."""
    folder = tmp_path_factory.mktemp("summaries")
    texts = ["a red cat", "two dog", "a cat", "the green circle"]
    interp.trace(tiny_model, texts, out=folder / "b.zarr", steps=2, record=interp.Record(bundle=2))
    return folder


@pytest.mark.parametrize("page", [full(page) if page in ("causal", "guidance") else page for page in PAGES if page != "study"])
def test_every_page_of_a_store_of_summaries(page: str, summaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What means can show is shown; what needs single prompts names what to record."""
    app = opened(monkeypatch, summaries, page, run="b.zarr")
    assert not app.exception
    if page in ("massive", "timestep_or_text", "compare"):
        assert app.get("plotly_chart")
    if page == "runs":
        assert not names(app.dataframe[0].value.to_string(), "b.zarr")
    if page in ("where", "writes"):
        assert any("--record" in element.value for element in app.code), "the command that keeps what is missing"
    assert bool(app.error) == (page in ("massive", "timestep_or_text"))
    for error in app.error:
        assert not names(str(error.value).replace("\\", ""), "b.zarr", "stats", "--record summary")


def test_a_difference_of_pictures_is_the_same_both_ways() -> None:
    """Bytes do not wrap round; the largest difference is white."""
    light, dark = np.full((2, 2, 3), 250, np.uint8), np.full((2, 2, 3), 240, np.uint8)
    dark[0, 0] = 245
    for one, other in ((light, dark), (dark, light)):
        apart, gain = pictures.difference(one, other)
        assert gain == 25.5
        assert apart[0, 0].tolist() == [127] * 3
        assert apart[1, 1].tolist() == [255] * 3
    assert pictures.difference(light, light)[0].max() == 0


@pytest.fixture(scope="module")
def states(tiny_model: interp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of hidden states alone."""
    folder = tmp_path_factory.mktemp("states")
    record = interp.Record(stats=False, gates=False, hidden=True)
    interp.trace(tiny_model, ["a red cat", "two dog"], out=folder / "h.zarr", steps=2, record=record)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page != "study"])
def test_every_page_of_a_store_of_hidden_states(page: str, states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose statistics and gates were not recorded name what to record."""
    app = opened(monkeypatch, states, page, **{"store" if page == "runs" else "run": "h.zarr"})
    assert not app.exception
    words = text_of(app, "error", "info", "warning", "caption", "markdown")
    assert "cannot be shown" not in words, words
    if page in ("massive", "timestep_or_text", "compare", "where"):
        assert not names(words, "h.zarr", "stats", "--record stats,gates")
    assert [element for kind in ("error", "code", "dataframe") for element in app.get(kind)], (
        "what to record, or the store's facts"
    )
