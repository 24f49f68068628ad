"""Every experiment takes every option of the model, the sampling and the execution; a new one takes them by being a `Kind`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import bad_inputs
import numpy as np
import pytest
from bad_inputs import run
from messages import names, refused
from typer.main import get_command

import interp
from interp.base.executor import Execution
from interp.base.options import Loading, Sampling, default_of, text_of, typed
from interp.cli import add_experiments, app
from interp.cli.experiments import Spread
from interp.experiments import kinds as known
from interp.experiments.clean import clean_run
from interp.experiments.kind import Kind
from interp.experiments.kinds import register, registered
from interp.interventions.hooks import edited
from interp.tracing.prepare import prepare

REQUIRED = {  # values of required options; a prompts file for all others
    "corrupted": ("{b}",),
    "target": ("{b}",),
    "guidance": ("none", "dg:1:channels=3:block=1"),
}
OPTIONAL = {"prompts": ("{a}",), "pairs": ("{pairs}",), "channels": ("3",), "without": ("3",), "run": ("{run}",)}
CPU = "--offload group --dtype bfloat16 --dry-run"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An experiment of a user's own, known to this process while the test runs."""
    from toy_experiment import shuffle

    monkeypatch.setattr(known, "_REGISTERED", {})
    register(shuffle)
    bad_inputs._command.cache_clear()
    yield
    bad_inputs._command.cache_clear()
    app.registered_commands[:] = [one for one in app.registered_commands if one.name != "shuffle"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, flux_model: interp.Model) -> dict[str, str]:
    """Files for each experiment of the tiny flux model."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("inputs")
    (folder / "a.txt").write_text("a red cat\ntwo dog\n")
    (folder / "b.txt").write_text("the green circle\na blue square\n")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(folder / "p.png")
    pair = {"source": "p.png", "target": "p.png", "prompts": ["a cat", "a dog"], "keypoints": [[[3, 4], [5, 6]]], "box": [9, 9]}
    (folder / "pairs.json").write_text(json.dumps([pair]))
    texts = ["a red cat", "two dog"]
    flux = folder / "flux"
    flux_model.pipe.save_pretrained(flux)
    given = {"height": 64, "width": 96, "steps": 2}
    traced = interp.trace(interp.load(flux, dtype="bfloat16"), texts, out=folder / "run.zarr", **given)
    files = {"a": "a.txt", "b": "b.txt", "pairs": "pairs.json", "run": "run.zarr", "flux": "flux"}
    assert traced.rows_done == 2
    return {name: str(folder / file) for name, file in files.items()}


def inputs_of(kind: Kind) -> str:
    """A value for every option that the kind requires, and for those that choose its inputs and channels."""
    words = []
    for field in dataclasses.fields(kind.options):
        required = default_of(field) is inspect.Parameter.empty
        values = REQUIRED.get(field.name, ("{a}",)) if required else OPTIONAL.get(field.name, ())
        words += [f"--{field.name.replace('_', '-')} {value}" for value in values]
    return " ".join(words)


@pytest.mark.parametrize("name", registered())
def test_every_experiment_is_offloaded_sized_and_priced(name: str, inputs: dict[str, str], tmp_path: Path) -> None:
    """The whole of loading and sampling from the command line; nothing is drawn."""
    about = inputs_of(registered()[name]).format(**inputs)
    size = "" if name == "gates" else "--height 64 --width 96 --steps 2"
    command = f"{name} --model {inputs['flux']} {about} {size} {CPU} --out {tmp_path / 'e.zarr'}"
    code, _, err = run(command.split())
    assert code == 0, err
    assert re.search(r"samples? x [\d,]+ arms?: .*forwards", err), err
    assert not (tmp_path / "e.zarr").exists()


def options_of(name: str) -> set[str]:
    add_experiments()
    return {word for parameter in get_command(app).commands[name].params for word in parameter.opts}  # type: ignore[attr-defined]


def words(kind: type) -> set[str]:
    return {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(kind) if text_of(typed(kind)[field.name])}


LOADING = ["trace", "generate", "evaluate", "findings", "selfcheck", "verify", *registered()]
NOT_DRAWING = {"selfcheck": "draws its own examples", "verify": "draws rows of a store, by the store's plan"}


def test_every_command_that_takes_a_model_is_listed() -> None:
    """`inspect` reads a config alone."""
    add_experiments()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert {name for name in commands if "--model" in options_of(name)} - set(LOADING) <= {"inspect"}


@pytest.mark.parametrize("name", LOADING)
def test_a_command_takes_all_of_what_it_needs(name: str) -> None:
    """Every option of loading where a model is loaded; of sampling and execution too where something is drawn."""
    wanted = words(Loading)
    if name not in NOT_DRAWING:
        wanted |= words(Sampling) | words(Execution)
    if name in registered():
        wanted |= words(Spread) | words(registered()[name].options) | {"--out", "--dry-run", "--json", "--figures", "--format"}
    assert wanted - options_of(name) == set()


@pytest.mark.parametrize("name", registered())
def test_python_takes_the_same_names(name: str) -> None:
    """The signature that `help` prints has every option as a keyword; another one is refused by name."""
    kind = registered()[name]
    signature = inspect.signature(kind)
    for of in (kind.options, Sampling, Execution):
        assert {field.name for field in dataclasses.fields(of)} <= set(signature.parameters)
    assert kind.question in (kind.__doc__ or "")
    with pytest.raises(TypeError, match="no argument 'stepz'"):
        kind("demo", ["a"], stepz=3)


@pytest.mark.usefixtures("toy")
def test_an_experiment_of_ones_own_has_everything(tiny_folder: Path, tmp_path: Path) -> None:
    """Options, a dry run, JSON, figures and resuming, by being a `Kind`; the file that defines it is short."""
    source = Path(__file__).with_name("toy_experiment.py")
    assert source.read_text().count("\n") <= 80
    assert words(Loading) | words(Sampling) | {"--blocks", "--order", "--workers"} <= options_of("shuffle")
    (tmp_path / "p.txt").write_text("a red cat\ntwo dog\n")
    command = f"shuffle --model {tiny_folder} --prompts {tmp_path / 'p.txt'} --blocks 1,2 --steps 2 --out {tmp_path / 's.zarr'}"
    code, _, err = run([*command.split(), "--dry-run"])
    assert code == 0, err
    assert names(err, 2, 3, "6 pictures") == []
    code, out, err = run([*command.split(), "--json", "--figures", str(tmp_path / "figures")])
    assert code == 0, err
    rows = json.loads(out)["structure"]["rows"]
    assert [row["arm"] for row in rows] == ["block 1", "block 2"]
    assert all(row["structure"] > 0 for row in rows)
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["pictures.html", "shuffle.html"]
    stored = interp.open_experiment(tmp_path / "s.zarr")
    assert stored.kind == "shuffle"
    assert stored.attributes["arms"][1]["edits"] == [{"edit": "Shuffle", "block": 1, "order": 0}]
    code, _, err = run([*command.split(), "--order", "5"])
    assert code == 2
    assert names(err, "s.zarr", "--out") == []
    assert "| `interp shuffle` | Shuffle the tokens of a block" in known.markdown()


@pytest.mark.usefixtures("toy")
def test_it_resumes(tiny_folder: Path, tmp_path: Path) -> None:
    """Stopped after its first unit, it keeps that; the same call draws the rest alone."""
    from toy_experiment import shuffle

    model = interp.load(tiny_folder)
    design = shuffle(model, ["a red cat", "two dog"], out=tmp_path / "s.zarr", blocks=[1, 2], steps=2, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        design.run(stopped=lambda: True)
    kept = int(interp.open_experiment(tmp_path / "s.zarr").done.sum())
    made: list[int] = []
    drawn = design.run(on_progress=lambda progress: made.append(progress.made))
    assert drawn.done.all()
    assert (0 < kept < drawn.done.size, max(made)) == (True, drawn.done.size - kept)


@pytest.mark.processes
@pytest.mark.usefixtures("toy")
def test_it_goes_through_workers(tiny_folder: Path, tmp_path: Path) -> None:
    from toy_experiment import shuffle

    model = interp.load(tiny_folder)
    one, many = (shuffle(model, ["a red cat", "two dog"], out=tmp_path / f"{n}.zarr", blocks=[1, 2], steps=2) for n in "ab")
    alone, spread = one.run(), many.run(through=interp.Workers(1))
    assert spread.attributes["arms"] == alone.attributes["arms"]
    np.testing.assert_allclose(spread.latents(1, 2), alone.latents(1, 2), rtol=1e-4, atol=1e-5)


def test_the_docs_list_every_experiment() -> None:
    """`python -c "from interp.experiments import kinds; print(kinds.markdown())"` prints the table."""
    assert known.markdown() in (Path(__file__).parent.parent / "docs" / "experiments.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("toy")
def test_its_pictures_are_the_edits(tiny_model: interp.Model, tmp_path: Path) -> None:
    """An arm equals a run of its own with the same edit, and the first arm the plain picture."""
    from toy_experiment import Shuffle, shuffle

    made = shuffle(tiny_model, ["a red cat"], out=tmp_path / "s.zarr", blocks=[1], steps=2).run()
    plain = prepare(tiny_model, ["a red cat"], steps=2)
    with edited(tiny_model, [Shuffle(1, 0)]):
        alone = clean_run(plain, plain.plan.rows()[0])
    np.testing.assert_allclose(made.latents(0, 1), alone.latents, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(made.picture(0, 0), clean_run(plain, plain.plan.rows()[0]).image)


@pytest.mark.usefixtures("toy")
def test_it_has_a_page(tiny_model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_dashboard import choose, opened, text_of
    from toy_experiment import shuffle

    shuffle(tiny_model, ["a red cat", "two dog"], out=tmp_path / "s.zarr", blocks=[1, 2], steps=2).run()
    choose._stores.clear()
    page = opened(monkeypatch, tmp_path, "causal", experiment="s.zarr")
    assert not page.exception
    assert not page.error, text_of(page, "error")
    assert "Shuffle the tokens" in text_of(page, "markdown")


def test_a_name_of_ours_is_not_taken() -> None:
    with refused(interp.InputError, "name", "disrupt"):
        register(registered()["disrupt"])
