"""Evidence of measured values: interactions of motifs in designed and randomised libraries (level L4b)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bioattn.causal.cooccurrence import gc_content, statistical_interaction
from bioattn.causal.nulls import benjamini_hochberg
from bioattn.data import alphabet
from bioattn.explain.hits import presence_of

#: Columns of evidence, beside motif_a and motif_b.
COLUMNS = (
    "interventional_effect", "interventional_se", "interventional_ci_low", "interventional_ci_high", "interventional_q",
    "interventional_source",
)  # fmt: skip
_PAIR = ["motif_a", "motif_b"]
#: Places of two sites that are looked at for one pair; a designed library has few.
_MOST_PLACES = 50


def measured_interactions(
    codes: NDArray[np.uint8],
    hits: pd.DataFrame,
    values: NDArray[np.float64],
    *,
    n_motifs: int,
    backgrounds: NDArray[np.object_] | None = None,
    least_backgrounds: int = 8,
) -> pd.DataFrame:
    """Interaction of each pair in measured values: of four-cell designs where there are some, else by regression.

    A four-cell design is a background with neither, either and both sites, all else equal.
    Without names of backgrounds they are sought: sequences that agree outside the two
    sites. A regression (`statistical_interaction`) is evidence of a cause only where
    sites were placed at random, which is what the caller says by giving such a library.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    hits : DataFrame
        Of all motifs in them: see `bioattn.explain.hits.find_hits`. With second copies, pairs of a motif with
        itself are judged by regression.
    values : ndarray, shape (N,)
    backgrounds : ndarray of str, shape (N,), optional
        Name of the background of each sequence.
    least_backgrounds : int
        With fewer designs, a pair is left to the regression.

    Returns
    -------
    DataFrame
        motif_a, motif_b, and `COLUMNS`: double difference of the values, its standard error and 95 % interval,
        q (Benjamini-Hochberg over pairs) and where it comes from. NaN where nothing says anything.
    """
    presence, twice = (presence_of(hits[hits["copy"] == copy], len(codes), n_motifs) for copy in (0, 1))
    hits = hits[hits["copy"] == 0]
    covariates = np.column_stack([gc_content(codes), (codes != alphabet.PAD).sum(1)])
    table = statistical_interaction(presence, covariates, values, twice)
    effect, error = (table[name].to_numpy() for name in ("stat_interaction", "stat_interaction_se"))
    p_values = 2 * stats.norm.sf(np.abs(np.divide(effect, error, out=np.full(len(effect), np.nan), where=error > 0)))
    width = stats.norm.ppf(0.975) * error
    found = pd.DataFrame(
        {
            **table[_PAIR], "interventional_effect": effect, "interventional_se": error,
            "interventional_ci_low": effect - width, "interventional_ci_high": effect + width, "p_value": p_values,
            "interventional_source": np.where(np.isfinite(effect), f"regression, n = {len(codes)}", ""),
        }
    )  # fmt: skip
    for i, (a, b) in enumerate(found[_PAIR].to_numpy()):
        if a == b:
            continue
        differences = (
            _named(presence, values, backgrounds, a, b)
            if backgrounds is not None
            else _sought(codes, hits, presence, values, a, b)
        )
        n = len(differences)
        if n >= least_backgrounds:
            mean, spread = differences.mean(), stats.sem(differences)
            low, high = stats.t.interval(0.95, n - 1, mean, spread) if spread > 0 else (mean, mean)
            p_value = stats.ttest_1samp(differences, 0).pvalue if spread > 0 else float(mean == 0)
            numbers = ["interventional_effect", "interventional_se", "interventional_ci_low", "interventional_ci_high"]
            found.loc[i, [*numbers, "p_value"]] = mean, spread, low, high, p_value
            found.loc[i, "interventional_source"] = f"four cells, {n} backgrounds"
    found["interventional_q"] = benjamini_hochberg(found.pop("p_value"))
    return found[[*_PAIR, *COLUMNS]]


def _named(
    presence: NDArray[np.bool_], values: NDArray[np.float64], backgrounds: NDArray[np.object_], a: int, b: int
) -> NDArray[np.float64]:
    """Double differences of backgrounds, with the same other motifs in all four cells."""
    others = np.delete(presence, [a, b], axis=1)
    frame = pd.DataFrame(others.astype(np.uint8))
    group = pd.concat([pd.Series(backgrounds, name="background"), frame], axis=1).groupby(
        ["background", *frame.columns], sort=False
    )
    return _double_differences(group.ngroup().to_numpy(), 2 * presence[:, a] + presence[:, b], values)


def _sought(
    codes: NDArray[np.uint8],
    hits: pd.DataFrame,
    presence: NDArray[np.bool_],
    values: NDArray[np.float64],
    a: int,
    b: int,
) -> NDArray[np.float64]:
    """Double differences of sequences that agree outside the places of two sites."""
    both = np.flatnonzero(presence[:, a] & presence[:, b])
    sites = [hits[hits["motif"] == m].set_index("sequence").loc[both, ["start", "end"]].to_numpy() for m in (a, b)]
    places = np.unique(np.concatenate(sites, axis=1), axis=0) if len(both) else np.zeros((0, 4), dtype=np.int64)
    found = []
    for start_a, end_a, start_b, end_b in places[:_MOST_PLACES].astype(np.int64):
        outside = codes.copy()
        outside[:, start_a:end_a] = outside[:, start_b:end_b] = alphabet.UNKNOWN
        _, group = np.unique(outside, axis=0, return_inverse=True)
        found.append(_double_differences(group.ravel(), 2 * presence[:, a] + presence[:, b], values))
    return np.concatenate(found) if found else np.zeros(0)


def _double_differences(
    group: NDArray[np.integer], cell: NDArray[np.integer], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """y11 - y10 - y01 + y00 of each group that has all four cells (0 neither, 1 second, 2 first, 3 both), of means."""
    means = pd.DataFrame({"group": group, "cell": cell, "y": values}).pivot_table(
        index="group", columns="cell", values="y"
    )
    if not {0, 1, 2, 3} <= set(means.columns):
        return np.zeros(0)
    whole = means.dropna()
    return (whole[3] - whole[2] - whole[1] + whole[0]).to_numpy()
