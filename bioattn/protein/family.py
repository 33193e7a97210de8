"""A protein family: an alignment seen from the sequence whose structure is known."""

from dataclasses import dataclass

import edlib
import numpy as np
from numpy.typing import NDArray

from bioattn.data.residues import GAP, Alignment, decode_residues, sequence_weights
from bioattn.data.structure import Chain, pair_distances
from bioattn.protein.contacts import columns_on_chain


@dataclass(frozen=True)
class Family:
    """What contacts of one family are predicted from, and checked against.

    Attributes
    ----------
    query : str
        Sequence whose columns are looked at.
    codes : ndarray, uint8, shape (S, L)
        Of the alignment in these columns.
    weights : ndarray, shape (S,)
        `bioattn.data.residues.sequence_weights`; their sum is the effective number of sequences.
    cb_angstrom : ndarray, shape (L, 3)
        C-beta of each residue, NaN where the structure shows nothing.
    """

    query: str
    codes: NDArray[np.uint8]
    weights: NDArray[np.float64]
    cb_angstrom: NDArray[np.float64]

    @property
    def distances_angstrom(self) -> NDArray[np.float64]:
        """Distances (L, L) between C-beta, NaN where the structure shows nothing."""
        return pair_distances(self.cb_angstrom)

    @property
    def n_effective(self) -> float:
        """Effective number of sequences."""
        return float(self.weights.sum())


def family_of(
    alignment: Alignment, chain: Chain, *, query: str | None = None, most_gaps: float = 0.5, identity: float = 0.8
) -> Family:
    """The family seen from one sequence, with the distances of its structure.

    Parameters
    ----------
    query : str, optional
        Name of the sequence; without it the one most like the chain.
    most_gaps : float
        Sequences that lack a larger share of the query's columns are left out.
    identity : float
        Sequences that agree in so many columns count as one.

    Raises
    ------
    DataError
        If the structure is of another protein, or fewer than two sequences are left.
    """
    row = nearest_row(alignment, chain.sequence) if query is None else alignment.index_of(query)
    focused = alignment.focused(row)
    sequence = decode_residues(focused.codes[row])
    place = columns_on_chain(sequence, chain.sequence, name=chain.name)
    cb = np.where((place >= 0)[:, None], chain.cb_angstrom[place], np.nan)
    codes = focused.without_gappy(most_gaps=most_gaps).codes
    return Family(sequence, codes, sequence_weights(codes, identity=identity), cb)


def nearest_row(alignment: Alignment, sequence: str) -> int:
    """Row of the alignment whose residues are found in a sequence with the smallest share of edits."""
    shares = []
    for codes in alignment.codes:
        letters = decode_residues(codes[codes != GAP])
        edits = edlib.align(letters, sequence, mode="HW", task="distance")["editDistance"]
        shares.append(edits / max(len(letters), 1))
    return int(np.argmin(shares))
