"""The house: layers, public names, what an import costs, what a wheel holds."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import interp

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp"

LAYERS = [  # from the ground up (docs/design.md); a module may import from its own layer's package and from below
    ["errors"],
    ["sites"],
    ["prompts", "plan", "statistics", "executor"],
    ["store"],
    ["metrics"],
    ["analysis"],
    ["models"],
    ["interventions"],
    ["guidance"],
    ["tracing"],
    ["provenance"],
    ["recorded"],
    ["batches"],
    ["run", "sizes"],
    ["experiments"],
    ["evaluation"],
    ["findings"],
    ["cluster"],
    ["testing"],
    ["integrations"],
    ["figures"],
    ["report"],
    ["dashboard"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SOLE_IMPORTERS = {
    "nnsight": {"tracing"},
    "diffusers": {"models"},
    "typer": {"cli"},
    "rich": {"cli"},
    "streamlit": {"dashboard"},
    "distributed": {"cluster"},
}
WITHOUT_TORCH = {"store", "analysis", "figures", "errors", "sites", "prompts", "plan", "cli", "dashboard"}
HEAVY = ("torch", "diffusers", "transformers", "nnsight", "xarray", "pandas")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module a file imports at run time, wherever in the file; imports for type checking alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = part(path)
    if here in ("__init__", "__main__"):
        return
    assert here in RANK, f"{here} has no place in the house: add it to LAYERS and to docs/design.md"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "interp" and rest and rest.split(".")[0] in RANK:
            there = rest.split(".")[0]
            assert there == here or RANK[there] < RANK[here], f"{here} imports {name}, which is above it"
        if top in SOLE_IMPORTERS:
            assert here in SOLE_IMPORTERS[top], f"{here} imports {top}"
        if here in WITHOUT_TORCH:
            assert top not in ("torch", "diffusers", "transformers"), f"{here} imports {top}"
    if here == "store":
        assert not any(name.startswith("interp.tracing") or name.startswith("interp.models") for name in imports(path))


def test_the_layer_test_sees_an_import_that_goes_up(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from interp.cli import main\n    import torch.nn\n")
    assert {"interp.cli", "interp.cli.main", "torch.nn"} <= imports(file)


def test_public_names_are_pinned() -> None:
    assert interp.__all__ == [
        "Anatomy",
        "Experiment",
        "InputError",
        "InterpError",
        "InterpWarning",
        "Model",
        "ModelError",
        "PlanError",
        "Record",
        "Run",
        "RunError",
        "Select",
        "Site",
        "SiteRecorder",
        "StoreError",
        "TraceError",
        "Workers",
        "generate",
        "guided",
        "load",
        "open_experiment",
        "open_run",
        "read_prompts",
        "register_anatomy",
        "trace",
        "wrap",
    ]
    for name in interp.__all__:
        assert getattr(interp, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = interp.lode


@pytest.mark.parametrize(
    "code", ["import interp", "import sys; sys.argv = ['interp', '--help']; from interp.cli import main; main()"]
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    report = f"""
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))
{code}
"""
    result = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def test_opening_a_store_needs_no_torch(tiny_run: interp.Run) -> None:
    code = f"""
import sys, interp
run = interp.open_run({str(tiny_run.path)!r})
run.stats["mean"].sel(stream="image").mean().compute(), run.summary, repr(run)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def core_requirements() -> set[str]:
    """Every distribution that installing the core pulls in, by installed metadata."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    waiting = [r for r in importlib.metadata.requires("interp") or [] if "extra ==" not in r]
    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        extras = {f'extra == "{extra}"' for extra in requirement.extras}
        waiting += [n for n in needs if "extra ==" not in n or any(extra in n for extra in extras)]
    return seen


def test_the_core_does_not_pull_in_torchvision() -> None:
    """The registry's torchvision breaks `import diffusers` beside a CPU torch."""
    found = core_requirements()
    assert {"torch", "diffusers", "nnsight", "zarr"} <= found
    assert "torchvision" not in found


def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built from the checkout, installed elsewhere: names, demo weights and the command are in it."""
    wheel_folder, target = tmp_path / "wheel", tmp_path / "site"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheel_folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = wheel_folder.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-m", "interp", "models", "--json"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    models = {row["name"]: row for row in json.loads(result.stdout)}
    assert models["demo"]["available"]
    assert models["demo-early"]["available"]
    where = [sys.executable, "-c", "import interp; print(interp.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(target)
    assert (target / "interp" / "py.typed").exists()
    prompts = target / "interp" / "models" / "demo" / "prompts.txt"
    command = [sys.executable, "-m", "interp", "trace", "--model", "demo", "--prompts", str(prompts), "--dry-run"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    where = [sys.executable, "-c", "from interp.dashboard.serve import app; print(app())"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(target), "the dashboard's pages are in the wheel"
    assert {path.name for path in (Path(found.strip()).parent / "pages").glob("*.py")} == {
        path.name for path in (ROOT / "dashboards" / "pages").glob("*.py")
    }


def test_the_constraints_pin_what_the_package_accepts() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(text for extra in ("dev", "dashboard", "notebooks") for text in extras[extra])]:
        requirement = Requirement(text)
        assert requirement.name in pins, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pins[requirement.name]), text
        assert importlib.metadata.version(requirement.name).split("+")[0] == pins[requirement.name]


def test_no_file_has_grown_out_of_hand() -> None:
    for path in modules():
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines; is it still one thing?"
