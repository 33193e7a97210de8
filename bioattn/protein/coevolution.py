"""Direct couplings of the columns of an alignment by mean-field inference: the baseline of contact prediction."""

import numpy as np
from numpy.typing import NDArray

from bioattn.data.residues import N_AMINO_ACIDS, one_hot_residues
from bioattn.errors import DataError

#: States of a column: twenty residues and the gap.
_STATES = N_AMINO_ACIDS + 1


def mean_field_couplings(
    codes: NDArray[np.uint8], weights: NDArray[np.float64], *, pseudocount: float = 0.5
) -> NDArray[np.float64]:
    """Couplings (L, 21, L, 21) of a Potts model in mean-field approximation, in zero-sum gauge.

    The inverse of the covariance of residues tells direct from indirect correlation: a chain of contacts
    correlates its ends, but does not couple them.

    Parameters
    ----------
    codes : ndarray, uint8, shape (S, L)
        Residues 0 to 19, gaps 20.
    weights : ndarray, shape (S,)
        See `bioattn.data.residues.sequence_weights`.
    pseudocount : float
        Share of uniform frequencies that is mixed in, which keeps the covariance invertible.

    Raises
    ------
    DataError
        If the pseudocount is not between 0 and 1.

    Source: Morcos et al. 2011, eq. 2, 7 and S15.
    """
    if not 0 < pseudocount < 1:
        raise DataError(f"the pseudocount must lie between 0 and 1, got {pseudocount:g}")
    length = codes.shape[1]
    # The last state is given by the others.
    one_hot = one_hot_residues(codes, n=N_AMINO_ACIDS).reshape(len(codes), -1).astype(np.float64)
    scaled = one_hot * (weights / weights.sum())[:, None]
    single = (1 - pseudocount) * scaled.sum(0) + pseudocount / _STATES
    double = (1 - pseudocount) * (scaled.T @ one_hot) + pseudocount / _STATES**2
    # Of one column with itself: one residue excludes the others.
    for i in range(length):
        own = slice(i * N_AMINO_ACIDS, (i + 1) * N_AMINO_ACIDS)
        double[own, own] = np.diag(single[own])
    couplings = np.zeros((length, _STATES, length, _STATES))
    inverse = -np.linalg.inv(double - np.outer(single, single))
    couplings[:, :-1, :, :-1] = inverse.reshape(length, N_AMINO_ACIDS, length, N_AMINO_ACIDS)
    return zero_sum(couplings)


def zero_sum(couplings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Couplings (L, q, L, q) whose mean over either state is zero: what is left couples columns, and is no field."""
    centred = couplings - couplings.mean(1, keepdims=True)
    shifted: NDArray[np.float64] = centred - centred.mean(3, keepdims=True)
    return shifted


def coupling_scores(couplings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Size of the couplings of each pair of columns (L, L), gaps left out, after the average product correction.

    Source: Ekeberg et al. 2013, eq. 15 and 16.
    """
    size = np.sqrt((couplings[:, :N_AMINO_ACIDS, :, :N_AMINO_ACIDS] ** 2).sum((1, 3)))
    np.fill_diagonal(size, 0.0)
    return average_product_corrected(size)


def average_product_corrected(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric scores (L, L) less what the means of row and column predict; the diagonal takes no part and is zero.

    Source: Dunn et al. 2008.
    """
    scores = (scores + scores.T) / 2
    off = ~np.eye(len(scores), dtype=bool)
    n = len(scores) - 1
    column = (scores * off).sum(0) / n
    corrected = scores - np.outer(column, column) / (scores[off].mean() or 1.0)
    np.fill_diagonal(corrected, 0.0)
    return corrected
