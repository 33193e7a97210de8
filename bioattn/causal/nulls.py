"""Null distributions and multiple testing."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def sign_flip_p(values: NDArray[np.float64], *, permutations: int, rng: np.random.Generator) -> float:
    """One-sided permutation p-value, with +1, of paired differences (N,) having a mean above zero.

    Under the null a difference is as likely to have either sign. NaNs are left
    out; NaN if nothing is left.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan")
    signs = rng.integers(0, 2, (permutations, len(values))) * 2 - 1
    # Sums in another order differ by rounding.
    reached = signs @ values >= values.sum() - 1e-12 * np.abs(values).sum()
    return float((1 + reached.sum()) / (1 + permutations))


def directed_sign_flip_p(
    values: NDArray[np.float64], direction: float, *, permutations: int, rng: np.random.Generator
) -> float:
    """Twice the p-value of `sign_flip_p`, of a mean on the side of `direction`, which the data chose; one at most."""
    return min(1.0, 2 * sign_flip_p(np.sign(direction) * values, permutations=permutations, rng=rng))


def minimum_effect_p(replicates: NDArray[np.float64], minimum: float, *, positive: bool = False) -> float:
    """P-value of |effect| <= `minimum` against |effect| > `minimum`, from independent replicates (R,).

    One-sided t-test at the border on the side of the observed mean, with R - 1
    degrees of freedom; at the upper border where only a `positive` effect counts. NaN with fewer than two replicates.
    """
    n = len(replicates)
    if n < 2 or not np.isfinite(replicates).all():
        return float("nan")
    mean = replicates.mean()
    excess = (mean if positive else abs(mean)) - minimum
    error = replicates.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return float(stats.t.sf(excess / error, n - 1))


def mean_interval(
    values: NDArray[np.float64], *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the t interval of the mean over replicates, the first axis of `values`; NaN with fewer than two."""
    n = len(values)
    if n < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing.copy()
    margin = stats.t.isf((1 - level) / 2, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    mean = values.mean(0)
    return mean - margin, mean + margin


def crossed_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of `values` (R, I): R replicates and the same I instances, both drawn at random.

    Two-way random effects by the method of moments: the variance of the mean is that of replicates
    over R, of instances over I, and of what is left over R * I; a t-quantile with Satterthwaite's
    degrees of freedom. Few replicates, which share training data only in part, so count for what
    they are. NaN with fewer than two of either.

    Source: Satterthwaite 1946.
    """
    n_replicates, n_instances = values.shape
    if min(values.shape) < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    mean = values.mean()
    rows, columns = values.mean(1) - mean, values.mean(0) - mean
    rest = values - mean - rows[:, None] - columns
    freedom = np.array([n_replicates - 1, n_instances - 1, (n_replicates - 1) * (n_instances - 1)])
    squares = np.array([n_instances * (rows**2).sum(), n_replicates * (columns**2).sum(), (rest**2).sum()]) / freedom
    # No component of the variance is below zero.
    total = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    if total == 0:
        return float(mean), float(mean)
    margin = stats.t.isf((1 - level) / 2, total**2 / (squares**2 / freedom).sum()) * np.sqrt(total / values.size)
    return float(mean - margin), float(mean + margin)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """BH-adjusted p-values; NaN stays NaN and counts as no test."""
    return _adjusted(p_values, "bh")


def _adjusted(p_values: ArrayLike, method: Literal["bh", "by"]) -> NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method=method)
    return q


def benjamini_yekutieli(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted for any dependence between tests; NaN stays NaN and counts as no test."""
    return _adjusted(p_values, "by")


def max_statistic_p(values: NDArray[np.float64], *, permutations: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """P-values (P,) that hold for all P tests at once: permutation of the largest statistic (Westfall & Young 1993).

    Parameters
    ----------
    values : ndarray, shape (P, N)
        Paired differences of each test in the same N units, whose signs are flipped for all tests
        together. The statistic is the size of the mean over its standard error.
    """
    n = values.shape[1]
    squares = (values**2).sum(1)
    signs = rng.integers(0, 2, (permutations, n)) * 2 - 1

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = np.sqrt(np.maximum(squares - sums**2 / n, 0) / max(n - 1, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = np.where(sums == 0, 0.0, np.abs(sums) / spread)
        return found

    largest = np.sort(statistic(signs @ values.T).max(1))
    observed = statistic(values.sum(1)) * (1 - 1e-12)
    return (1 + permutations - np.searchsorted(largest, observed, side="left")) / (1 + permutations)


def decoy_q(targets: NDArray[np.float64], decoys: NDArray[np.float64]) -> NDArray[np.float64]:
    """Target-decoy q-values (P,) of statistics of which large ones count, from decoys that are null.

    The false discovery rate above a threshold is estimated as (1 + decoys above it) / (targets
    above it), decoys weighted for their number; q is the lowest rate at which a target passes.
    """
    order = np.argsort(-targets, kind="stable")
    above = np.arange(1, len(targets) + 1)
    n_decoys = (decoys[:, None] >= targets[order]).sum(0)
    rate = (1 + n_decoys) * (len(targets) / max(len(decoys), 1)) / above
    q = np.empty(len(targets))
    q[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return q
