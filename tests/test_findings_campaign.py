"""A campaign of findings from end to end: every stage, its cost, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bad_inputs import run as command
from messages import names, refused

import interp
from interp.base.errors import InputError, PlanError
from interp.base.executor import Execution
from interp.base.options import Sampling
from interp.evaluation import prompt_sets
from interp.findings.campaign import CLAIMS, campaign, judge
from interp.findings.claims import UNKNOWN, Claim
from interp.findings.setup import Setup
from interp.findings.stages import STAGES
from interp.testing import plant

NAN = float("nan")


SIZES = {"steps": 2, "budget": 60, "repeats": 2}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole campaign, as small as it gets, by the command: a planted model, its prompts and the stores in one folder."""
    folder = tmp_path_factory.mktemp("findings")
    planted = plant("sd3", channels=[5], block=0, strength=60.0, timestep_share=1.0, blocks=2)
    planted.save(folder / "model")
    (folder / "prompts.txt").write_text("\n".join(planted.prompts(4)))
    words = ["findings", "--model", str(folder / "model"), "--prompts", str(folder / "prompts.txt")]
    options = [text for name, value in SIZES.items() for text in (f"--{name}", str(value))]
    code, _, err = command([*words, *options, "--other", str(folder / "model"), "--out", str(folder / "out")])
    assert code == 0, err
    return folder, err


def setup_of(folder: Path, **changed: Any) -> Setup:
    prompts = prompt_sets.read(str(folder / "prompts.txt"))
    given = {"budget": SIZES["budget"], "others": (str(folder / "model"),), **changed}
    drawn = Sampling(steps=SIZES["steps"], repeats=SIZES["repeats"])
    return Setup(interp.load(folder / "model"), prompts, folder / "out", drawn, **given)


@pytest.mark.long
def test_every_finding(ran: tuple[Path, str]) -> None:
    folder, said = ran
    numbers = json.loads((folder / "out" / "findings.json").read_text())
    found = {one["name"]: one["said"] for one in numbers["findings"]}
    assert list(found) == [claim.name for claim in CLAIMS]
    assert found["few channels"] == UNKNOWN, "random weights draw no pictures of their prompts"
    said_all = " ".join(numbers["conclusion"])
    assert all(claim.name in said_all for claim in CLAIMS if found[claim.name] == UNKNOWN)
    assert found["DG helps"] == UNKNOWN, "nothing here can measure detail"
    page = (folder / "out" / "findings.html").read_text()
    for claim in CLAIMS:
        assert claim.name in page
    assert 'src="http' not in page
    linked = re.findall(r"href='#([\w-]+)'", page)
    assert len(set(linked)) >= 8, "claims lead to their figures"
    assert all(f"id='{one}'" in page for one in linked)
    assert not (folder / "out" / "states.zarr").exists(), "no masks were given that they could be held against"
    for stage in STAGES:
        if stage.name in ("states", "frames"):  # the model draws no videos
            continue
        assert names(said, stage.name) == []
        name = "other-0" if stage.name == "others" else stage.name
        assert (folder / "out" / f"{name}.zarr").exists()


@pytest.mark.long
def test_costs_are_upper_bounds(ran: tuple[Path, str]) -> None:
    setup = setup_of(ran[0])
    for stage in STAGES:
        if stage.name in ("disrupt", "collapse", "dose", "transport", "patch", "guidance"):
            taken = float(np.nansum(interp.open_experiment(stage.path(setup)).cells["forwards"]))
            assert 0.2 * stage.most(setup) < taken <= stage.most(setup), stage.name
    traced = {"crossed": ["crossed.zarr"], "others": ["other-0.zarr"]}
    traced["govern"] = [str(path.relative_to(setup.folder)) for path in (setup.folder / "govern").glob("*.zarr")]
    for stage in (stage for stage in STAGES if stage.name in traced):
        runs = [interp.open_run(setup.folder / name) for name in traced[stage.name]]
        taken = sum(run.rows_done for run in runs) * SIZES["steps"]
        assert 0.2 * stage.most(setup) < taken <= stage.most(setup), stage.name
        assert len(runs) <= stage.stores(setup), stage.name


@pytest.mark.long
@pytest.mark.parametrize("name", ["swap", "lens"])
def test_costs_of_single_calls_are_upper_bounds(name: str, ran: tuple[Path, str], tmp_path: Path) -> None:
    """Counted where they happen: every row of every call of the transformer."""
    setup = setup_of(ran[0])
    copied = dataclasses.replace(setup, folder=tmp_path)
    shutil.copytree(setup.folder / "crossed.zarr", tmp_path / "crossed.zarr")
    (stage,) = (stage for stage in STAGES if stage.name == name)
    rows: list[int] = []
    handle = setup.model.pipe.transformer.register_forward_pre_hook(
        lambda m, args, kwargs: rows.append(len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])),
        with_kwargs=True,
    )
    stage.run(copied, Execution(8))
    handle.remove()
    assert 0.2 * stage.most(copied) < sum(rows) <= stage.most(copied)


@pytest.mark.long
def test_the_pace_is_measured(ran: tuple[Path, str]) -> None:
    made = campaign(setup_of(ran[0]).model, setup_of(ran[0]).prompts, ran[0] / "out", **SIZES)
    pace = made.pace()
    assert 0 < pace.drawn <= pace.traced
    assert pace.store >= 0
    by_name = {stage.name: stage for stage in made.stages}
    govern, disrupt = by_name["govern"], by_name["disrupt"]
    expected = govern.most(made.setup) * pace.traced + govern.stores(made.setup) * pace.store
    assert govern.seconds(made.setup, pace) == pytest.approx(expected)
    assert disrupt.seconds(made.setup, pace) == pytest.approx(disrupt.most(made.setup) * pace.drawn)


@pytest.mark.long
@pytest.mark.parametrize(
    "only", [["early, all sizes", "random does nothing", "alpha governs"], pytest.param(None, marks=pytest.mark.full)]
)
def test_a_campaign_resumes_and_another_question_is_refused(only: list[str] | None, ran: tuple[Path, str]) -> None:
    folder, _ = ran
    setup = setup_of(folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file() and "image" in path.parts}
    assert before
    made = campaign(setup.model, setup.prompts, setup.folder, **SIZES, only=only, others=setup.others)
    kept = {one["name"]: one["said"] for one in json.loads((folder / "out" / "findings.json").read_text())["findings"]}
    found = {one.claim.name: one.verdict.said for one in made.run()}
    assert len(found) == len(only or CLAIMS)
    assert found == {name: kept[name] for name in found}
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was drawn again"
    with refused(PlanError, "steps", setup.folder, 2, 3):
        campaign(setup.model, setup.prompts, setup.folder, **{**SIZES, "steps": 3}, others=setup.others).run()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--only", "nothing of the kind"], ("only", "few channels", "nothing of the kind")),
        (["--count", "3"], ("prompts", 4)),
        (["--repeats", "0"], ("repeats", 1, 0)),
        (["--budget", "50"], ("budget", 96, 50)),
        (["--model", "sd3"], ("prompts", "--prompts FILE", "sd3")),
    ],
)
def test_bad_options_are_refused(words: list[str], named: tuple[object, ...], tmp_path: Path) -> None:
    code, out, err = command(["findings", *words, "--out", str(tmp_path / "x")])
    assert code == 2, err
    assert names(err, *named) == []
    assert out == ""


def test_masks_must_fit(demo_model: interp.Model, tmp_path: Path) -> None:
    with refused(InputError, "masks", 4, 2):
        Setup(demo_model, prompt_sets.demo(4), tmp_path, masks=np.zeros((2, 64, 64), bool))


def test_what_an_analysis_refuses_costs_no_other_claim() -> None:
    def refuses(evidence: Any) -> Any:
        raise InputError("a map needs all image tokens")

    found = judge(Claim("x", "y", "z", "-", (), refuses), SimpleNamespace())  # type: ignore[arg-type]
    assert (found.said, found.here) == (UNKNOWN, "not asked of this model: a map needs all image tokens.")


def test_a_damaged_campaign_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red cat\ntwo dog\nthe green circle\na photo of a dog\n")
    made = campaign(interp.load(tiny_folder), prompt_sets.read(str(tmp_path / "p.txt")), tmp_path / "c", steps=2)
    made.setup.claim()
    (tmp_path / "c" / "campaign.json").write_text('{"model": ')
    with refused(PlanError, "campaign.json", "--out"):
        made.setup.claim()
