"""Overlap of masks, and masks that need no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.store.schema import Array


def iou(mask: Array, truth: Array) -> Any:
    """Intersection over union over the last two axes; two empty masks agree."""
    union = (mask | truth).sum(axis=(-2, -1))
    return np.where(union > 0, (mask & truth).sum(axis=(-2, -1)) / np.maximum(union, 1), 1.0)


def enlarge(mask: Array, size: tuple[int, ...]) -> Array:
    """Nearest enlargement of (y, x) to a size."""
    rows, columns = (np.arange(target) * source // target for target, source in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def centre_disc(truth: Array) -> Array:
    """A centred disc whose area is the mean area of the true masks: (y, x) boolean."""
    height, width = truth.shape[1:]
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y + 0.5 - height / 2, x + 0.5 - width / 2)
    area = round(float(truth.mean()) * height * width)
    return np.asarray(distance <= np.sort(distance, axis=None)[max(area - 1, 0)])
