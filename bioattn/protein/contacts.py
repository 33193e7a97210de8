"""How well scores of pairs of residues find contacts, and whether distances could be those of points in space."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from Bio.Align import PairwiseAligner
from numpy.typing import NDArray

from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.errors import DataError

#: Ranges of separation in the sequence: least, and most.
RANGES = {"long": (24, None), "medium": (12, 23), "short": (6, 11)}
#: Pairs nearer in the sequence say little of a fold.
LEAST_SEPARATION = 6
#: How many of the best scored pairs are looked at, in lengths of the protein.
SHARES = {"L": 1.0, "L/2": 0.5, "L/5": 0.2}
_LEAST_IDENTITY = 0.9


def known_pairs(
    distances_angstrom: NDArray[np.floating], *, least_separation: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Residues i < j of all pairs with a known distance that are so far apart in the sequence."""
    i, j = np.triu_indices(len(distances_angstrom), least_separation)
    known = np.isfinite(distances_angstrom[i, j])
    return i[known], j[known]


def contact_precision(
    scores: NDArray[np.float64], distances_angstrom: NDArray[np.float64], *, contact_angstrom: float = CONTACT_ANGSTROM
) -> pd.DataFrame:
    """Precision of the best scored pairs, by their separation in the sequence.

    Parameters
    ----------
    scores : ndarray, shape (L, L)
        High for contacts; the upper triangle counts. NaN pairs come last.
    distances_angstrom : ndarray, shape (L, L)
        NaN where a residue is not resolved; such pairs take no part.

    Returns
    -------
    DataFrame
        range, top ("L", "L/2", "L/5", L being the number of resolved residues), precision, n (pairs
        looked at), n_contacts (in that range), n_pairs. NaN where a range has no pair.
    """
    if scores.shape != distances_angstrom.shape or scores.ndim != 2:
        raise DataError(
            f"scores and distances must be of the same residues, got {scores.shape} and {distances_angstrom.shape}"
        )
    resolved = int(np.isfinite(np.diag(distances_angstrom)).sum())
    i, j = known_pairs(distances_angstrom)
    apart = j - i
    touch = distances_angstrom[i, j] < contact_angstrom
    value = np.nan_to_num(scores[i, j], nan=-np.inf)
    rows = []
    for name, (least, most) in RANGES.items():
        within = (apart >= least) & (apart <= (most or len(scores)))
        ranked = touch[within][np.argsort(-value[within], kind="stable")]
        for top, share in SHARES.items():
            n = min(max(int(round(share * resolved)), 1), len(ranked))
            precision = float(ranked[:n].mean()) if n else float("nan")
            rows.append([name, top, precision, n, int(ranked.sum()), len(ranked)])
    return pd.DataFrame(rows, columns=["range", "top", "precision", "n", "n_contacts", "n_pairs"])


class Violations(NamedTuple):
    """Triangles of residues whose distances no points in space can have.

    Attributes
    ----------
    rate : float
        Share of all ordered triples (i, j; k) with d_ij > d_ik + d_kj.
    size_angstrom : float
        Mean of what d_ij is too long by, over the violations; 0 without any.
    n : int
        Triples that were looked at.
    """

    rate: float
    size_angstrom: float
    n: int


def triangle_violations(distances: NDArray[np.float64], *, tolerance_angstrom: float = 1e-6) -> Violations:
    """Violations of the triangle inequality by symmetric distances (L, L) in angstrom; NaN pairs take no part."""
    length, n, count, total = len(distances), 0, 0, 0.0
    others = ~np.eye(length, dtype=bool)
    for k in range(length):
        excess = distances - (distances[:, k, None] + distances[None, k, :])
        looked = others & np.isfinite(excess)
        looked[k] = looked[:, k] = False
        excess = excess[looked]
        n += len(excess)
        over = excess[excess > tolerance_angstrom]
        count, total = count + len(over), total + float(over.sum())
    return Violations(count / max(n, 1), total / max(count, 1), n)


def columns_on_chain(query: str, chain_sequence: str, *, name: str) -> NDArray[np.int64]:
    """Residue of a chain that each residue of a query is, (L,); -1 where the structure shows none.

    Parameters
    ----------
    query : str
        Sequence of the alignment's focus, without gaps.
    chain_sequence : str
        Of the structure.
    name : str
        Of the structure, for messages.

    Raises
    ------
    DataError
        If fewer than 90 % of the residues that lie on each other are the same.
    """
    aligner = PairwiseAligner(mode="global", match_score=2, mismatch_score=-1, open_gap_score=-4, extend_gap_score=-0.5)
    # Residues beyond the ends of the other are no gap.
    aligner.end_gap_score = 0.0
    best = aligner.align(query, chain_sequence)[0]
    place = np.full(len(query), -1)
    for (start, end), (other, _) in zip(*best.aligned, strict=True):
        place[start:end] = np.arange(other, other + end - start)
    on = np.flatnonzero(place >= 0)
    same = sum(query[i] == chain_sequence[place[i]] for i in on)
    if len(on) == 0 or same < _LEAST_IDENTITY * len(on):
        wrong = next((i for i in on if query[i] != chain_sequence[place[i]]), None)
        first = (
            "" if wrong is None else f"; the first other is {query[wrong]}{wrong + 1}, {chain_sequence[place[wrong]]}"
        )
        raise DataError(f"{name} does not fit the alignment: {same} of {len(on)} aligned residues are the same{first}")
    return place
