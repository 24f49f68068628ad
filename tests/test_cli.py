"""The command line: exit codes, one line for an error, pure JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from bad_inputs import Case, answer, places, run, set_up, shown, table
from messages import names

import interp


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    set_up(tmp_path, tiny_folder)
    return tmp_path


def trace_words(folder: Path, *more: str) -> list[str]:
    where = places(folder)
    return ["trace", "--model", where["tiny"], "--prompts", where["prompts"], "--out", where["out"], *more]


CASES = table()


@pytest.fixture(scope="module")
def _loaded_once(tiny_folder: Path) -> Iterator[None]:
    """The tiny model and the demo model are loaded once for each set of options."""
    from interp.tracing import model

    found: dict[str, Any] = {}
    original = model.load_pipeline

    def load_once(name: Any, **options: Any) -> Any:
        if str(name) not in (str(tiny_folder), "demo"):
            return original(name, **options)
        key = repr((str(name), sorted(options.items())))
        return found[key] if key in found else found.setdefault(key, original(name, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load_pipeline", load_once)
        yield


@pytest.mark.usefixtures("_loaded_once")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.wrong)
def test_bad_input_gets_one_clear_line(case: Case, tmp_path: Path, tiny_folder: Path) -> None:
    code, out, err = answer(case, tmp_path, tiny_folder)
    assert code == case.code, err
    assert out == ""
    assert re.fullmatch(r"interp: [^\n]+\n", err), err
    text = shown(err, tmp_path, tiny_folder)
    assert names(text, *case.names) == [], text
    assert "Traceback" not in err
    assert "defect in interp" not in err


def test_the_table_is_long_enough() -> None:
    """No row is lost: two rows that differ in nothing but their number would be one."""
    assert len({case.command + case.wrong for case in CASES}) == len(CASES) >= 160


def test_trace_prints_the_store_and_info_describes_it(folder: Path) -> None:
    code, out, err = run(trace_words(folder, "--steps", "2", "--record", "stats,gates,hidden", "--blocks", "0,-1"))
    assert (code, out) == (0, f"{folder / 'out.zarr'}\n"), err
    assert not names(err, "1 of 1", "interp info")
    code, out, _ = run(["info", str(folder / "out.zarr")])
    assert code == 0
    assert "a red cat" in out
    opened = interp.open_run(folder / "out.zarr")
    assert list(opened.hidden["image"]["block"].values) == [0, 3]


def test_json_is_pure(folder: Path) -> None:
    for words in (
        trace_words(folder, "--dry-run", "--json"),
        trace_words(folder, "--steps", "1", "--json"),
        ["info", str(folder / "out.zarr"), "--json"],
        ["models", "--json"],
    ):
        code, out, _ = run(words)
        assert code == 0
        json.loads(out)


@pytest.mark.parametrize(
    "record", ["stats,gates,hidden,modulation", "stats,gates,summary", "stats,gates,branches,prediction,hidden"]
)
def test_a_dry_run_writes_nothing_and_predicts_the_sizes(record: str, folder: Path) -> None:
    more = ["--record", record, "--repeats", "3"]
    code, out, _ = run(trace_words(folder, "--dry-run", "--json", *more))
    assert code == 0
    assert not (folder / "out.zarr").exists()
    plan = json.loads(out)
    predicted = {row["variable"]: row for row in plan["variables"]}
    run(trace_words(folder, *more))
    store = folder / "out.zarr"
    root = zarr.open_group(str(store), mode="r")
    large = {
        name: array
        for name, array in root.members(max_depth=None)
        if isinstance(array, zarr.Array) and array.ndim > 1 and not name.endswith("present")
    }
    assert {name for name in predicted if not name.startswith(("summary/", "attributes"))} == {
        name for name in large if not name.startswith("summary/")
    }
    for name, row in predicted.items():
        if name in large and not name.startswith("summary/"):
            assert row["bytes"] == large[name].nbytes, name
            found = sum(file.stat().st_size for file in (store / name / "c").rglob("*") if file.is_file())
            assert name.startswith("outputs/image") or row["disk_bytes"] == pytest.approx(found, rel=0.1), name
    whole = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert plan["disk_bytes"] == pytest.approx(whole, rel=0.1)
    assert plan["seconds_a_row"] > 0


def test_a_dry_run_without_a_probe(folder: Path) -> None:
    code, out, err = run(trace_words(folder, "--dry-run", "--no-probe"))
    assert (code, err.strip()) == (0, "")
    assert not names(out, "stats/image/mean", "gates/image/alpha", "outputs/image")
    code, out, _ = run(trace_words(folder, "--dry-run", "--no-probe", "--json"))
    assert code == 0
    assert json.loads(out)["seconds_a_row"] is None
    assert not (folder / "out.zarr").exists()


def test_warnings_are_one_line_on_stderr(folder: Path) -> None:
    code, out, err = run(trace_words(folder, "--steps", "1", "--negative-prompt", "blurry"))
    assert code == 0
    assert out == f"{folder / 'out.zarr'}\n"
    warnings = [line for line in err.splitlines() if line.startswith("interp: warning: ")]
    assert len(warnings) == 1
    assert not names(warnings[0], "negative_prompt", "guidance", "cfg:4")


def test_debug_shows_the_traceback(folder: Path) -> None:
    code, _, err = run([*trace_words(folder, "--steps", "0"), "--debug"])
    assert code == 2
    assert "Traceback" in err


def test_the_installed_command_and_the_module_are_the_same() -> None:
    installed = Path(sys.executable).with_name("interp")
    for command in ([str(installed)], [sys.executable, "-m", "interp"]):
        result = subprocess.run([*command, "models"], capture_output=True, text=True, check=True)
        assert "demo" in result.stdout
        assert result.stderr == ""
