"""Findings: every rule on numbers whose verdict is known, and verdicts of planted models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import interp
from interp.analysis import paired
from interp.evaluation import prompt_sets
from interp.findings import caused, helped, observed
from interp.findings.campaign import campaign
from interp.findings.claims import FAILS, HOLDS, PARTLY, UNKNOWN
from interp.testing import plant

NAN = float("nan")


def by_block(**values: Any) -> xr.Dataset:
    """(block, channel) values of one channel."""
    return xr.Dataset({name: (("block", "channel"), np.array(value, float)[:, None]) for name, value in values.items()})


def trended(low: list[float], high: list[float], ordinary: float = 0.0) -> SimpleNamespace:
    middle = (np.array(low) + np.array(high)) / 2
    found = by_block(trend=middle, trend_low=low, trend_high=high).assign(ordinary_trend=("block", [ordinary] * len(low)))
    return SimpleNamespace(trend=found)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ([-0.9, -0.8], [-0.7, -0.6], HOLDS),
        ([0.5, 0.2], [0.9, 0.8], FAILS),
        ([-0.9, 0.2], [-0.5, 0.8], PARTLY),
        ([-0.9, -0.2], [-0.5, 0.3], UNKNOWN),
        ([NAN, NAN], [NAN, NAN], UNKNOWN),
    ],
)
def test_grows(low: list[float], high: list[float], said: str) -> None:
    assert observed.grows(trended(low, high)).said == said  # type: ignore[arg-type]


def test_what_all_channels_do_is_no_finding_about_massive_ones() -> None:
    """Ordinary channels that grow more, or are as steady."""
    assert observed.grows(trended([-0.9, -0.8], [-0.7, -0.6], ordinary=-0.95)).said == UNKNOWN  # type: ignore[arg-type]
    found = by_block(variation=[0.02], variation_low=[0.01], variation_high=[0.05]).assign(ordinary_variation=("block", [0.04]))
    assert observed.steady_over_prompts(SimpleNamespace(trend=found)).said == UNKNOWN  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [([0.01, 0.02], [0.05, 0.09], HOLDS), ([0.2, 0.3], [0.4, 0.5], FAILS), ([0.05, 0.2], [0.15, 0.3], UNKNOWN)],
)
def test_steady(low: list[float], high: list[float], said: str) -> None:
    found = by_block(variation=low, variation_low=low, variation_high=high).assign(ordinary_variation=("block", [0.1, 0.1]))
    assert observed.steady_over_prompts(SimpleNamespace(trend=found)).said == said  # type: ignore[arg-type]


def selections(selected: list[list[bool]], frequency: list[list[float]], any_massive: bool = True) -> SimpleNamespace:
    """Channels 0 and 1 of four, over blocks."""
    blocks = len(selected)
    wide = np.zeros((blocks, 4), bool)
    wide[:, :2] = selected
    sure = np.zeros((blocks, 4))
    sure[:, :2] = frequency
    axes = ("block", "channel")
    found = xr.Dataset(
        {
            "selected": (axes, wide),
            "frequency": (axes, sure),
            "score": (axes, np.where(wide, 9.0, 1.0)),
            **{name: (axes, np.where(wide, 9.0, 1.0)) for name in ("score_low", "score_high")},
            "runner_up": ("block", np.ones(blocks)),
        },
        {"block": range(blocks), "channel": range(4)},
        {"criterion": "planted"},
    )
    return SimpleNamespace(massive=found, channels=[0, 1], any_massive=any_massive)


def test_few_channels_and_every_block() -> None:
    sure = selections([[True, True]] * 3, [[1.0, 1.0]] * 3)
    assert observed.few_channels(sure).said == HOLDS  # type: ignore[arg-type]
    assert observed.every_block(sure).said == HOLDS  # type: ignore[arg-type]
    unsure = selections([[True, True]] * 3, [[0.6, 0.7]] * 3)
    assert observed.few_channels(unsure).said == UNKNOWN  # type: ignore[arg-type]
    assert observed.every_block(unsure).said == UNKNOWN  # type: ignore[arg-type]
    one_of_two = selections([[True, False], [True, True]], [[1.0, 0.0], [1.0, 1.0]])
    assert observed.every_block(one_of_two).said == PARTLY  # type: ignore[arg-type]
    unproved = selections([[False, False], [True, True]], [[0.45, 0.0], [1.0, 1.0]])
    assert observed.every_block(unproved).said == UNKNOWN, "one of the two may be there"  # type: ignore[arg-type]
    late = selections([[False, False], [True, True]], [[0.0, 0.0], [1.0, 1.0]])
    assert observed.every_block(late).said == FAILS  # type: ignore[arg-type]
    assert observed.few_channels(selections([[False, False]], [[0.0, 0.0]], any_massive=False)).said == FAILS  # type: ignore[arg-type]


def attributed(share: tuple[float, float], negligible: bool) -> SimpleNamespace:
    one = {
        name: (("term", "block", "channel"), [[[value]]])
        for name, value in zip(("share_low", "share_high"), share, strict=True)
    }
    data = {
        **one,
        "share": (("term", "block", "channel"), [[[float(np.mean(share))]]]),
        "any_prompt": (("block", "channel"), [[0.02 if negligible else 0.3]]),
        "prompt_negligible": (("block", "channel"), [[negligible]]),
        "ordinary": (("term", "block"), [[0.2], [0.5]]),
    }
    data |= {
        name: (axes, np.concatenate([value, np.zeros((1, 1, 1))])) for name, (axes, value) in data.items() if "share" in name
    }
    return SimpleNamespace(attribution=xr.Dataset(data, {"term": ["timestep", "prompt"], "block": [0], "channel": [0]}))


@pytest.mark.parametrize(
    ("share", "negligible", "said"),
    [((0.9, 0.95), True, HOLDS), ((0.6, 0.8), False, PARTLY), ((0.1, 0.3), False, FAILS), ((0.3, 0.7), False, UNKNOWN)],
)
def test_timestep_not_text(share: tuple[float, float], negligible: bool, said: str) -> None:
    assert observed.text_negligible(attributed(share, negligible)).said == said  # type: ignore[arg-type]


def disrupted(structure: str, detail: tuple[float, float, float], said: str, sharper: float = 0.0) -> SimpleNamespace:
    """One arm: the verdict of structure, the interval of detail and its verdict, and sharpness."""
    low, value, high = (np.array([[0.0], [number], [sharper]]) for number in detail)
    found = xr.Dataset(
        {name: (("measure", "arm"), one) for name, one in (("low", low), ("value", value), ("high", high))},
        {"measure": ["structure", "detail", "sharpness"], "arm": ["zero 4"]},
    ).assign(verdict=(("measure", "arm"), np.array([[structure], [said], ["minimal"]], object)))
    return SimpleNamespace(
        experiment=lambda name: SimpleNamespace(result=lambda name: found), setup=SimpleNamespace(block=4), channels=[0]
    )


@pytest.mark.parametrize(
    ("structure", "detail", "changed", "said"),
    [
        ("minimal", (0.1, 0.2, 0.3), "changed", HOLDS),
        ("changed", (0.1, 0.2, 0.3), "changed", FAILS),
        ("minimal", (-0.3, -0.2, -0.1), "changed", FAILS),
        ("cannot tell", (0.1, 0.2, 0.3), "changed", UNKNOWN),
        ("minimal", (-0.1, 0.0, 0.1), "cannot tell", UNKNOWN),
    ],
)
def test_detail_goes(structure: str, detail: tuple[float, float, float], changed: str, said: str) -> None:
    assert caused.detail_goes(disrupted(structure, detail, changed)).said == said  # type: ignore[arg-type]


def test_sharper_is_no_loss() -> None:
    assert caused.detail_goes(disrupted("minimal", (0.1, 0.2, 0.3), "changed", sharper=0.4)).said == PARTLY  # type: ignore[arg-type]
    assert caused.detail_goes(disrupted("minimal", (0.1, 0.2, 0.3), "changed", sharper=-0.4)).said == HOLDS  # type: ignore[arg-type]


def transported(moved: tuple[float, float], more: float, least: int = 0) -> SimpleNamespace:
    """`more` is what the massive channels move more than the control number `least`, of five."""
    axes = ("metric", "channels", "strength")
    low, high = moved
    data = {
        name: (axes, np.full((1, 2, 1), value)) for name, value in (("moved_low", low), ("moved_high", high), ("moved", low))
    }
    sets = ["massive", "control", "zero", "shuffled", "energy", "third", "all"]
    data = {name: (axes, np.repeat(value[:, :1], len(sets), axis=1)) for name, (axes, value) in data.items()}
    over = {name: (("metric", "against", "strength"), np.full((1, 5, 1), 0.5)) for name in ("over", "over_low", "over_high")}
    over["over_low"][1][0, least] = over["over_high"][1][0, least] = more
    found = xr.Dataset({**data, **over}, {"metric": ["picture"], "channels": sets, "against": sets[1:6], "strength": [1.0]})
    return SimpleNamespace(experiment=lambda name: SimpleNamespace(result=lambda name: found), channels=[0])


@pytest.mark.parametrize(
    ("moved", "more", "said"),
    [
        ((0.6, 0.9), 0.4, HOLDS),
        ((0.4, 0.9), 0.4, PARTLY),  # the interval reaches below half of the way
        ((0.6, 0.9), -0.1, FAILS),  # a control moves it more
        ((0.01, 0.05), 0.01, FAILS),
        ((0.2, 0.4), 0.1, PARTLY),
        ((NAN, NAN), 0.1, UNKNOWN),
    ],
)
def test_carries_the_prompt(moved: tuple[float, float], more: float, said: str) -> None:
    for control in range(5):  # ordinary, zero, shuffled, energy, third
        assert caused.carries_the_prompt(transported(moved, more, control)).said == said  # type: ignore[arg-type]


def dosed(massive: list[int], random: list[int], amounts: tuple[float, float] = (0.1, 0.9)) -> SimpleNamespace:
    """Of 20 doses each: how many lose detail alone, how many collapse; and how large the doses of each are."""
    rows = []
    for kind, (lost, fallen) in (("massive", massive), ("random", random)):
        rows += [(kind, "detail lost alone (DG)")] * lost + [(kind, "collapse (FC)")] * fallen
        rows += [(kind, "nothing")] * (20 - lost - fallen)
    kinds, outcomes = (np.array(column, object) for column in zip(*rows, strict=True))
    size = np.array([amounts[1] if "collapse" in outcome else amounts[0] for outcome in outcomes])
    found = xr.Dataset({"outcome": ("dose", outcomes), "amount": ("dose", size)}, {"kind": ("dose", kinds)})
    return SimpleNamespace(experiment=lambda name: SimpleNamespace(result=lambda name: found))


@pytest.mark.parametrize(
    ("massive", "random", "said"), [([8, 8], [0, 0], HOLDS), ([8, 1], [0, 0], PARTLY), ([5, 5], [5, 5], UNKNOWN)]
)
def test_two_doses(massive: list[int], random: list[int], said: str) -> None:
    assert caused.doses(dosed(massive, random)).said == said  # type: ignore[arg-type]


def test_doses_the_other_way_round() -> None:
    assert caused.doses(dosed([8, 8], [0, 0], amounts=(0.9, 0.1))).said == PARTLY  # type: ignore[arg-type]


def test_nothing_measured_is_no_verdict() -> None:
    nothing = SimpleNamespace(
        channels=[0],
        profile=by_block(in_every_token=[NAN, NAN]),
        alignment=by_block(alpha_rank=[NAN]),
        massive=xr.Dataset(coords={"channel": range(4)}),
        attribution=attributed((NAN, NAN), True).attribution.assign(any_prompt=(("block", "channel"), [[NAN]])),
        dataset=lambda name: xr.Dataset(
            {"shapley": (("player", "stream", "channel"), np.full((2, 1, 1), NAN))},
            {"player": ["timestep", "text"], "stream": ["image"]},
        ),
    )
    for rule in (observed.every_token, observed.alpha_peaks, observed.text_negligible, observed.gates_by_timestep):
        assert rule(nothing).said == UNKNOWN, rule.__name__  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "detail", "said"),
    [
        ("no different, by more than the margin", "better", HOLDS),
        ("not shown", "better", UNKNOWN),
        ("worse by itself, not after correction", "better", UNKNOWN),
        ("worse", "better", PARTLY),
        ("better", "not shown", UNKNOWN),
        ("better", "worse", PARTLY),
        ("worse", "not shown", FAILS),
    ],
)
def test_guidance_helps(prompt: str, detail: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measure of the prompt stays one under the name that other weights give it."""
    verdicts = np.array([["the baseline"] * 2, [prompt, detail]], object)
    zeros = {name: (("setting", "measure"), np.zeros((2, 2))) for name in ("over", "over_low", "over_high")}
    coordinates = {"setting": ["none", "dg"], "measure": ["clip_score (0a1b2c3d)", "hps_v2_1"]}
    found = xr.Dataset({**zeros, "verdict": (("setting", "measure"), verdicts)}, coordinates)
    monkeypatch.setattr(helped, "of_experiment", lambda drawn: None)
    monkeypatch.setattr(helped, "score", lambda *given: SimpleNamespace(part=lambda settings: None))
    monkeypatch.setattr(helped, "compare", lambda part: found)
    drawn = SimpleNamespace(axes={"arm": range(4)})
    evidence = SimpleNamespace(scorers=(object(),), experiment=lambda name: drawn)
    assert helped.dg_helps(evidence).said == said  # type: ignore[arg-type]


def test_detail_alone_does_not_keep_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measure of the prompt: nothing is kept; and another measure of detail that is worse by itself holds nothing."""
    monkeypatch.setattr(helped, "of_experiment", lambda drawn: None)
    monkeypatch.setattr(helped, "score", lambda *given: SimpleNamespace(part=lambda settings: None))
    evidence = SimpleNamespace(scorers=(object(),), experiment=lambda name: SimpleNamespace(axes={"arm": range(4)}))

    def said(**verdicts: str) -> str:
        zeros = {n: (("setting", "measure"), np.zeros((2, len(verdicts)))) for n in ("over", "over_low", "over_high")}
        both = np.array([["the baseline"] * len(verdicts), list(verdicts.values())], object)
        found = xr.Dataset({**zeros, "verdict": (("setting", "measure"), both)}, {"setting": [0, 1], "measure": list(verdicts)})
        monkeypatch.setattr(helped, "compare", lambda part: found)
        return helped.dg_helps(evidence).said  # type: ignore[arg-type]

    assert said(hps_v2_1="better", aesthetic="better") == UNKNOWN
    assert said(hps_v2_1="better", clip_score="better") == HOLDS
    assert said(hps_v2_1="better", aesthetic=f"worse{paired.ALONE}", clip_score="better") == UNKNOWN


def clamped(removed: list[float], alpha: list[float], branch: list[float], raised: float) -> SimpleNamespace:
    """One gate in each of some blocks: sizes left at the last block, with intervals of 0.05 to both sides."""
    arms = {"removed": removed, "alpha_ordinary": alpha, "branch_ordinary": branch, "raised_ordinary": [1.0] * len(removed)}
    values = np.array(list(arms.values()))[:, :, None, None]
    axes = ("arm", "block", "gate", "measured")
    data = {f"ratio{end}": (axes, values + off) for end, off in (("", 0), ("_low", -0.05), ("_high", 0.05))}
    data["over_median"] = (axes[:3], np.full(values.shape[:3], raised))
    found = xr.Dataset(data, {"arm": list(arms), "gate": ["mlp"], "measured": ["last"]})
    return SimpleNamespace(dataset=lambda name: found, channels=[0])


@pytest.mark.parametrize(
    ("removed", "alpha", "branch", "raised", "said"),
    [
        ([0.1, 0.9], [0.1, 0.9], [0.8, 1.0], 40.0, HOLDS),
        ([0.8, 0.9], [0.8, 0.9], [0.8, 0.9], 1.0, UNKNOWN),  # no single gate sets the size
        ([0.5, 0.9], [0.5, 0.9], [0.5, 0.9], 1.0, UNKNOWN),
        ([0.1, 0.9], [0.8, 0.9], [0.1, 0.9], 1.0, FAILS),  # a large branch under a median gate
        ([0.1, 0.9], [0.1, 0.9], [0.1, 0.9], 1.0, PARTLY),  # both
        ([0.1, 0.9], [0.1, 0.9], [0.8, 0.9], 1.0, PARTLY),  # an ordinary channel does not become massive
        ([NAN], [NAN], [NAN], NAN, UNKNOWN),
    ],
)
def test_alpha_governs(removed: Any, alpha: Any, branch: Any, raised: float, said: str) -> None:
    assert caused.alpha_governs(clamped(removed, alpha, branch, raised)).said == said  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("family", ["sd3", "flux", "dit"])
def test_alpha_governs_what_is_planted_in_alpha(family: str, tmp_path: Path) -> None:
    gate = "mlp" if family == "sd3" else "attn"
    for by, said in (("alpha", HOLDS), ("branch", FAILS), ("both", PARTLY)):
        planted = plant(family, channels=(5, 9), block=1, gate=gate, by=by, strength=40.0, seed=1, heads=4)
        chosen = {"channels": [5, 9], "blocks": [1], "steps": 3, "batch_size": 6}
        interp.govern(planted.model, prompts=planted.prompts(6), out=tmp_path / by, **chosen).run()
        found = interp.open_experiment(tmp_path / f"{by}.zarr").result("govern")
        evidence = SimpleNamespace(dataset=lambda name, found=found: found, channels=[5, 9])
        assert caused.alpha_governs(evidence).said == said, by  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_planted_model_gets_its_planted_verdicts(share: float, tmp_path: Path) -> None:
    planted = plant("sd3", channels=[5], block=0, strength=60.0, timestep_share=share)
    texts = tuple(planted.prompts(12))
    prompts = prompt_sets.PromptSet("file", texts, (None,) * len(texts), "planted")
    made = campaign(planted.model, prompts, tmp_path / "c", only=["few channels", "every block", "timestep, not text"])
    assert [stage.name for stage in made.stages] == ["crossed"]
    withheld = [one.verdict for one in made.run()]
    assert all(one.said == UNKNOWN and "do not depend on their prompts" in one.here for one in withheld), "a random network"
    found = {claim.name: claim.judge(made.evidence) for claim in made.claims}
    assert found["few channels"].said == HOLDS
    assert found["few channels"].numbers["channels"] == [5]
    assert found["every block"].said == HOLDS
    assert found["timestep, not text"].said == (HOLDS if share else FAILS)
