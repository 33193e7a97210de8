"""Environments: the same models trained on data in which motifs keep other company (level L4a).

What a model learned from a confounder that was measured goes when that is balanced; what it
learned from a hidden one stays, since no weighting of sequences changes the mean of the target
given the sequence. A change between environments speaks against an interaction; that there is
none does not speak for one.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from statsmodels.stats.oneway import anova_oneway

from bioattn import rng
from bioattn.causal.cooccurrence import cooccurrence, gc_content
from bioattn.causal.epistasis import instance_effects
from bioattn.config import InteractionsConfig
from bioattn.data import alphabet
from bioattn.data.splits import subset_of
from bioattn.errors import BioattnWarning, DataError

_PAIR = ["motif_a", "motif_b"]
#: What weighted data may be off balance, in standard errors of the unweighted mean.
_BALANCED = 0.1
#: With fewer sequences that count, as a share of all, trained models see too little.
_FEWEST = 0.1
_ITERATIONS = 500


def balanced_tables(
    environment: str,
    sequences: pd.DataFrame,
    split: pd.DataFrame,
    presence: NDArray[np.bool_],
    *,
    fold: int,
    config: InteractionsConfig,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Sequences and split in which the training part is drawn anew, with weights that balance it.

    Parameters
    ----------
    environment : {"cooccurrence", "gc"}
        cooccurrence: motifs of pairs that co-occur are present independently of each other, GC being
        as it was. gc: the presence of every motif has nothing to do with GC.
    presence : ndarray, bool, shape (N, M)
        Of motifs in `sequences`.

    Returns
    -------
    sequences, split : DataFrame
        As before, but for the training part of that fold, which is drawn with replacement under new
        names; other folds do not matter here.
    summary : dict
        n_constraints; effective_share: sequences that count, as a share of the training part.

    Raises
    ------
    DataError
        If no weights balance the data.
    """
    train = np.flatnonzero(subset_of(sequences, split, fold=fold) == "train")
    gc = gc_content(alphabet.encode_batch(sequences["sequence"].iloc[train].tolist()))
    features = _features(environment, presence[train].astype(np.float64), gc, config)
    weights = balancing_weights(features)
    summary = {"n_constraints": features.shape[1], "effective_share": float(1 / (weights**2).sum() / len(train))}
    if summary["effective_share"] < _FEWEST:
        warnings.warn(
            f"environment '{environment}': weights leave {summary['effective_share']:.1%} of the training sequences; "
            "models trained on them are noisy",
            BioattnWarning,
            stacklevel=2,
        )
    draw = rng.stream(seed, "environments", environment)
    rest = np.setdiff1d(np.arange(len(sequences)), train)
    rows = np.concatenate([train[draw.choice(len(train), len(train), p=weights)], rest])
    names = [f"{name}.{i}" for i, name in enumerate(sequences["name"].iloc[rows])]
    made = (frame.iloc[rows].assign(name=names).reset_index(drop=True) for frame in (sequences, split))
    return next(made), next(made), summary


def _features(
    environment: str, present: NDArray[np.float64], gc: NDArray[np.float64], config: InteractionsConfig
) -> NDArray[np.float64]:
    """What has mean zero in balanced data, (N, K): products that make the company, and what is to stay as it is."""
    motifs = present - present.mean(0)
    content = ((gc - gc.mean()) / max(gc.std(), np.finfo(float).tiny))[:, None]
    if environment == "gc":
        # Neither more nor less of a motif where GC is high, or far from the mean.
        company = np.concatenate([motifs * content, motifs * (content**2 - 1)], axis=1)
        kept = np.concatenate([motifs, content, content**2 - 1], axis=1)
    elif environment == "cooccurrence":
        odds = cooccurrence(present.astype(bool), gc)
        pairs = odds.loc[
            (odds["cooccurrence_logodds"].abs() >= config.cooccurrence_floor)
            & (odds["cooccurrence_q"] < config.q_value),
            _PAIR,
        ].to_numpy()
        company = np.stack([motifs[:, a] * motifs[:, b] for a, b in pairs], 1) if len(pairs) else motifs[:, :0]
        kept = np.concatenate([motifs[:, np.unique(pairs)], content], axis=1)
    else:
        raise DataError(f"an environment is cooccurrence or gc, got '{environment}'")
    features = np.concatenate([company, kept], axis=1)
    return features[:, features.std(0) > 0]


def balancing_weights(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (N,) that sum to one, give every feature the mean zero, and are otherwise as even as can be.

    Entropy balancing: weights are exp(features @ lambda), and lambda the minimum of a convex function.

    Parameters
    ----------
    features : ndarray, shape (N, K)

    Raises
    ------
    DataError
        If there are no such weights: a feature has one sign in all rows, say.

    Source: Hainmueller 2012.
    """
    n = len(features)
    scale = features.std(0)
    scaled = features / np.where(scale > 0, scale, 1.0)

    def loss(multiplier: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        exponent = scaled @ multiplier
        largest = exponent.max()
        weights = np.exp(exponent - largest)
        total = weights.sum()
        return float(np.log(total) + largest), (weights @ scaled) / total

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    exponent = scaled @ found.x
    weights = np.exp(exponent - exponent.max())
    weights /= weights.sum()
    off = np.abs(weights @ scaled).max(initial=0.0) * np.sqrt(n)
    if not off <= _BALANCED:
        raise DataError(
            f"no weights balance the {n} training sequences ({features.shape[1]} constraints): motifs may never occur "
            "apart, or in all GC contents; leave out this environment (interactions.environments), or some motifs"
        )
    return np.asarray(weights, dtype=np.float64)


def environment_statistics(plain: Sequence[pd.DataFrame], others: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """What the epistasis of each pair is in every environment, and whether it is the same.

    Parameters
    ----------
    plain : sequence of DataFrame
        `bioattn.causal.marginalize.KnockIn.pairs` of the run's own replicates.
    others : mapping of str to sequence of DataFrame
        The same of models trained in other environments, in the same backgrounds.

    Returns
    -------
    DataFrame
        motif_a, motif_b, env_q_p (Welch's test that the mean over replicates is the same in all
        environments; NaN with fewer than two replicates in one), sign_stable ("yes" or "no"),
        balanced_epistasis and gc_balanced_epistasis (mean in the environments of these names, NaN without).
    """
    tables = {"plain": plain, **others}
    effects = {name: _by_replicate(tables[name]) for name in tables}
    rows = []
    for pair in effects["plain"].index:
        values = [effects[name].loc[pair].to_numpy() for name in tables]
        signs = {bool(each.mean() > 0) for each in values}
        known = {name: float(each.mean()) for name, each in zip(tables, values, strict=True)}
        rows.append(
            {
                "motif_a": pair[0],
                "motif_b": pair[1],
                "env_q_p": _welch_p(values),
                "sign_stable": "yes" if len(signs) == 1 else "no",
                "balanced_epistasis": known.get("cooccurrence", np.nan),
                "gc_balanced_epistasis": known.get("gc", np.nan),
            }
        )
    return pd.DataFrame(rows)


def _by_replicate(replicates: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean epistasis of each pair (rows) in each replicate (columns)."""
    means = [instance_effects(cells, inserted=True).groupby(_PAIR)["epistasis"].mean() for cells in replicates]
    return pd.concat(means, axis=1)


def _welch_p(values: Sequence[NDArray[np.float64]]) -> float:
    """P-value of equal means of groups of different variance."""
    if min(map(len, values)) < 2 or not all(np.isfinite(each).all() and each.std() > 0 for each in values):
        return float("nan")
    return float(anova_oneway(values, use_var="unequal").pvalue)
