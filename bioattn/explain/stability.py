"""Which heads and motifs come back when the same model is trained again from another start.

Heads have no order, so those of two replicates are matched by what they read. A motif that
one replicate shows and the others do not is an accident of its training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from bioattn.config import ENRICHED_Q
from bioattn.errors import DataError
from bioattn.explain.similar_motifs import align, groups
from bioattn.io.motifs import read_matrices
from bioattn.io.tables import read_parquet, read_tsv

#: Motifs that correlate as much on average are one motif.
_SAME_MOTIF = 0.8
#: Fewer places tell nothing about whether two heads look at the same ones.
_FEWEST_PLACES = 3
#: A profile that varies less is flat up to rounding: uniform attention is 1.
_FLAT = 1e-6

HEAD_COLUMNS = (
    "seed_a", "layer_a", "head_a", "seed_b", "layer_b", "head_b", "similarity", "null_similarity", "null_q95", "note",
)  # fmt: skip
MOTIF_COLUMNS = (
    "cluster", "consensus", "matches", "n_replicates", "n_total", "frequency", "frequency_ci_low",
    "frequency_ci_high", "n_reading", "q_value", "enrichment_log2", "representative", "members", "note",
)  # fmt: skip
_NEEDED = ("layer", "head", "motif", "verdict", "consensus", "enrichment_log2", "q_value", "matches")
_PLACES = ("layer", "head", "position", "received")


@dataclass(frozen=True)
class ReplicateHeads:
    """What the heads of one trained model read.

    Attributes
    ----------
    table : DataFrame
        heads.tsv: one row per layer, head and motif (-1 for a head without one).
    motifs : dict of str to ndarray (A, W)
        PPM of each motif by its name, layer0_head1_motif0.
    positions : DataFrame
        layer, head, position, received.
    """

    table: pd.DataFrame
    motifs: Mapping[str, NDArray[np.float64]]
    positions: pd.DataFrame

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Layer and head of every head, in order."""
        pairs = self.table[["layer", "head"]].drop_duplicates().sort_values(["layer", "head"])
        return [(int(layer), int(head)) for layer, head in pairs.to_numpy()]

    def enriched(self, layer: int, head: int) -> list[NDArray[np.float64]]:
        """PPMs of a head's motifs that are enriched in held-out sequences."""
        rows = self.table[(self.table["layer"] == layer) & (self.table["head"] == head)]
        return [self.motifs[_name(row)] for row in _records(rows) if row["motif"] >= 0 and row["q_value"] < ENRICHED_Q]


@dataclass(frozen=True)
class Stability:
    """What is the same in all replicates.

    Attributes
    ----------
    heads : DataFrame
        Every pair of replicates, each head of the first with its partner in the second:
        similarity (see `head_similarities`), and for the pair of replicates the median
        (null_similarity) and the 95 % quantile (null_q95) of the similarity in random
        matchings that give no head its partner; NaN where there is no other head.
    motifs : DataFrame
        One row per cluster of motifs: consensus, matches, q_value and enrichment of the
        most enriched member (representative); in how many of the n_total replicates a
        member is enriched (n_replicates) and in how many a head whose verdict is "motif"
        shows it (n_reading); frequency of the former with a Wilson 95 % interval; members
        as "seed:layer.head.motif".
    """

    heads: pd.DataFrame
    motifs: pd.DataFrame


def read_replicate(folder: str | Path) -> ReplicateHeads:
    """Results of the verb `heads`: heads.tsv, motifs.npz and positions.parquet of a folder.

    Raises
    ------
    DataError
        If one of them is missing, damaged, lacks a column, or they do not belong together.
    """
    folder = Path(folder)
    table, positions = read_tsv(folder / "heads.tsv"), read_parquet(folder / "positions.parquet")
    for name, frame, needed in (("heads.tsv", table, _NEEDED), ("positions.parquet", positions, _PLACES)):
        lacking = [column for column in needed if column not in frame]
        if lacking:
            raise DataError(f"{folder / name} lacks the columns {', '.join(lacking)}: run the verb heads again")
    motifs = read_matrices(folder / "motifs.npz")
    absent = [name for name in map(_name, _records(table[table["motif"] >= 0])) if name not in motifs]
    if absent:
        raise DataError(f"{folder / 'motifs.npz'} has no matrix of {absent[0]}, which heads.tsv names: run heads again")
    return ReplicateHeads(table, motifs, positions)


def stability(replicates: Mapping[int, ReplicateHeads]) -> Stability:
    """Heads that find a partner and motifs that are found again, over replicates by seed.

    With one replicate, and where no head has a motif, there is a row with a note.

    Raises
    ------
    DataError
        If there is no replicate.
    """
    if not replicates:
        raise DataError("there is no replicate to compare")
    return Stability(_head_matches(replicates), _motif_clusters(replicates))


def match_heads(a: ReplicateHeads, b: ReplicateHeads) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Heads of two replicates matched one to one, so that the sum of their similarities is largest.

    Returns
    -------
    DataFrame
        layer_a, head_a, layer_b, head_b, similarity; as many rows as the smaller
        replicate has heads.
    ndarray
        Similarities of all pairs that are not matched.
    """
    similarity = head_similarities(a, b)
    first, second = linear_sum_assignment(similarity, maximize=True)
    rows = [(*a.heads[i], *b.heads[j], similarity[i, j]) for i, j in zip(first, second, strict=True)]
    other = np.ones_like(similarity, dtype=bool)
    other[first, second] = False
    return pd.DataFrame(rows, columns=["layer_a", "head_a", "layer_b", "head_b", "similarity"]), similarity[other]


def head_similarities(a: ReplicateHeads, b: ReplicateHeads) -> NDArray[np.float64]:
    """Similarity in [0, 1] of each head of `a` to each of `b`, shape (heads of a, heads of b), in the order of `heads`.

    Half of it is the best correlation of their enriched motifs, half that of the
    attention that the places of the sequence receive; negative ones are 0. Two heads without a
    motif have the second half only, and a head with one is unlike a head without.
    """
    return (_motif_similarity(a, b) + _place_similarity(a, b)) / 2 * _comparable(a, b)


def _comparable(a: ReplicateHeads, b: ReplicateHeads) -> NDArray[np.bool_]:
    """Whether both heads have an enriched motif or neither has."""
    first, second = (np.array([bool(one.enriched(*head)) for head in one.heads]) for one in (a, b))
    same: NDArray[np.bool_] = first[:, None] == second[None]
    return same


def _motif_similarity(a: ReplicateHeads, b: ReplicateHeads) -> NDArray[np.float64]:
    """Best correlation of two heads' enriched motifs, 0 where one has none."""
    motifs_a, head_a = _motifs_of_heads(a)
    motifs_b, head_b = _motifs_of_heads(b)
    alike = np.maximum(align(motifs_a, motifs_b).correlation, 0)
    result = np.zeros((len(a.heads), len(b.heads)))
    np.maximum.at(result, (head_a[:, None], head_b[None]), alike)
    return result


def _motifs_of_heads(replicate: ReplicateHeads) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Enriched motifs of all heads, and the head of each."""
    found = [(ppm, i) for i, head in enumerate(replicate.heads) for ppm in replicate.enriched(*head)]
    return [ppm for ppm, _ in found], np.array([i for _, i in found], dtype=np.int64)


def _place_similarity(a: ReplicateHeads, b: ReplicateHeads) -> NDArray[np.float64]:
    """Correlation of the attention that places receive, over those that both replicates have; 0 where it has none."""
    first, second = (_profiles(one) for one in (a, b))
    places = first.index.intersection(second.index)
    x, y = first.loc[places].to_numpy(np.float64), second.loc[places].to_numpy(np.float64)
    known = np.isfinite(x).any(1) & np.isfinite(y).any(1)
    x, y = x[known], y[known]
    if len(x) < _FEWEST_PLACES:
        return np.zeros((len(a.heads), len(b.heads)))
    x, y = (_standardised(profiles) for profiles in (x, y))
    return np.maximum(x.T @ y / len(x), 0)


def _standardised(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and variance 1, or all 0 where places look alike or one is unknown."""
    spread = profiles.std(0)
    known = spread > _FLAT  # false for NaN
    scaled = (profiles - profiles.mean(0)) / np.where(known, spread, 1.0)
    return np.where(known, scaled, 0.0)


def _profiles(replicate: ReplicateHeads) -> pd.DataFrame:
    """Received attention, positions down and heads across."""
    table = replicate.positions.pivot_table(index="position", columns=["layer", "head"], values="received")
    return table.reindex(columns=pd.MultiIndex.from_tuples(replicate.heads))


def _head_matches(replicates: Mapping[int, ReplicateHeads]) -> pd.DataFrame:
    tables = []
    for (seed_a, a), (seed_b, b) in combinations(sorted(replicates.items()), 2):
        matched, other = match_heads(a, b)
        # In a random matching that leaves no head its partner, each other head is as likely as any.
        chance = other if len(other) else np.array([np.nan])
        null = {"null_similarity": np.median(chance), "null_q95": np.quantile(chance, 0.95)}
        tables.append(matched.assign(seed_a=seed_a, seed_b=seed_b, note="", **null))
    if not tables:
        only = next(iter(replicates))
        tables = [pd.DataFrame([{"seed_a": only, "note": "one replicate: there is no other one to compare it with"}])]
    return pd.concat(tables, ignore_index=True).reindex(columns=list(HEAD_COLUMNS))


def _motif_clusters(replicates: Mapping[int, ReplicateHeads]) -> pd.DataFrame:
    members = [
        row | {"seed": seed, "ppm": replicate.motifs[_name(row)]}
        for seed, replicate in sorted(replicates.items())
        for row in _records(replicate.table)
        if row["motif"] >= 0
    ]
    n = len(replicates)
    if not members:
        note = f"no head of {n} replicate{'s' * (n > 1)} has a motif"
        return pd.DataFrame([{"cluster": -1, "n_replicates": 0, "n_total": n, "note": note}], columns=[*MOTIF_COLUMNS])
    label = groups([member["ppm"] for member in members], least=_SAME_MOTIF)
    rows = [
        _cluster_row([member for member, other in zip(members, label, strict=True) if other == cluster], n)
        for cluster in range(label.max() + 1)
    ]
    table = pd.DataFrame(rows).sort_values(["n_replicates", "q_value"], ascending=[False, True], kind="stable")
    return table.assign(cluster=np.arange(len(table))).reindex(columns=list(MOTIF_COLUMNS)).reset_index(drop=True)


def _cluster_row(members: Sequence[dict[str, Any]], n_total: int) -> dict[str, Any]:
    best = min(members, key=_by_enrichment)
    enriched = [member for member in members if member["q_value"] < ENRICHED_Q]
    n = len({member["seed"] for member in enriched})
    interval = binomtest(n, n_total).proportion_ci(0.95, method="wilson")
    return {
        "consensus": best["consensus"],
        "matches": best["matches"],
        "n_replicates": n,
        "n_total": n_total,
        "frequency": n / n_total,
        "frequency_ci_low": interval.low,
        "frequency_ci_high": interval.high,
        "n_reading": len({member["seed"] for member in enriched if member["verdict"] == "motif"}),
        "q_value": best["q_value"],
        "enrichment_log2": best["enrichment_log2"],
        "representative": _label(best),
        "members": "; ".join(map(_label, members)),
        "note": "one replicate: nothing is known of others" if n_total == 1 else "",
    }


def _by_enrichment(member: dict[str, Any]) -> tuple[float, float]:
    """Smallest for the most enriched; a missing q-value is the largest."""
    q, enrichment = float(member["q_value"]), float(member["enrichment_log2"])
    return (2.0 if np.isnan(q) else q, 0.0 if np.isnan(enrichment) else -enrichment)


def _label(row: dict[str, Any]) -> str:
    return f"{row['seed']}:{row['layer']}.{row['head']}.{row['motif']}"


def _name(row: dict[str, Any]) -> str:
    return f"layer{row['layer']}_head{row['head']}_motif{row['motif']}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: Any = table.to_dict("records")
    return list(rows)
