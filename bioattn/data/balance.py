"""How far composition alone tells classes apart: standardised differences, and linear models of k-mer frequencies."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import TaskConfig
from bioattn.data import alphabet
from bioattn.data.composition import FEATURES, features, gc_share, kmer_counts
from bioattn.data.partition import components
from bioattn.rng import stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Most sequences that are looked at, shared by all contrasts, and what each contrast has at least.
MOST_SEQUENCES = 20_000
_FEWEST = 2_000
_FOLDS = 5
_BOOTSTRAPS = 200
#: What sums of equal numbers may differ by.
_ROUNDING = 1e-9
#: Name of a made negative: that of its parent, and what it is.
_MADE = re.compile(r"(.+)\|(?:shuffle|markov|genomic)\d+")

#: Sets of features of the composition table -> k of their k-mers; 0 for GC alone.
FEATURE_SETS = {"GC": 0, "dinucleotides": 2, "trinucleotides": 3}
BALANCE_COLUMNS = (
    "target", "group", "reference", "feature", "stage", "smd", "n_group", "mean_group", "sd_group", "n_reference",
    "mean_reference", "sd_reference",
)  # fmt: skip
COMPOSITION_COLUMNS = (
    "target", "group", "reference", "features", "metric", "value", "ci_low", "ci_high", "n", "n_folds",
)  # fmt: skip


def balance_table(
    table: pd.DataFrame, task: TaskConfig, *, before: pd.DataFrame | None = None, seed: int
) -> pd.DataFrame:
    """Mean, spread and standardised difference of features of composition between the classes of each target.

    Classes are 1 against 0, each of several classes against the rest, and for
    numbers the highest against the lowest third. The standardised mean
    difference (`smd`) is in units of the root of the mean of both variances.

    Parameters
    ----------
    table : DataFrame
        Sequences with their targets; of more than `MOST_SEQUENCES` a random part is looked at.
    before : DataFrame, optional
        Features (`bioattn.data.composition.features`) of negatives as they were before matching: they are the
        reference in further rows, of stage "before", for the first target.

    Returns
    -------
    DataFrame
        Columns `BALANCE_COLUMNS`; one row per contrast, feature and stage.
    """
    part = _subsample(table, MOST_SEQUENCES, stream(seed, "balance"))
    values = features(part["sequence"], part["soft_masked"] if "soft_masked" in part else None)
    rows = []
    for contrast in _contrasts(part, task):
        group = values[contrast.is_group]
        pools = {"after": values[contrast.is_reference]}
        if before is not None and contrast.target == task.targets[0]:
            pools = {"before": before, **pools}
        for stage, pool in pools.items():
            for feature in FEATURES:
                rows.append([*contrast[:3], feature, stage, *_difference(group[feature], pool[feature])])
    return pd.DataFrame(rows, columns=list(BALANCE_COLUMNS))


def composition_table(table: pd.DataFrame, task: TaskConfig, *, seed: int) -> pd.DataFrame:
    """How well linear models of composition alone tell classes apart in sequences that they were not fitted to.

    For each contrast of `balance_table` a logistic model gives an AUROC; for
    numbers a ridge model of all sequences gives Pearson's r (counts as
    log(1 + count)). Features are the GC content, or the frequencies of all
    dinucleotides or trinucleotides of the given strand. Scores come from 5-fold
    cross-validation that never parts identical or reverse-complement sequences,
    nor a made negative and its parent; intervals (95 %) from a bootstrap of
    these groups, which leaves out how much the fits themselves would vary.

    Returns
    -------
    DataFrame
        Columns `COMPOSITION_COLUMNS`; n is the number of sequences used, of many a random part. A contrast with too
        few sequences to fit has no rows.
    """
    problems = list(_problems(table, task))
    most = max(_FEWEST, MOST_SEQUENCES // max(len(problems), 1))
    rows = []
    for target, group, reference, values in problems:
        rng = stream(seed, "composition", target, group)
        part = _subsample(table.assign(**{target: values}).dropna(subset=[target]), most, rng)
        y = part[target].to_numpy(dtype=np.float64)
        groups = _joined([min(s, alphabet.reverse_complement(s)) for s in part["sequence"]], _parents(part["name"]))
        folds = _folds(y, groups, rng)
        if folds is None:
            continue
        weights = _bootstrap_weights(groups, rng)
        numeric = task.kind in ("regression", "count")
        for name, k in FEATURE_SETS.items():
            scores = _held_out_scores(_frequencies(part["sequence"], k), y, folds, numeric=numeric)
            metric = _correlation if numeric else _auroc
            interval = np.nanpercentile(metric(scores, y, weights), [2.5, 97.5])
            value = metric(scores, y, np.ones((1, len(y))))[0]
            metric_name = "pearson" if numeric else "auroc"
            rows.append([target, group, reference, name, metric_name, value, *interval, len(y), _FOLDS])
    return pd.DataFrame(rows, columns=list(COMPOSITION_COLUMNS))


# ----------------------------------------------------------------------- contrasts


class _Contrast(NamedTuple):
    """Two sets of rows of a table that are to be compared in one target."""

    target: str
    group: str
    reference: str
    is_group: NDArray[np.bool_]
    is_reference: NDArray[np.bool_]


def _contrasts(table: pd.DataFrame, task: TaskConfig) -> Iterator[_Contrast]:
    for target in task.targets:
        values = table[target].to_numpy(dtype=np.float64)
        known = ~np.isnan(values)
        if task.kind in ("regression", "count"):
            rank = table[target].rank(method="first").to_numpy() / max(known.sum(), 1)
            yield _Contrast(target, "highest third", "lowest third", rank > 2 / 3, rank <= 1 / 3)
        elif task.kind == "multiclass":
            for i, name in enumerate(task.classes):
                yield _Contrast(target, name, "the rest", values == i, known & (values != i))
        else:
            yield _Contrast(target, "1", "0", values == 1, values == 0)


def _problems(table: pd.DataFrame, task: TaskConfig) -> Iterator[tuple[str, str, str, Floats]]:
    """What composition is to predict: target, its two sides, and a value for each row, missing ones NaN."""
    if task.kind in ("regression", "count"):
        for target in task.targets:
            values = table[target].to_numpy(dtype=np.float64)
            yield target, "higher values", "lower values", np.log1p(values) if task.kind == "count" else values
        return
    for contrast in _contrasts(table, task):
        known = contrast.is_group | contrast.is_reference
        yield *contrast[:3], np.where(known, contrast.is_group.astype(np.float64), np.nan)


def _subsample(table: pd.DataFrame, most: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most so many rows, chosen at random, in their order."""
    if len(table) <= most:
        return table.reset_index(drop=True)
    return table.iloc[np.sort(rng.choice(len(table), most, replace=False))].reset_index(drop=True)


def _difference(group: pd.Series, reference: pd.Series) -> tuple[float, int, float, float, int, float, float]:
    """Standardised mean difference, then size, mean and standard deviation of both sides."""
    spread = np.sqrt((group.var() + reference.var()) / 2)
    apart = group.mean() - reference.mean()
    rounding = _ROUNDING * max(1.0, abs(group.mean()))
    if spread <= rounding:  # values that never vary differ by nothing, or by more than any spread
        smd = 0.0 if abs(apart) <= rounding else np.sign(apart) * np.inf
    else:
        smd = apart / spread
    return smd, len(group), group.mean(), group.std(), len(reference), reference.mean(), reference.std()


# -------------------------------------------------------------------- linear models


def _frequencies(sequences: pd.Series, k: int) -> Floats:
    """Share of each k-mer among those of a sequence, (N, 4^k); for k = 0 the GC share, (N, 1)."""
    if not k:
        return gc_share(kmer_counts(sequences, 1))[:, None]
    counts = kmer_counts(sequences, k)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _parents(names: pd.Series) -> list[str]:
    """Name of the parent of made negatives, of others their own."""
    return [made[1] if (made := _MADE.fullmatch(name)) else name for name in names]


def _joined(*keys: list[str]) -> Ints:
    """Group of each row: rows with an equal key of any kind are in one."""
    n_rows = len(keys[0])
    left, right = [], []
    for key in keys:
        labels, found = pd.factorize(np.array(key, dtype=object))
        first = np.zeros(len(found), dtype=np.int64)
        first[labels[::-1]] = np.arange(n_rows)[::-1]
        left.append(first[labels])
        right.append(np.arange(n_rows))
    return components(n_rows, np.concatenate(left), np.concatenate(right))


def _folds(y: Floats, groups: Ints, rng: np.random.Generator) -> Ints | None:
    """Fold of each row: whole groups, dealt out by their mean value so that folds are alike; None if too few."""
    size = np.bincount(groups)
    mean = np.bincount(groups, weights=y) / size
    if len(size) < 2 * _FOLDS:
        return None
    order = np.lexsort((rng.random(len(size)), mean))
    fold = np.empty(len(size), dtype=np.int64)
    fold[order] = np.arange(len(size)) % _FOLDS
    folds = fold[groups]
    varied = all(len(np.unique(y[folds != i])) > 1 for i in range(_FOLDS))
    return folds if varied else None


def _held_out_scores(x: Floats, y: Floats, folds: Ints, *, numeric: bool) -> Floats:
    """Score of each row by a model that was fitted to the other folds."""
    from sklearn.linear_model import LogisticRegression, Ridge  # takes more than a second: only when needed
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.empty(len(y))
    for fold in range(_FOLDS):
        held_out = folds == fold
        model = make_pipeline(StandardScaler(), Ridge() if numeric else LogisticRegression(max_iter=1000))
        model.fit(x[~held_out], y[~held_out] if numeric else y[~held_out].astype(int))
        scores[held_out] = model.predict(x[held_out]) if numeric else model.decision_function(x[held_out])
    return scores


def _bootstrap_weights(groups: Ints, rng: np.random.Generator) -> Floats:
    """How often each row is in each bootstrap sample of groups, shape (B, N)."""
    n_groups = int(groups.max()) + 1
    drawn = np.stack([np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups) for _ in range(_BOOTSTRAPS)])
    return drawn[:, groups].astype(np.float64)


def _auroc(scores: Floats, y: Floats, weights: Floats) -> Floats:
    """Probability that a 1 scores above a 0, ties count half, for each row of weights (B, N)."""
    values, place = np.unique(scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    begins = np.searchsorted(place[order], np.arange(len(values)))
    ones = np.add.reduceat((weights * y)[:, order], begins, axis=1)
    zeros = np.add.reduceat((weights * (1 - y))[:, order], begins, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    wins = (ones * (below + zeros / 2)).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _correlation(scores: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's r for each row of weights (B, N)."""
    total = weights.sum(axis=1)
    a = scores - (weights @ scores / total)[:, None]
    b = y - (weights @ y / total)[:, None]
    spread = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    return np.divide((weights * a * b).sum(axis=1), spread, out=np.full(len(weights), np.nan), where=spread > 0)
