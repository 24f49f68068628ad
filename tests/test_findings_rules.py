"""Rules of findings on numbers whose verdict is known: energy, segmentation, checkpoints, controls, collapse, the swap."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import planted_frames
import pytest
import xarray as xr

from interp.analysis import frames
from interp.analysis.result import Estimate
from interp.evaluation.prompt_sets import PromptSet
from interp.findings import campaign, caused, observed, videos
from interp.findings.claims import FAILS, HOLDS, PARTLY, UNKNOWN, Evidence

NAN = float("nan")


def experiment(name: str, result: str, found: xr.Dataset, **more: Any) -> Any:
    """Evidence of one experiment with one result."""

    def opened(asked: str) -> Any:
        assert asked == name
        return SimpleNamespace(result={result: found}.__getitem__)

    return SimpleNamespace(experiment=opened, **more)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ([0.6, 0.7], [0.8, 0.9], HOLDS),
        ([0.1, 0.2], [0.3, 0.4], FAILS),
        ([0.1, 0.7], [0.3, 0.9], PARTLY),
        ([0.4, 0.7], [0.6, 0.9], UNKNOWN),
        ([NAN, NAN], [NAN, NAN], UNKNOWN),
    ],
)
def test_energy_of_eight(low: list[float], high: list[float], said: str) -> None:
    values = {"share_low": low, "share_high": high, "share": (np.array(low) + np.array(high)) / 2}
    one = {name: (("k", "block"), np.array([np.zeros(2), value])) for name, value in values.items()}
    found = xr.Dataset(one, {"k": [4, 8]}).assign(even=("k", [0.01, 0.02]))
    assert observed.energy_of_eight(SimpleNamespace(energy=found)).said == said  # type: ignore[arg-type]


def segmented(top: tuple[float, float], random: tuple[float, float], trivial: float) -> SimpleNamespace:
    """Three blocks alike, the last of two steps; the first step would say the opposite."""
    pairs = {"top": top, "random": random, "bottom": (0.1, 0.2)}
    values = {
        name: (("strategy", "step", "block"), np.array([[[value] * 3, [pair[place]] * 3] for pair in pairs.values()]))
        for name, place, value in (("iou_low", 0, 0.0), ("iou_high", 1, 0.01))
    }
    middle = (("strategy", "step", "block"), np.full((3, 2, 3), 0.5))
    found = xr.Dataset({**values, "iou": middle, "either": middle}, {"strategy": list(pairs)})
    return SimpleNamespace(segmentation=found.assign(trivial=("mask", [trivial, 0.0])))


@pytest.mark.parametrize(
    ("top", "random", "trivial", "said"),
    [
        ((0.5, 0.6), (0.2, 0.3), 0.4, HOLDS),
        ((0.5, 0.6), (0.2, 0.3), 0.55, UNKNOWN),  # random ones are beaten, a mask that needs no model is not
        ((0.5, 0.6), (0.2, 0.3), 0.7, FAILS),
        ((0.2, 0.3), (0.4, 0.5), 0.1, FAILS),
        ((0.3, 0.5), (0.4, 0.6), 0.1, UNKNOWN),
        ((NAN, NAN), (0.4, 0.6), 0.1, UNKNOWN),
    ],
)
def test_subject_in_clusters(top: tuple[float, float], random: tuple[float, float], trivial: float, said: str) -> None:
    assert observed.subject_in_clusters(segmented(top, random, trivial)).said == said  # type: ignore[arg-type]


def test_no_masks_no_verdict() -> None:
    assert observed.subject_in_clusters(SimpleNamespace(segmentation=None)).said == UNKNOWN  # type: ignore[arg-type]


def test_early_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(run: list[bool], resamples: int) -> xr.Dataset:
        values = {"consensus": (("stream", "channel"), [run]), "score": (("stream", "channel"), [[9.0, 1.0]])}
        return xr.Dataset(values, {"stream": ["image"], "channel": [3, 4]})

    monkeypatch.setattr(observed.massive, "find", find)

    def said(*others: list[bool]) -> str:
        names = tuple(f"other {number}" for number in range(len(others)))
        return observed.early_and_in_all(SimpleNamespace(others=others, setup=SimpleNamespace(others=names))).said  # type: ignore[arg-type]

    assert said() == UNKNOWN
    assert said([False, False]) == FAILS
    assert said([True, False]) == said([False, False], [False, True]) == PARTLY, "never the whole claim from here"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["minimal", "minimal"], HOLDS),
        (["minimal", "changed"], FAILS),
        (["minimal", "not shown"], UNKNOWN),
        (["changed", "not shown"], FAILS),
    ],
)
def test_random_does_nothing(verdicts: list[str], said: str) -> None:
    arms = ["zero 4", "random 4"]
    words = (("measure", "arm"), np.array([["changed", one] for one in verdicts], object))
    numbers = {name: (("measure", "arm"), np.zeros((2, 2))) for name in ("low", "value", "high")}
    found = xr.Dataset({"verdict": words, **numbers}, {"measure": ["structure", "sharpness"], "arm": arms})
    evidence = experiment("disrupt", "disruption", found, setup=SimpleNamespace(block=4))
    assert caused.random_does_nothing(evidence).said == said


@pytest.mark.parametrize(
    ("top", "lowest", "over", "said"),
    [
        ((0.6, 0.8), (0.0, 0.2), (0.4, 0.8), HOLDS),
        ((0.2, 0.4), (0.0, 0.1), (0.1, 0.4), FAILS),  # half the way is not reached
        ((0.6, 0.8), (0.6, 0.8), (-0.1, 0.0), FAILS),  # the lowest do as much
        ((0.4, 0.8), (0.0, 0.2), (0.2, 0.8), UNKNOWN),
        ((0.6, 0.8), (0.3, 0.6), (0.1, 0.4), UNKNOWN),  # the lowest may do it too
        ((NAN, NAN), (NAN, NAN), (NAN, NAN), UNKNOWN),
    ],
)
def test_collapses(top: tuple[float, float], lowest: tuple[float, float], over: tuple[float, float], said: str) -> None:
    axes = ("measure", "kind", "k")

    def ends(place: int) -> Any:
        return (axes, [[[0.0, top[place]], [0.0, lowest[place]]]])

    def differences(value: float) -> Any:
        return (axes, np.full((1, 2, 2), value))

    values = {
        "low": ends(0),
        "high": ends(1),
        "value": (axes, [[[0.0, float(np.mean(top))], [0.0, float(np.mean(lowest))]]]),
        "over_lowest_low": differences(over[0]),
        "over_lowest": differences(float(np.mean(over))),
        "over_lowest_high": differences(over[1]),
    }
    found = xr.Dataset(values, {"measure": ["structure"], "kind": ["top", "lowest"], "k": [1, 24]})
    assert caused.collapses(experiment("collapse", "collapse", found)).said == said


def swapped(time: list[tuple[float, float]], text: list[tuple[float, float]] | None) -> Any:
    """Intervals by block of the massive set; the timestep moves the ordinary set less than the text does."""
    factors = {"timestep": time} | ({} if text is None else {"pooled": [(0.0, 0.01)] * len(time), "tokens": text})
    values = np.array(
        [[own, [(0.3, 0.4) if name != "timestep" else (0.0, 0.02)] * len(time)] for name, own in factors.items()]
    )  # factor, set, block, end
    axes = ("factor", "set", "block")
    data = {"moved_low": (axes, values[..., 0]), "moved_high": (axes, values[..., 1]), "moved": (axes, values.mean(-1))}
    return experiment("swap", "swap", xr.Dataset(data, {"factor": list(factors), "set": ["massive", "control"]}))


@pytest.mark.parametrize(
    ("time", "text", "said"),
    [
        ([(0.5, 0.7), (0.6, 0.8)], [(0.1, 0.2), (0.1, 0.3)], HOLDS),
        ([(0.1, 0.2), (0.1, 0.3)], [(0.5, 0.7), (0.6, 0.8)], FAILS),
        ([(0.1, 0.2), (0.6, 0.8)], [(0.5, 0.7), (0.1, 0.2)], PARTLY),
        ([(0.1, 0.6), (0.6, 0.8)], [(0.5, 0.7), (0.1, 0.2)], UNKNOWN),
        ([(NAN, NAN)], [(NAN, NAN)], UNKNOWN),
        ([(0.1, 0.2)], None, HOLDS),  # a model that is told no text
    ],
)
def test_timestep_by_intervention(time: Any, text: Any, said: str) -> None:
    assert caused.timestep_by_intervention(swapped(time, text)).said == said


@pytest.mark.parametrize(
    ("fit", "dependence", "reason"),
    [
        ((0.165, 0.281), (-0.5, -0.16), ""),  # many free attributes: a class sets little of the picture, and it fits
        ((-0.1, 0.03), (0.9, 0.95), "fit their own prompts"),  # other prompts' pictures
        ((0.01, 0.2), (0.9, 0.95), "fit their own prompts"),  # above zero, not by twice the interval
        (None, (0.9, 0.95), ""),
        (None, (0.0, 0.05), "do not depend on their prompts"),
        (None, (NAN, 0.3), "two repeats"),
    ],
)
def test_pictures_are_of_their_prompts(fit: tuple[float, float] | None, dependence: tuple[float, float], reason: str) -> None:
    fits = {} if fit is None else {"semantics": Estimate(fit[1], fit[0], 2 * fit[1] - fit[0])}
    found = Evidence.unrelated.func(SimpleNamespace(fits=fits, dependence=dependence))  # type: ignore[attr-defined]
    assert reason in found
    assert bool(found) == bool(reason)


IN_ORDER, REVERSED = ([3.0, 3.0, 2.0, 2.0, 1.5, 1.5], 1.2), ([0.5, 0.5, 0.7, 0.7, 0.9, 0.9], 0.8)


@pytest.mark.parametrize(
    ("given", "said", "early"),
    [
        (IN_ORDER, HOLDS, HOLDS),
        (REVERSED, FAILS, FAILS),
        ((3.0, 1.0), UNKNOWN, UNKNOWN),  # the first frame alone, in all steps
        ((1.0, 1.0), UNKNOWN, UNKNOWN),
        (([1.5, 1.5, 2.0, 2.0, 3.0, 3.0], 1.2), HOLDS, FAILS),
    ],
)
def test_frames_in_order(given: tuple[Any, float], said: str, early: str) -> None:
    found = frames.over_frames(planted_frames.planted(*given), [3, 7])
    assert videos.in_order(found).said == said
    assert videos.in_order_early(found).said == early


def test_frames_of_a_null_are_hardly_ever_in_order() -> None:
    """Channels whose sizes over frames are their own: at most 2 of 40 by chance, in either of two blocks alike."""
    results = [frames.over_frames(planted_frames.null(seed), [3]) for seed in range(40)]
    assert sum(videos.in_order(found).said == HOLDS for found in results) <= 2
    assert sum(videos.in_order_early(found).said == HOLDS for found in results) <= 2


def test_other_channels_alike_are_no_order_of_massive_ones() -> None:
    """All channels are in order: that is a property of the frames."""
    found = frames.over_frames(planted_frames.planted(*IN_ORDER, channels=tuple(range(40))), [3, 7])
    assert videos.in_order(found).said == videos.in_order_early(found).said == UNKNOWN


def test_pictures_have_no_frames(tiny_model: Any) -> None:
    evidence: Any = SimpleNamespace(setup=SimpleNamespace(model=tiny_model))
    assert videos.frames_in_order(evidence).said == videos.frames_early(evidence).said == UNKNOWN


def test_a_campaign_on_a_video(wan_model: Any, tmp_path: Any) -> None:
    """The stage runs, and is judged from its store; random weights draw no pictures of their prompts."""
    prompts = PromptSet("four", tuple(f"a red {thing}" for thing in ("cat", "dog", "circle", "square")), (None,) * 4, "here")
    only, sizes = ["frames in order", "frames early"], {"steps": 3, "repeats": 1, "settings": {"num_frames": 5}, "budget": 200}
    made = campaign(wan_model, prompts, tmp_path / "c", only=only, **sizes)
    assert [stage.name for stage in made.stages] == ["crossed", "frames"]
    judged = made.run()
    assert [one.verdict.said for one in judged] == [UNKNOWN] * 2
    found = videos.over_frames(made.evidence)
    assert found is not None
    assert found.attrs["channels"] == made.evidence.channels
    said = videos.frames_in_order(made.evidence)
    assert "first / boundary" in said.here or said.said == UNKNOWN
