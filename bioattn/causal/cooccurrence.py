"""What the data say without a model: co-occurrence of two motifs, and their statistical interaction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable

from bioattn.causal.nulls import benjamini_hochberg
from bioattn.data import alphabet

#: GC strata within which co-occurrence is measured, so that shared composition is no co-occurrence.
_GC_STRATA = 10
#: A product that varies less, per sequence, is given by its motifs.
_NO_VARIANCE = 1e-9


def gc_content(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share (N,) of G and C among the known bases of codes (N, L)."""
    known = codes < alphabet.N_LETTERS
    return ((codes == 1) | (codes == 2)).sum(1) / np.maximum(known.sum(1), 1)


def cooccurrence(
    presence: NDArray[np.bool_], gc: NDArray[np.float64], twice: NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    """Log odds ratio of the presence of each pair of motifs, pooled over GC deciles.

    Of a motif with itself: log odds of two hits or more, less those of a Poisson number of hits that is
    zero as often. Copies that come at random have none.

    The readout is not adjusted for: it is a common effect of interacting motifs,
    and conditioning on it would make independent motifs look associated.

    Parameters
    ----------
    presence : ndarray, bool, shape (N, M)
    gc : ndarray, shape (N,)
    twice : ndarray, bool, shape (N, M), optional
        Which motif has two hits or more; without it pairs of a motif with itself are left out.

    Returns
    -------
    DataFrame
        motif_a, motif_b (indices, a <= b), cooccurrence_logodds, _ci_low, _ci_high, _p, _q.
        NaN where a motif is in all or no sequences.

    Source: Mantel & Haenszel 1959; variance of Robins, Breslow & Greenland 1986.
    """
    ranks = pd.Series(gc).rank(method="first")
    stratum = pd.qcut(ranks, min(_GC_STRATA, max(1, len(gc) // 50)), labels=False).to_numpy()
    rows = []
    for a in range(presence.shape[1]):
        if twice is not None:
            rows.append({"motif_a": a, "motif_b": a} | _own_log_odds(presence[:, a], twice[:, a], stratum))
        for b in range(a + 1, presence.shape[1]):
            rows.append({"motif_a": a, "motif_b": b} | _log_odds(presence[:, a], presence[:, b], stratum))
    table = pd.DataFrame(rows)
    table["cooccurrence_q"] = benjamini_hochberg(table["cooccurrence_p"])
    return table


_ODDS = ("cooccurrence_logodds", "cooccurrence_ci_low", "cooccurrence_ci_high", "cooccurrence_p")


def _own_log_odds(once: NDArray[np.bool_], twice: NDArray[np.bool_], stratum: NDArray[np.intp]) -> dict[str, float]:
    """Log odds of two hits or more against a Poisson number of hits with the same share of zero in each stratum."""
    n = np.bincount(stratum)
    none, again = np.bincount(stratum, ~once), np.bincount(stratum, twice)
    usable = (none > 0) & (none < n)
    if not usable.any():
        return dict.fromkeys(_ODDS, np.nan)
    share = none[usable] / n[usable]
    expected = float((n[usable] * (1 - share * (1 - np.log(share)))).sum())  # 1 - e^-r (1 + r), of rate r
    total, observed = float(n[usable].sum()), float(again[usable].sum())
    log_odds = np.log((observed + 0.5) / (total - observed + 0.5)) - np.log((expected + 0.5) / (total - expected + 0.5))
    # The share of zeros is known as well as the share of twos is.
    error = np.sqrt(1 / (observed + 0.5) + 1 / (expected + 0.5) + 2 / total)
    width = stats.norm.ppf(0.975) * error
    p_value = 2 * stats.norm.sf(abs(log_odds) / error)
    return dict(zip(_ODDS, (float(log_odds), log_odds - width, log_odds + width, p_value), strict=True))


def _log_odds(a: NDArray[np.bool_], b: NDArray[np.bool_], stratum: NDArray[np.intp]) -> dict[str, float]:
    if not (0 < a.sum() < len(a) and 0 < b.sum() < len(b)):
        return dict.fromkeys(_ODDS, np.nan)
    cell = 4 * stratum + 2 * (1 - a.astype(int)) + (1 - b.astype(int))
    tables = np.bincount(cell, minlength=4 * (stratum.max() + 1)).reshape(-1, 2, 2) + 0.5  # no empty cells
    pooled = StratifiedTable(tables.transpose(1, 2, 0))
    low, high = pooled.logodds_pooled_confint()
    return dict(zip(_ODDS, map(float, (pooled.logodds_pooled, low, high, pooled.test_null_odds().pvalue)), strict=True))


def statistical_interaction(
    presence: NDArray[np.bool_],
    covariates: NDArray[np.float64],
    target: NDArray[np.float64],
    twice: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Interaction of motifs in the data: least squares of the target on all motifs and one product at a time.

    Of a motif with itself: how much more its second hit does than its first one. A hidden cause of both
    motifs and of the target gives an interaction too: this is what a model's evidence must go beyond, not
    evidence of a cause.

    Parameters
    ----------
    presence : ndarray, bool, shape (N, M)
    covariates : ndarray, shape (N, C)
        What else explains the target, such as GC and length.
    target : ndarray, shape (N,)
        Rows with NaN are left out.
    twice : ndarray, bool, shape (N, M), optional
        Which motif has two hits or more; without it pairs of a motif with itself are left out.

    Returns
    -------
    DataFrame
        motif_a, motif_b (indices, a <= b), stat_interaction, stat_interaction_se
        (heteroscedasticity-consistent), stat_interaction_q. NaN where a product does not vary beyond its motifs.
    """
    known = np.isfinite(target)
    z, y = presence[known].astype(np.float64), target[known]
    design = np.column_stack([np.ones(len(z)), z, covariates[known]])
    base = _Residuals(design, y)
    rows = []
    for a in range(z.shape[1]):
        if twice is not None:
            second = twice[known, a].astype(np.float64)
            own = design.copy()
            own[:, 1 + a] += second
            of_its_own = _Residuals(own, y) if second.any() else base
            rows.append((a, a, *of_its_own.coefficient(second)))
        rows += [(a, b, *base.coefficient(z[:, a] * z[:, b])) for b in range(a + 1, z.shape[1])]
    names = ["motif_a", "motif_b", "stat_interaction", "stat_interaction_se", "p_value"]
    table = pd.DataFrame(rows, columns=names)
    table["stat_interaction_q"] = benjamini_hochberg(table.pop("p_value"))
    return table


class _Residuals:
    """What is left of a target once a design (N, K) has explained it: for coefficients of one more column at a time."""

    def __init__(self, design: NDArray[np.float64], target: NDArray[np.float64]) -> None:
        self.q, _ = np.linalg.qr(design)
        self.left = target - self.q @ (self.q.T @ target)

    def coefficient(self, column: NDArray[np.float64]) -> tuple[float, float, float]:
        """Coefficient, standard error and p-value of one more column (N,), by Frisch-Waugh-Lovell."""
        column = column - self.q @ (self.q.T @ column)
        if column @ column <= _NO_VARIANCE * len(column):
            return (float("nan"),) * 3
        fit = sm.OLS(self.left, column[:, None]).fit(cov_type="HC1")
        return float(fit.params[0]), float(fit.bse[0]), float(fit.pvalues[0])


def gc_association(presence: NDArray[np.bool_], gc: NDArray[np.float64]) -> pd.DataFrame:
    """How far GC goes with motifs: the larger of two motifs' correlations with it.

    Returns
    -------
    DataFrame
        motif_a, motif_b, gc_confound_r (its size; 0 for motifs in all or no sequences).
    """
    z = presence - presence.mean(0)
    scale = np.sqrt((z**2).sum(0) * ((gc - gc.mean()) ** 2).sum())
    r = np.abs(np.divide(z.T @ (gc - gc.mean()), scale, out=np.zeros(len(scale)), where=scale > 0))
    a, b = np.triu_indices(len(r))
    return pd.DataFrame({"motif_a": a, "motif_b": b, "gc_confound_r": np.maximum(r[a], r[b])})


def site_interaction(
    codes: NDArray[np.uint8], spans: Sequence[tuple[int, int]], target: NDArray[np.float64]
) -> pd.DataFrame:
    """Interaction of fixed sites in the measured values of a randomised library of one length.

    Ordinary least squares of the target on every base (additive one-hot) and, one
    pair at a time, on the product of the two sites' damage. Damage is the share
    of letters that differ from the library's consensus. Because the mutations are
    random, the coefficient is evidence about the world, not about the model: its
    sign is that of the epistasis of knocking out both sites.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    spans : sequence of (start, end)
        Sites, 0-based half-open.
    target : ndarray, shape (N,)

    Returns
    -------
    DataFrame
        motif_a, motif_b, interventional_effect (per unit of damage squared), _se,
        _ci_low, _ci_high (heteroscedasticity-consistent), interventional_p, interventional_q.
    """
    consensus = np.array([np.bincount(column, minlength=6)[:4].argmax() for column in codes.T])
    differs = codes != consensus
    additive = alphabet.one_hot(codes).transpose(0, 2, 1)
    # The consensus letter of each position is the reference level.
    kept = additive[:, np.arange(4) != consensus[:, None]]
    base = np.concatenate([np.ones((len(codes), 1)), kept[:, kept.std(0) > 0]], axis=1)
    damage = [differs[:, start:end].mean(1) for start, end in spans]
    rows: list[dict[str, Any]] = []
    left = _Residuals(base, target)
    for a in range(len(spans)):
        for b in range(a + 1, len(spans)):
            effect, error, p_value = left.coefficient(damage[a] * damage[b])
            width = stats.norm.ppf(0.975) * error
            rows.append(
                {
                    "motif_a": a,
                    "motif_b": b,
                    "interventional_effect": effect,
                    "interventional_se": error,
                    "interventional_ci_low": effect - width,
                    "interventional_ci_high": effect + width,
                    "interventional_p": p_value,
                }
            )
    table = pd.DataFrame(rows)
    table["interventional_q"] = benjamini_hochberg(table["interventional_p"])
    return table
