"""The notebooks are kept as text, run from top to bottom without a warning of ours, show figures, and end with the switch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

jupytext = pytest.importorskip("jupytext", reason="the notebooks extra is not installed")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
LONGEST = 180  # seconds
PLOTLY = "application/vnd.plotly.v1+json"


def read(path: Path) -> Any:
    return jupytext.read(path)


def cells(notebook: Any, kind: str) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_five_notebooks_as_text_without_outputs() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number}_" for number in range(1, 6)]
    assert not [path for path in FOLDER.rglob("*") if path.suffix == ".ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_valid_and_comes_back_as_it_was(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert jupytext.writes(notebook, fmt="py:percent").split("# %%", 1)[1] == path.read_text().split("# %%", 1)[1]
    for cell in cells(notebook, "code"):
        compile(cell.source, f"{path.name}, a cell", "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_model_and_prompts_are_named_once_and_can_be_switched(path: Path) -> None:
    notebook = read(path)
    code = "\n".join(cell.source for cell in cells(notebook, "code"))
    assert code.count("interp.load(") == 1
    assert sum(line.startswith(("prompts =", "prompts, real =")) for line in code.splitlines()) == 1
    last = cells(notebook, "markdown")[-1].source
    assert "Your own model" in last
    assert "```python\nmodel = interp.load(" in last
    assert "interp.read_prompts(" in last
    switch = last.split("```python\n")[1].split("\n```")[0]
    assert len(switch.splitlines()) == 2


@pytest.mark.notebook
@pytest.mark.timeout(2 * LONGEST)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook = execute(path, tmp_path)
    outputs = [output for cell in cells(notebook, "code") for output in cell.outputs]
    errors = [output for output in outputs if output.output_type == "error"]
    assert not errors, "\n".join(errors[0].traceback)
    written = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "InterpWarning" not in written, written
    assert any(PLOTLY in output.get("data", {}) for output in outputs), "no figure was shown"
    written = [entry.name for entry in tmp_path.iterdir()]
    assert written == [f"{path.stem}.ipynb"], "a notebook writes into a temporary folder of its own, not where it is run"


def execute(path: Path, folder: Path) -> Any:
    """Run a notebook in `folder`, in this environment; `make notebooks` names a folder that keeps the executed one."""
    pytest.importorskip("nbclient")
    out = folder / f"{path.stem}.ipynb"
    jupytext.write(read(path), out)
    command = [str(Path(sys.executable).with_name("jupyter-execute")), "--inplace", "--allow-errors", f"--timeout={LONGEST}"]
    # one thread: two threads on two busy cores wait for each other; the kernel is this environment's
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    subprocess.run([*command, str(out)], env=environment, check=True, capture_output=True)
    if kept := os.environ.get("NOTEBOOKS"):
        (ROOT / kept).mkdir(parents=True, exist_ok=True)
        shutil.copy(out, ROOT / kept)
    return jupytext.read(out)
