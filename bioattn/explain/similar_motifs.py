"""How alike motifs are, all pairs at once, and groups of those that are nearly the same."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from bioattn.data import alphabet

#: Columns on which two motifs are compared at least, as in `bioattn.data.motif.best_correlation`.
_SHARED_COLUMNS = 6
#: Sums of squares below this are those of equal numbers, up to rounding.
_NO_VARIANCE = 1e-10


class Alignments(NamedTuple):
    """The best way to lay each of N motifs on each of M others; every field has shape (N, M).

    Attributes
    ----------
    correlation : ndarray, float64
        As `bioattn.data.motif.best_correlation`; -1 if no overlap has any variance.
    offset : ndarray, int64
        Column of the other motif, on its matching strand, on which the first one begins.
    overlap : ndarray, int64
        Columns that lie on each other.
    reverse : ndarray, bool
        Whether the other motif matches on its other strand.
    """

    correlation: NDArray[np.float64]
    offset: NDArray[np.int64]
    overlap: NDArray[np.int64]
    reverse: NDArray[np.bool_]


def align(first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]]) -> Alignments:
    """Best alignment of all pairs, by correlation.

    One matrix product per offset and strand instead of a loop over pairs, which takes
    minutes for a whole library.

    Parameters
    ----------
    first, second : sequences of ndarray (A, W)
        N and M PPMs of any widths.
    """
    shape = (len(first), len(second))
    zero = np.zeros(shape, dtype=np.int64)
    best = Alignments(np.full(shape, -1.0), zero, zero.copy(), zero.astype(bool))
    if not best.correlation.size:
        return best
    found = _Stack(first)
    for reverse in (False, True):
        known = _Stack([ppm[::-1, ::-1] for ppm in second] if reverse else second)
        for offset in range(1 - found.most, known.most):
            correlation, overlap = _at_offset(found, known, offset)
            better = correlation > best.correlation
            best.correlation[better], best.overlap[better] = correlation[better], overlap[better]
            best.offset[better], best.reverse[better] = offset, reverse
    return best


def groups(ppms: Sequence[NDArray[np.float64]], *, least: float) -> NDArray[np.int64]:
    """Group of each PPM, numbered as they first occur; the mean correlation between merged groups is at least `least`.

    Average linkage: one motif that is halfway between two groups does not join them.
    """
    if len(ppms) < 2:
        return np.zeros(len(ppms), dtype=np.int64)
    distance = 1 - align(ppms, ppms).correlation
    distance = np.maximum((distance + distance.T) / 2, 0)
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - least, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbered: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return numbered


class _Stack:
    """PPMs side by side: values (N, A, W), zero beyond a motif's width, and sums of each column."""

    def __init__(self, ppms: Sequence[NDArray[np.float64]]) -> None:
        self.width = np.array([ppm.shape[1] for ppm in ppms])
        self.most = int(self.width.max())
        self.values = np.zeros((len(ppms), alphabet.N_LETTERS, self.most))
        for row, ppm in zip(self.values, ppms, strict=True):
            row[:, : ppm.shape[1]] = ppm
        self.inside = (np.arange(self.most) < self.width[:, None]).astype(float)
        self.sums = self.values.sum(1)
        self.squares = (self.values**2).sum(1)


def _at_offset(a: _Stack, b: _Stack, offset: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation (-1 where there is none) and overlap where the first column of `a` lies on column `offset` of `b`."""
    low, high = max(0, -offset), min(a.most, b.most - offset)
    mine, other = slice(low, high), slice(low + offset, high + offset)
    columns = a.inside[:, mine] @ b.inside[:, other].T
    enough = columns >= np.minimum(np.minimum(a.width[:, None], b.width[None]), _SHARED_COLUMNS)
    n = np.maximum(columns, 1) * alphabet.N_LETTERS
    sum_a, sum_b = a.sums[:, mine] @ b.inside[:, other].T, a.inside[:, mine] @ b.sums[:, other].T
    variance_a = a.squares[:, mine] @ b.inside[:, other].T - sum_a**2 / n
    variance_b = a.inside[:, mine] @ b.squares[:, other].T - sum_b**2 / n
    products = a.values[:, :, mine].reshape(len(a.values), -1) @ b.values[:, :, other].reshape(len(b.values), -1).T
    known = enough & (variance_a > _NO_VARIANCE) & (variance_b > _NO_VARIANCE)
    scale = np.sqrt(np.where(known, variance_a * variance_b, 1.0))
    return np.where(known, (products - sum_a * sum_b / n) / scale, -1.0), columns
