"""Related proteins: who resembles whom more than chance allows, and what that leaks from training to test."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from Bio.Align import PairwiseAligner, substitution_matrices
from numpy.typing import NDArray

from bioattn import rng
from bioattn.data.partition import components, group_counts, partition
from bioattn.errors import DataError

# Karlin and Altschul's lambda and K of gapped BLOSUM62 with an opening of 11 and 1 for each residue of a gap, as
# tabulated for BLAST.
_LAMBDA, _K = 0.267, 0.041
SUBSETS = ("train", "validation", "test")


def _aligner() -> PairwiseAligner:
    made = PairwiseAligner(mode="local")
    made.substitution_matrix = substitution_matrices.load("BLOSUM62")
    made.open_gap_score, made.extend_gap_score = -12.0, -1.0
    return made


def e_value(score: float, query: int, database: int) -> float:
    """Alignments of that score that a query expects by chance in a database, both in residues.

    Source: Karlin and Altschul 1990.
    """
    return _K * query * database * math.exp(-_LAMBDA * score)


def related_pairs(
    sequences: Sequence[str], *, most_e_value: float = 1e-3, tick: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Pairs of sequences whose best local alignment chance does not explain.

    Every pair is aligned: words that two sequences share, with which faster ways begin, are not to be had where few
    residues are the same.

    Parameters
    ----------
    most_e_value : float
        Of the better of both directions, in a database of all the sequences.
    tick : callable, optional
        Called with the number of rows that are done, and of all.

    Returns
    -------
    DataFrame
        left, right (rows, left < right), score, e_value, identity (identical residues of the alignment over the
        residues of the shorter sequence).
    """
    aligner = _aligner()
    known = [_twenty(sequence) for sequence in sequences]
    total = sum(map(len, known))
    rows = []
    for i, one in enumerate(known):
        for j in range(i):
            least = min(len(one), len(known[j]))
            # The longer the query the more chance: the shorter decides.
            found = e_value(aligner.score(one, known[j]), least, total)
            if found <= most_e_value:
                rows.append([j, i, *_described(aligner, known[j], one), found])
        if tick is not None:
            tick(i + 1, len(known))
    return pd.DataFrame(rows, columns=["left", "right", "score", "identity", "e_value"]).astype(
        {"left": np.int64, "right": np.int64}
    )


def _described(aligner: PairwiseAligner, one: str, other: str) -> tuple[float, float]:
    best = aligner.align(one, other)[0]
    same = sum(
        a == b
        for (start, end), (begin, _) in zip(*best.aligned, strict=True)
        for a, b in zip(one[start:end], other[begin:], strict=False)
    )
    return float(best.score), same / min(len(one), len(other))


def _twenty(sequence: str) -> str:
    """The sequence in letters that the matrix has."""
    return sequence.upper().replace("U", "C").replace("O", "K").replace("-", "X")


def split_chains(
    n: int,
    related: pd.DataFrame,
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """Groups of related sequences, dealt out whole.

    Parameters
    ----------
    n : int
        Sequences.
    related : DataFrame
        See `related_pairs`.

    Returns
    -------
    DataFrame
        One row for each sequence: group, subset (train, validation, test).

    Raises
    ------
    DataError
        If a part stays empty.
    """
    groups = components(n, related["left"].to_numpy(np.int64), related["right"].to_numpy(np.int64))
    fractions = [1 - test_fraction - validation_fraction, validation_fraction, test_fraction]
    counts = group_counts(groups, np.zeros(n, dtype=np.int64))
    parts = partition(counts, fractions, sink=True, rng=rng.stream(seed, "protein", "split"))
    subset = np.array(SUBSETS, dtype=object)[parts[groups]]
    for name in SUBSETS:
        if not (subset == name).any():
            raise DataError(
                f"{n} chains in {len(counts)} groups of related ones leave nothing for the part '{name}': give more "
                "chains, or larger fractions"
            )
    return pd.DataFrame({"group": groups, "subset": subset})


def leakage(subset: Sequence[str], related: pd.DataFrame) -> pd.DataFrame:
    """How many sequences of validation and test have a relative in training, and how near the nearest is.

    Parameters
    ----------
    subset : sequence of str
        Part of each sequence.
    related : DataFrame
        See `related_pairs`.

    Returns
    -------
    DataFrame
        subset, n, n_related (with a relative in training), share, highest_identity (NaN without any).
    """
    part = np.asarray(subset, dtype=object)
    both = [(related["left"], related["right"]), (related["right"], related["left"])]
    rows = []
    for name in SUBSETS[1:]:
        identity: NDArray[np.float64] = np.full(len(part), np.nan)
        for one, other in both:
            hit = (part[one] == name) & (part[other] == "train")
            np.fmax.at(identity, one[hit].to_numpy(), related["identity"][hit].to_numpy())
        n, with_relative = int((part == name).sum()), int(np.isfinite(identity).sum())
        highest = float(np.nanmax(identity)) if with_relative else math.nan
        rows.append([name, n, with_relative, with_relative / max(n, 1), highest])
    return pd.DataFrame(rows, columns=["subset", "n", "n_related", "share", "highest_identity"])
