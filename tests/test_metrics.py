"""Metrics without weights: each against a closed form, the formula written out, or an answer known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from messages import refused
from scipy import ndimage

from interp.base.errors import InputError
from interp.metrics import quality, set_distances
from interp.metrics.distances import as_floats
from interp.metrics.preprocess import as_bytes
from interp.store.schema import Array

DRAW = np.random.default_rng(0)


def exactly(mean: Array, covariance: Array, count: int, seed: int = 0) -> Array:
    """Features whose sample mean and covariance are these, to rounding."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians() -> None:
    one, other = (
        exactly(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 200),
        exactly(np.array([1.0, 0, 2]), np.diag([4.0, 4, 1]), 300, 1),
    )
    assert set_distances.frechet_distance(one, other) == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, rel=1e-9)
    assert set_distances.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    turn = np.linalg.qr(DRAW.standard_normal((3, 3)))[0]
    assert set_distances.frechet_distance(one @ turn, other @ turn) == pytest.approx(9 + 1, rel=1e-9), (
        "a rotation changes nothing"
    )


def test_frechet_distance_where_covariances_do_not_commute() -> None:
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    roots = np.sqrt(np.linalg.eigvals(a @ b))  # of the product itself: the same trace, another way
    expected = np.trace(a) + np.trace(b) - 2 * roots.real.sum()
    assert set_distances.frechet_distance(exactly(np.zeros(2), a, 50), exactly(np.zeros(2), b, 60, 3)) == pytest.approx(
        expected
    )


def test_frechet_distance_with_fewer_pictures_than_features() -> None:
    one = DRAW.standard_normal((5, 20))
    assert set_distances.frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert set_distances.frechet_distance(one, one + 1) == pytest.approx(20, rel=1e-6)


def test_precision_and_recall() -> None:
    real = np.concatenate([DRAW.normal(0, 1, (200, 2)), DRAW.normal(50, 1, (200, 2))])
    half = DRAW.normal(0, 1, (400, 2))
    precision, recall = set_distances.precision_recall(half, real)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.03), "one of two modes"
    assert set_distances.precision_recall(real, half)[::-1] == (precision, recall), "the two change places"
    assert set_distances.precision_recall(real, real) == (1.0, 1.0)
    assert set_distances.precision_recall(real + 1000, real) == (0.0, 0.0)
    wide = DRAW.normal(0, 10, (400, 2))
    narrow_precision, narrow_recall = set_distances.precision_recall(DRAW.normal(0, 1, (400, 2)), wide)
    assert narrow_precision > 0.9 > 0.2 > narrow_recall, "a narrow Gaussian inside a wide one"


def test_precision_and_recall_by_hand() -> None:
    real, made = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([[0.5], [5.0], [30.0]])
    # with the first neighbour: real balls reach 1, 1, 1 and 8 (30 is in none); made balls 4.5, 4.5 and 25 (10 is in the last)
    assert set_distances.precision_recall(made, real, 1) == (pytest.approx(2 / 3), 1.0)


def test_inception_score() -> None:
    assert set_distances.inception_score(np.tile(np.eye(4), (5, 1))) == pytest.approx(4, rel=1e-6)
    assert set_distances.inception_score(np.full((6, 4), 0.25)) == pytest.approx(1)


def test_psnr_by_hand() -> None:
    one = np.full((2, 8, 8, 3), 0.5)
    other = np.stack([one[0] + 0.1, one[1] - 0.01])
    assert quality.psnr(one, other) == pytest.approx([20.0, 40.0], rel=1e-6)
    assert np.isinf(quality.psnr(one, one)).all()


def test_ssim_is_its_formula() -> None:
    one, other = (DRAW.integers(0, 256, (2, 24, 20, 3)).astype(np.uint8) for _ in range(2))
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(values: Array) -> Array:
        for axis in (1, 2):
            values = ndimage.correlate1d(values, window, axis=axis, mode="mirror")
        return values

    x, y = one / 255.0, other / 255.0
    mx, my = smooth(x), smooth(y)
    sx, sy, sxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    whole = ((2 * mx * my + c1) * (2 * sxy + c2)) / ((mx**2 + my**2 + c1) * (sx + sy + c2))
    expected = whole.mean(axis=(1, 2, 3))  # borders mirrored, none cut off: torchmetrics' choice
    assert quality.ssim(one, other) == pytest.approx(expected, rel=1e-5)
    assert quality.ssim(one, one) == pytest.approx([1.0, 1.0])


def test_edges_and_colours() -> None:
    flat = np.full((1, 16, 16, 3), 128, np.uint8)
    step = flat.copy()
    step[:, :, 8:] = 255
    assert quality.edge_density(flat) == pytest.approx([0.0])
    assert quality.edge_density(step) == pytest.approx([2 / 16]), "the two columns at the step"
    assert quality.edge_density(np.concatenate([flat, step]))[1] == quality.edge_density(step)[0]
    grey = quality.colour_statistics(flat)
    assert [float(values[0]) for values in grey.values()] == pytest.approx([0, 0, 0], abs=1e-6)
    red = np.zeros((1, 4, 4, 3))
    red[..., 0] = 1.0
    found = quality.colour_statistics(red)
    assert found["saturation"][0] == 1.0
    assert found["colourfulness"][0] == pytest.approx(255 * 0.3 * np.hypot(1, 0.5))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: quality.psnr(np.zeros((1, 8, 8, 3)), np.zeros((1, 9, 8, 3))), ("pictures", "(1, 8, 8, 3)", "(1, 9, 8, 3)")),
        (lambda: quality.ssim(np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3))), ("pictures", "11 x 11")),
        (lambda: quality.edge_density(np.full((4, 4, 3), np.nan)), ("pictures", "NaN")),
        (lambda: set_distances.frechet_distance(np.zeros((1, 3)), np.zeros((5, 3))), ("pictures", 1)),
        (lambda: set_distances.frechet_distance(np.zeros((4, 3)), np.zeros((5, 2))), ("features", 3, 2)),
        (lambda: set_distances.precision_recall(np.zeros((3, 3)), np.zeros((5, 3))), ("pictures", 3, 5)),
        (lambda: set_distances.inception_score(np.full((3, 2), np.inf)), ("Inf",)),
    ],
)
def test_bad_pictures_and_features_are_refused(call: object, named: tuple[object, ...]) -> None:
    with refused(InputError, *named):
        call()  # type: ignore[operator]


def test_pictures_beyond_their_range_are_refused() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    for wrong in (picture.astype(float), picture.astype(np.int64), picture / 255.0 - 0.5):
        with refused(InputError, "pictures", "uint8", "0..1"):
            quality.psnr(wrong, wrong)
    assert as_floats(picture / 255.0).max() <= 1
    assert as_bytes(picture) is picture
    np.testing.assert_array_equal(as_bytes(picture / 255.0), picture)
