"""Reductions over tokens against float64 numpy, where it is hard: long sums, massive means, bfloat16. The kernel runs on a
card, or in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import interp
from interp.testing.reference import statistics
from interp.tracing.statistics import STATISTICS, fused_on, median, row_sums, sample_magnitudes, token_mean, token_statistics

Reduce = Callable[[torch.Tensor], torch.Tensor]
WAYS = ["torch", "kernel"]


@pytest.fixture
def reduce(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reduce:
    """`token_statistics` in torch, or by the kernel."""
    if request.param == "torch":
        return token_statistics
    if torch.cuda.is_available():
        return lambda value: token_statistics(value.cuda()).cpu()
    pytest.importorskip("triton")
    from interp.tracing import kernel

    return kernel.token_statistics


def states(tokens: int, mean: float, deviation: float, dtype: torch.dtype) -> torch.Tensor:
    draw = torch.Generator().manual_seed(tokens)
    return (mean + deviation * torch.randn(2, tokens, 70, generator=draw)).to(dtype)


@pytest.mark.parametrize("reduce", WAYS, indirect=True)
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (150.0, 0.1), (-3000.0, 20.0), (0.0, 1e-6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_equal_float64(reduce: Reduce, tokens: int, mean: float, deviation: float, dtype: torch.dtype) -> None:
    check(reduce, states(tokens, mean, deviation, dtype))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-3000.0, 20.0)])
def test_blocks_of_tokens_are_merged(mean: float, deviation: float) -> None:
    value = torch.cat([states(40_000, mean, deviation, torch.float32), states(7, mean, 30 * deviation, torch.float32)], dim=1)
    check(token_statistics, value)
    error = token_mean(value).double().numpy() - value.double().mean(1).numpy()
    assert (np.abs(error) <= 1e-6 * value.abs().mean(1).numpy()).all()


def check(reduce: Reduce, value: torch.Tensor) -> None:
    """1e-6 of the channel's mean |x|; for the variance of itself, and of the rounding of the mean."""
    found = dict(zip(STATISTICS, reduce(value).unbind(1), strict=True))
    expected = statistics(value.float().numpy())
    scale = expected["mean_abs"]
    for name in STATISTICS:
        error = np.abs(found[name].double().numpy() - expected[name])
        assert (error <= 1e-6 * (scale if name != "var" else expected[name] + 1e-6 * scale**2)).all(), name


def test_where_the_kernel_cannot_be_built_torch_reduces(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from interp.tracing import kernel

    def fail(states: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")

    here = torch.device("cpu")
    assert fused_on.__wrapped__(here) is kernel.token_statistics
    monkeypatch.setattr(kernel, "token_statistics", fail)
    with pytest.warns(interp.InterpWarning, match="Failed to find C compiler.*gcc"):
        assert fused_on.__wrapped__(here) is None


@pytest.mark.parametrize("reduce", WAYS, indirect=True)
def test_extremes_are_the_elements_themselves(reduce: Reduce) -> None:
    value = states(100, -3.0, 1.0, torch.float32)
    found = dict(zip(STATISTICS, reduce(value).unbind(1), strict=True))
    assert torch.equal(found["max_abs"], value.abs().amax(1))
    assert torch.equal(found["min_abs"], value.abs().amin(1))


@pytest.mark.parametrize("reduce", WAYS, indirect=True)
def test_a_part_of_a_state_is_reduced_where_it_lies(reduce: Reduce) -> None:
    whole = states(100, 1.0, 2.0, torch.float32)
    before = whole.clone()
    part = whole[1:, 30:90]
    torch.testing.assert_close(reduce(part), reduce(part.contiguous()), rtol=1e-6, atol=1e-6)
    assert torch.equal(whole, before)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("reduce", WAYS, indirect=True)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(reduce: Reduce, bad: float) -> None:
    value = states(10, 1.0, 1.0, torch.float32)
    value[1, 3, 5] = bad
    found = reduce(value)
    assert not torch.isfinite(found[1, :3, 5]).any()
    assert torch.isfinite(found[0]).all()
    assert torch.isfinite(row_sums(value)).tolist() == [True, False]


def test_reductions_leave_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for reduce in (token_statistics, token_mean, row_sums):
            reduce(torch.zeros(1, 4, 4))
            with pytest.raises(IndexError):
                reduce(torch.zeros(4))
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_median_is_of_every_element_or_of_a_spread_sample() -> None:
    small = torch.randn(2, 50, 30, generator=torch.Generator().manual_seed(0))
    expected = [np.sort(np.abs(state.numpy()), axis=None)[(1500 - 1) // 2] for state in small]  # the lower of two
    np.testing.assert_array_equal(median(sample_magnitudes(small)), expected)
    draw = torch.Generator().manual_seed(1)
    exact = 0.6744898  # of |x| where x is normal
    errors = [float(median(sample_magnitudes(torch.randn(1, 1000, 256, generator=draw))) / exact - 1) for _ in range(60)]
    assert 0.018 < np.sqrt(np.mean(np.square(errors))) < 0.034, "2.6%, as is said"
    striped = torch.zeros(1, 1024, 64)
    striped[..., torch.arange(64) % 4 != 0] = 1.0  # every fourth channel is 0: a distance of four would see those alone
    assert median(sample_magnitudes(striped)).item() == 1.0
