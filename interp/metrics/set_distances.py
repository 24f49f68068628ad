"""Distances between sets of pictures, in the features of any network. numpy and scipy.

Features are (picture, feature). In Inception's features these are FID, and the precision and recall of papers. In other
features, do not use these names.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from interp.base.errors import InputError
from interp.store.schema import Array

NEIGHBOUR = 3


def frechet_distance(one: Array, other: Array) -> float:
    """Frechet distance of the Gaussians that fit two sets (Heusel et al. 2017): |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).

    The trace of the root is that of a symmetric matrix: tr((C^(1/2) C' C^(1/2))^(1/2)), whose eigenvalues are real. With fewer
    pictures than features it is the sum of the singular values of X Y^T, X and Y the centred features over sqrt(pictures - 1).
    """
    one, other = _checked(one), _checked(other)
    if one.shape[1] != other.shape[1]:
        raise InputError(f"features must be equal in number in both sets; got {one.shape[1]} and {other.shape[1]}")
    means = one.mean(0), other.mean(0)
    if min(len(one), len(other)) < one.shape[1]:
        few, many = sorted(((own - own.mean(0)) / np.sqrt(len(own) - 1) for own in (one, other)), key=len)
        inner = linalg.svdvals(few @ many.T).sum()
        return float(((means[0] - means[1]) ** 2).sum() + (few**2).sum() + (many**2).sum() - 2 * inner)
    first, second = (np.atleast_2d(np.cov(own, rowvar=False)) for own in (one, other))
    values, vectors = linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.sqrt(np.clip(linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * inner)


def precision_recall(
    generated: Array, real: Array, neighbour: int = NEIGHBOUR, reach_of_real: Array | None = None
) -> tuple[float, float]:
    """Precision and recall (Kynkaanniemi et al. 2019): the share of generated pictures inside the real ones' manifold, and of
    real ones inside the generated ones'. A manifold is the union of balls around its pictures, up to the k-th neighbour.
    Pass `reach_of_real`, which is `reach(real, neighbour)`, to reuse it in many calls with the same real pictures.
    """
    generated, real = _checked(generated), _checked(real)
    if min(len(generated), len(real)) <= neighbour:
        raise InputError(f"precision and recall need more than {neighbour} pictures; got {len(generated)} and {len(real)}")
    between = cdist(generated, real)
    of_real = reach(real, neighbour) if reach_of_real is None else reach_of_real
    precision = (between <= of_real[None]).any(axis=1).mean()
    recall = (between <= reach(generated, neighbour)[:, None]).any(axis=0).mean()
    return float(precision), float(recall)


def reach(features: Array, neighbour: int = NEIGHBOUR) -> Array:
    """Each picture's distance to its k-th neighbour, (picture); the picture itself is neighbour 0."""
    return np.asarray(np.sort(cdist(features, features), axis=1)[:, neighbour])


def inception_score(probability: Array) -> float:
    """Exp of the mean KL divergence of each picture's classes, (picture, class), from their mean (Salimans et al. 2016)."""
    probability = np.clip(_checked(probability), 1e-12, None)
    return float(np.exp((probability * (np.log(probability) - np.log(probability.mean(0)))).sum(axis=1).mean()))


def _checked(features: Array) -> Array:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise InputError(f"features must be (picture, feature) of two or more pictures; got shape {features.shape}")
    if not np.isfinite(features).all():
        raise InputError("features hold NaN or Inf")
    return features
