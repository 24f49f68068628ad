"""Installation: what an import costs, what is required and pinned, what a wheel holds."""

from __future__ import annotations

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
HEAVY = ("torch", "diffusers", "transformers", "nnsight", "xarray", "pandas")


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
    """The registry's torchvision breaks `import diffusers` with a CPU torch."""
    found = core_requirements()
    assert {"torch", "diffusers", "nnsight", "zarr"} <= found
    assert "torchvision" not in found


@pytest.mark.processes
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built from the checkout, installed elsewhere: names, demo weights, pages and the command are in it."""
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
    build = "from interp.models import tiny; tiny.build('sd3', 'tiny'); print(*tiny.FAMILIES)"
    found = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == sorted(path.stem for path in (PACKAGE / "models" / "families").glob("*.yaml"))
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
        if requirement.name == "triton":  # a CUDA build of torch brings its own
            continue
        assert requirement.name in pins, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pins[requirement.name]), text
        assert importlib.metadata.version(requirement.name).split("+")[0] == pins[requirement.name]


def test_what_the_wheel_includes_is_there() -> None:
    """The fast form of the wheel's test: what hatch is to add exists, and the demo's files lie in the package."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["interp"]
    assert {target for target in wheel["force-include"].values() if not target.startswith("interp/dashboard/app/")} == set()
    assert all((ROOT / source).exists() for source in wheel["force-include"])
    assert (PACKAGE / "py.typed").exists()
    assert list((PACKAGE / "models" / "demo").rglob("*.safetensors"))
