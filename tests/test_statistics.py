"""Reductions over tokens against float64 numpy, where it is hard: long sums, massive means, bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.testing.reference import statistics
from interp.tracing.statistics import STATISTICS, median_magnitude, token_statistics


def states(tokens: int, mean: float, deviation: float, dtype: torch.dtype) -> torch.Tensor:
    draw = torch.Generator().manual_seed(tokens)
    return (mean + deviation * torch.randn(2, tokens, 24, generator=draw)).to(dtype)


@pytest.mark.parametrize("tokens", [1, 7, 4096])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (150.0, 0.1), (-3000.0, 20.0), (0.0, 1e-6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_equal_float64(tokens: int, mean: float, deviation: float, dtype: torch.dtype) -> None:
    value = states(tokens, mean, deviation, dtype)
    found = dict(zip(STATISTICS, token_statistics(value).unbind(1), strict=True))
    expected = statistics(value.float().numpy())
    scale = expected["mean_abs"]
    for name in STATISTICS:
        error = np.abs(found[name].double().numpy() - expected[name])
        if name == "var":  # two passes: off only by the square of the mean's own rounding
            assert (error <= 1e-5 * expected[name] + (1e-6 * scale) ** 2).all()
        else:
            assert (error <= 1e-5 * np.abs(expected[name])).all(), name


def test_extremes_are_the_elements_themselves() -> None:
    value = states(100, -3.0, 1.0, torch.float32)
    found = dict(zip(STATISTICS, token_statistics(value).unbind(1), strict=True))
    assert torch.equal(found["max_abs"], value.abs().amax(1))
    assert torch.equal(found["min_abs"], value.abs().amin(1))


def test_the_input_is_left_alone() -> None:
    value = states(10, 1.0, 1.0, torch.float32)
    before = value.clone()
    token_statistics(value)
    assert torch.equal(value, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(bad: float) -> None:
    value = states(10, 1.0, 1.0, torch.float32)
    value[1, 3, 5] = bad
    found = token_statistics(value)
    assert not torch.isfinite(found[1, :3, 5]).any()
    assert torch.isfinite(found[0]).all()


def test_the_median_is_of_every_element_or_of_a_spread_sample() -> None:
    small = torch.randn(2, 50, 30, generator=torch.Generator().manual_seed(0))
    expected = [np.sort(np.abs(state.numpy()), axis=None)[(1500 - 1) // 2] for state in small]  # torch takes the lower of two
    np.testing.assert_array_equal(median_magnitude(small), expected)
    large = torch.randn(1, 1000, 256, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 4, 256)
    exact = np.median(np.abs(large.numpy()))
    np.testing.assert_allclose(median_magnitude(large), exact, rtol=0.05)
    striped = torch.zeros(1, 1024, 64)
    striped[..., torch.arange(64) % 4 != 0] = 1.0  # every fourth channel is 0: a distance of four would see those alone
    assert median_magnitude(striped).item() == 1.0
