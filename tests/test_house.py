"""The package's structure: layers, public names, how long files are."""

from __future__ import annotations

import ast
import collections
import graphlib
from pathlib import Path

import pytest

import interp

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp"

TIERS = {  # from the ground up (CONTRIBUTING.md); a module imports from its own tier and from those below it
    "base": ["base"],
    "data": ["store", "metrics", "analysis", "figures", "questions"],
    "models": ["models", "interventions", "guidance", "tracing"],
    "runs": ["runs", "experiments", "evaluation", "findings"],
    "use": ["testing", "integrations", "report", "dashboard", "cli"],
}
RANK = {name: rank for rank, names in enumerate(TIERS.values()) for name in names}
SOLE_IMPORTERS = {
    "nnsight": {"tracing"},
    "diffusers": {"models"},
    "typer": {"cli"},
    "rich": {"cli"},
    "streamlit": {"dashboard"},
    "distributed": {"runs"},
}
WITHOUT_TORCH = {"base", "store", "analysis", "figures", "questions", "cli", "dashboard"}


FUNCTIONS = """
    Anatomy Experiment InputError InterpError InterpWarning Model ModelError PlanError Record Run RunError Select Site Stream
    SiteRecorder StoreError TraceError Workers collapse disrupt dose features gates generate govern guided lens load
    open_experiment open_run patch read_prompts register_anatomy swap sweep trace transport wrap
"""
MODULES = """
    alignment attribution comparison descriptors energy evaluation figures findings frames glance guidance interventions kinds
    massive metrics models residual segmentation sites stability statistics study tokens trend
"""


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
    assert here in RANK, f"{here} has no tier: add it to TIERS and to CONTRIBUTING.md"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "interp" and rest and rest.split(".")[0] in RANK:
            there = rest.split(".")[0]
            assert RANK[there] <= RANK[here], f"{here} imports {name}, which is above it"
        if top in SOLE_IMPORTERS:
            assert here in SOLE_IMPORTERS[top], f"{here} imports {top}"
        if here in WITHOUT_TORCH:
            assert top not in ("torch", "diffusers", "transformers"), f"{here} imports {top}"
    if here == "store":
        assert not any(name.startswith("interp.tracing") or name.startswith("interp.models") for name in imports(path))


def test_no_import_goes_round_in_a_circle() -> None:
    """Neither between modules nor between packages; imports inside functions count."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()}
    graph: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}
    for name, path in names.items():
        found = imports(path)
        graph[name] = {one for one in found & names.keys() if one != name and not name.startswith(f"{one}.")}
        graph[name] -= {one for one in graph[name] if any(other.startswith(f"{one}.") for other in found & names.keys())}
        if "." in name:
            here = name.split(".")[1]
            packages.setdefault(here, set()).update({one.split(".")[1] for one in graph[name] if "." in one} - {here})
    graphlib.TopologicalSorter(packages).prepare()
    graphlib.TopologicalSorter(graph).prepare()


def test_no_two_modules_or_classes_have_one_name() -> None:
    inside = [path for path in modules() if path.name != "__init__.py" and not {"kinds", "cli"} & set(path.parts)]
    stems = collections.Counter(path.stem for path in inside)
    assert not {name for name, count in stems.items() if count > 1}
    classes = collections.Counter(
        node.name for path in modules() for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    )
    assert not {name for name, count in classes.items() if count > 1 and name != "Options"}


def test_the_dashboards_pages_import_no_torch() -> None:
    pages = sorted((ROOT / "dashboards").rglob("*.py"))
    assert len(pages) > 5
    for path in pages:
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & {"torch", "diffusers", "transformers", "nnsight"}, path.name
        above = {name.split(".")[1] for name in imports(path) if name.startswith("interp.")}
        assert not {name for name in above if RANK.get(name, 0) > RANK["dashboard"]}, path.name


def test_the_layer_test_sees_an_import_that_goes_up(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from interp.cli import main\n    import torch.nn\n")
    assert {"interp.cli", "interp.cli.main", "torch.nn"} <= imports(file)


def test_public_names_are_pinned() -> None:
    assert sorted(interp.__all__) == sorted(f"{FUNCTIONS} {MODULES}".split())
    for name in interp.__all__:
        assert getattr(interp, name).__doc__, name
    with pytest.raises(AttributeError, match="lode"):
        _ = interp.lode


LONGEST = 250


def test_no_file_is_longer_than_the_limit() -> None:
    sizes = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in modules()}
    sizes |= {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in (ROOT / "dashboards").rglob("*.py")}
    for name, lines in sizes.items():
        assert lines <= LONGEST, f"{name} has {lines} lines, {LONGEST} are allowed; split it by subject"
