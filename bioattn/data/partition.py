"""Groups of related rows, and how whole groups are dealt out so that parts have their sizes and look alike."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bioattn.config import TaskConfig

#: A held-out part may overshoot its size by this factor to take a group in whole.
OVERSHOOT = 1.02
#: Bins of a numeric target, and the sequences that each has at least.
_MOST_BINS = 10
_BIN_SEQUENCES = 20
#: Rarer combinations of labels share a stratum: each alone would always go to the largest part.
_RARE = 20


def strata(table: pd.DataFrame, task: TaskConfig) -> NDArray[np.int64]:
    """Stratum of each row, (N,), whose proportions all parts should have.

    Classes of binary and multiclass targets; combinations of labels, the rare
    ones together; for numbers the quantile bin of the first target, where equal
    values share a bin and missing ones have their own.
    """
    values = table[list(task.targets)]
    if task.kind in ("binary", "multiclass"):
        return values[task.targets[0]].to_numpy(dtype=np.int64)
    if task.kind == "multilabel":
        codes = values.groupby(list(task.targets), dropna=False, sort=True).ngroup().to_numpy(dtype=np.int64)
        rare = np.bincount(codes)[codes] < _RARE
        return pd.factorize(np.where(rare, -1, codes))[0].astype(np.int64)
    first = values[task.targets[0]]
    n_bins = int(np.clip(first.notna().sum() // _BIN_SEQUENCES, 1, _MOST_BINS))
    bins = pd.qcut(first, n_bins, labels=False, duplicates="drop")
    return bins.fillna(n_bins).to_numpy(dtype=np.int64)


def partition(
    counts: NDArray[np.int64], fractions: Sequence[float], *, sink: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Part of each group, (G,): whole groups to parts of given fractions, strata alike in each.

    Greedy from the largest group down, equal ones in random order: each goes
    where the squared relative excess over what every part should have of every
    stratum grows least.

    Parameters
    ----------
    counts : ndarray, int64, shape (G, S)
        Members of each group in each stratum.
    fractions : sequence of float
        Of all members, one per part; they sum to one.
    sink : bool
        Part 0 takes every group that does not fit another part. Without a sink
        a group larger than every part gets part -1, and one that fits nowhere
        any more goes where it costs least.
    """
    totals = counts.sum(axis=0)
    goals = [[max(fraction * float(n), 1e-9) for n in totals] for fraction in fractions]
    room = [max(1.0, OVERSHOOT * sum(goal)) for goal in goals]
    filled = [[0.0] * len(totals) for _ in fractions]
    taken = [0.0 for _ in fractions]
    sizes = counts.sum(axis=1)
    order = np.lexsort((rng.random(len(counts)), -sizes))
    parts = np.empty(len(counts), dtype=np.int64)
    for group in order:
        members = [(stratum, float(n)) for stratum, n in enumerate(counts[group]) if n]
        size = float(sizes[group])
        if sink:
            open_parts = [part for part in range(1, len(goals)) if taken[part] + size <= room[part]] + [0]
        elif size > max(room):
            parts[group] = -1
            continue
        else:
            every = range(len(goals))
            open_parts = [part for part in every if taken[part] + size <= room[part]] or list(every)
        best = min(
            open_parts,
            key=lambda part: sum(n * (n + 2 * (filled[part][s] - goals[part][s])) / goals[part][s] for s, n in members),
        )
        parts[group] = best
        taken[best] += size
        for stratum, n in members:
            filled[best][stratum] += n
    return parts


def components(n_rows: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the connected component of each row, (n_rows,), given the two ends of every edge."""
    graph = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(n_rows, n_rows))
    labels: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def group_counts(groups: NDArray[np.int64], strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Members of each group in each stratum, (G, S)."""
    counts = np.zeros((groups.max() + 1, strata.max() + 1), dtype=np.int64)
    np.add.at(counts, (groups, strata), 1)
    return counts
