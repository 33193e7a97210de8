"""Scores of weighted examples, all draws of a bootstrap at once.

Every function takes weights (draws, N), how often each example is drawn, and
returns one score per draw, NaN where it is not defined.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def interval(draws: Array) -> tuple[float, float]:
    """95 % percentile interval of bootstrap draws; NaN where fewer than half of the draws are defined."""
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or len(defined) < 0.5 * len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def weighted_auroc(target: Array, score: Array, w: Array) -> Array:
    """Probability that a positive scores above a negative, ties half, shape (draws,)."""
    order = np.argsort(score, kind="stable")
    w, target = w[:, order].astype(np.float64), target[order]
    ends = _tie_ends(score[order])
    positive, negative = np.cumsum(w * target, 1)[:, ends], np.cumsum(w * (1 - target), 1)[:, ends]
    here, below = np.diff(positive, prepend=0, axis=1), negative - np.diff(negative, prepend=0, axis=1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (here * below).sum(1) / (positive[:, -1] * negative[:, -1])


def weighted_average_precision(target: Array, score: Array, w: Array) -> Array:
    """Area under the precision-recall curve by steps, shape (draws,)."""
    order = np.argsort(-score, kind="stable")
    w, target = w[:, order].astype(np.float64), target[order]
    ends = _tie_ends(score[order])
    positive, called = np.cumsum(w * target, 1)[:, ends], np.cumsum(w, 1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, positive / called, 0.0)
        return (np.diff(positive, prepend=0, axis=1) * precision).sum(1) / positive[:, -1]


def weighted_pearson(x: Array, y: Array, w: Array) -> Array:
    """Pearson correlation, shape (draws,)."""
    # Centred first: the weighted moments then lose no digits.
    return _row_pearson(np.broadcast_to(x - x.mean(), w.shape), np.broadcast_to(y - y.mean(), w.shape), w)


def weighted_spearman(x: Array, y: Array, w: Array) -> Array:
    """Spearman correlation, ties at their middle rank, shape (draws,)."""
    return _row_pearson(_weighted_ranks(x, w), _weighted_ranks(y, w), w)


def _weighted_ranks(values: Array, w: Array) -> Array:
    """Midranks (draws, N) inside each draw."""
    order = np.argsort(values, kind="stable")
    ends = _tie_ends(values[order])
    total = np.cumsum(w[:, order].astype(np.float64), 1)[:, ends]
    middle = total - np.diff(total, prepend=0, axis=1) / 2
    run = np.searchsorted(ends, np.arange(len(values)))
    ranks = np.empty(w.shape)
    ranks[:, order] = middle[:, run]
    return ranks


def _row_pearson(x: Array, y: Array, w: Array) -> Array:
    w = w.astype(np.float64)
    total = w.sum(1)
    x = x - ((w * x).sum(1) / total)[:, None]
    y = y - ((w * y).sum(1) / total)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (w * x * y).sum(1) / np.sqrt((w * x * x).sum(1) * (w * y * y).sum(1))


def _tie_ends(ordered: Array) -> NDArray[np.int64]:
    """Index of the last example of each run of equal values."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
