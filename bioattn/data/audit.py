"""How near held-out sequences are to training, and how far memory of the nearest one goes."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bioattn.config import SplitConfig, TaskConfig
from bioattn.data.homology import Neighbours, nearest
from bioattn.data.seeds import Seeds, sensitivity
from bioattn.data.sequences import SUBSETS
from bioattn.data.splits import check_same_rows, fold_columns
from bioattn.errors import DataError

HELD_OUT = SUBSETS[1:]
#: Below this identity only overlaps can be told from chance, and those are found by any seeds.
_LOWEST_SCATTERED = 0.6
NEIGHBOURS = ("name", "fold", "subset", "nearest", "identity", "strand")
AUDIT = ("fold", "subset", "n", "measure", "readout", "identity", "count", "value", "chance", "sensitivity")


class Audit(NamedTuple):
    """What `audit` finds.

    Attributes
    ----------
    neighbours : DataFrame
        Columns `NEIGHBOURS`, one row per fold and held-out sequence: its nearest
        training sequence, their identity, and the strand of the nearest one that
        resembles; empty where nothing of at least `homology.LOWEST_IDENTITY` was found.
    table : DataFrame
        Columns `AUDIT`. Measure "related": held-out sequences (count of n) with a
        training neighbour of at least that identity, their share as value, the
        share of shuffled sequences that reach it as chance, and the share of such
        relatives that the search is estimated to find. Measures "nearest_auroc",
        "nearest_accuracy" and "nearest_pearson": how well the target of the
        nearest training sequence predicts the held-out one (the training mean or
        the largest class where there is none near), over n sequences of which
        `count` have a neighbour, next to what a constant reaches.
    seeds : Seeds
        How neighbours were searched for.
    """

    neighbours: pd.DataFrame
    table: pd.DataFrame
    seeds: Seeds


def audit(table: pd.DataFrame, split_table: pd.DataFrame, rules: SplitConfig, task: TaskConfig, *, seed: int) -> Audit:
    """Nearest training sequence of every held-out sequence of each fold, and what follows from it.

    Identity is that of `bioattn.data.homology`, on either strand.

    Parameters
    ----------
    table : DataFrame
        Columns name, sequence and the targets.
    split_table : DataFrame
        As `splits.split` returns it, in the same order.
    """
    check_same_rows(table, split_table)
    folds = fold_columns(split_table)
    subsets = split_table[folds].to_numpy(dtype=object)
    train = subsets == "train"
    identities = sorted({*rules.audit_identities, rules.leak_free_identity})
    found = nearest(list(table["sequence"]), ~train, train, identity=max(identities[0], _LOWEST_SCATTERED), seed=seed)
    names = table["name"].to_numpy(dtype=object)
    parts: list[pd.DataFrame] = []
    rows: list[dict[str, object]] = []
    for fold in range(len(folds)):
        for subset in HELD_OUT:
            held = np.flatnonzero(subsets[:, fold] == subset)
            part = _neighbours(found, names, held, fold)
            parts.append(part.assign(fold=fold, subset=subset))
            identity = part["identity"].to_numpy(dtype=float)
            measured = _related(identity, found.decoys[:, fold], identities, found.seeds)
            measured += _memory(table, task, held, found.row[held, fold], train[:, fold])
            rows += [{"fold": fold, "subset": subset, **each} for each in measured]
    neighbours = pd.concat(parts, ignore_index=True)[list(NEIGHBOURS)]
    return Audit(neighbours, pd.DataFrame(rows, columns=list(AUDIT)), found.seeds)


def _neighbours(found: Neighbours, names: NDArray[np.object_], held: NDArray[np.int64], fold: int) -> pd.DataFrame:
    row = found.row[held, fold]
    none = row < 0
    near = names[row]
    identity = found.identity[held, fold].copy()
    strand = np.where(found.reverse[held, fold], "-", "+").astype(object)
    near[none], identity[none], strand[none] = None, np.nan, None
    text = {name: pd.Series(cells, dtype=object) for name, cells in (("nearest", near), ("strand", strand))}
    return pd.DataFrame({"name": names[held], "identity": identity, **text})


def leak_free(names: NDArray[np.object_], neighbours: pd.DataFrame, *, fold: int, identity: float) -> NDArray[np.bool_]:
    """Whether each named held-out sequence of a fold, (N,), has no training neighbour of that identity.

    Raises
    ------
    DataError
        If the neighbours are of other sequences.
    """
    own = neighbours[neighbours["fold"] == fold].set_index("name")["identity"]
    unknown = ~np.isin(names, own.index.to_numpy(dtype=object))
    if unknown.any():
        raise DataError(
            f"neighbours: found no row of fold {fold} for {unknown.sum()} of {len(names)} held-out sequences (first: "
            f"'{names[unknown][0]}'): give the neighbours.parquet that was made with the split"
        )
    return ~(own.loc[names.tolist()].to_numpy(dtype=float) >= identity)


def _related(
    identity: NDArray[np.float64], decoys: NDArray[np.float64], identities: list[float], seeds: Seeds
) -> list[dict[str, object]]:
    return [
        {
            "n": len(identity),
            "measure": "related",
            "identity": threshold,
            "count": int((identity >= threshold).sum()),
            "value": float((identity >= threshold).mean()),
            "chance": float((decoys >= threshold).mean()),
            "sensitivity": sensitivity(seeds, threshold),
        }
        for threshold in identities
    ]


# ------------------------------------------------------------------------- memory


def _memory(
    table: pd.DataFrame, task: TaskConfig, held: NDArray[np.int64], row: NDArray[np.int64], train: NDArray[np.bool_]
) -> list[dict[str, object]]:
    """Scores of the nearest training sequence's target as the prediction."""
    rows = []
    for name in task.targets:
        values = table[name].to_numpy(dtype=float)
        if task.kind == "count":
            values = np.log1p(values)
        own, near = values[held], np.where(row < 0, np.nan, values[row])
        known = ~np.isnan(own)
        scores = _scores(task.kind, own[known], near[known], values[train & ~np.isnan(values)])
        n, n_near = int(known.sum()), int((~np.isnan(near[known])).sum())
        rows += [
            {"n": n, "measure": f"nearest_{metric}", "readout": name, "count": n_near, "value": value, "chance": chance}
            for metric, (value, chance) in scores.items()
        ]
    return rows


def _scores(
    kind: str, own: NDArray[np.float64], near: NDArray[np.float64], train: NDArray[np.float64]
) -> dict[str, tuple[float, float]]:
    """Metric to its value and what a constant prediction reaches; near is NaN where there is no neighbour."""
    nothing = np.isnan(near)
    if not len(train) or not len(own):
        return {}
    if kind in ("regression", "count"):
        predicted = np.where(nothing, train.mean(), near)
        varied = min(np.ptp(predicted), np.ptp(own)) > 0
        return {"pearson": (float(np.corrcoef(own, predicted)[0, 1]) if varied else float("nan"), 0.0)}
    classes, sizes = np.unique(train, return_counts=True)
    largest = classes[sizes.argmax()]
    scores = {"accuracy": (float((np.where(nothing, largest, near) == own).mean()), float((own == largest).mean()))}
    if kind != "multiclass" and len(np.unique(own)) == 2:
        scores["auroc"] = (float(roc_auc_score(own, np.where(nothing, train.mean(), near))), 0.5)
    return scores
