"""Amino acids as small integers, alignments of them, and what an alignment is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioattn.errors import DataError

#: Letters in the order of every one-hot axis.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
N_AMINO_ACIDS = 20
#: Code of a gap, and of a residue that is not one of the twenty.
GAP = 20

_CODE = np.full(256, GAP, dtype=np.uint8)
for _i, _letter in enumerate(AMINO_ACIDS):
    _CODE[ord(_letter)] = _i
# Selenocysteine and pyrrolysine are read as what they are made from.
_CODE[ord("U")], _CODE[ord("O")] = _CODE[ord("C")], _CODE[ord("K")]
_LETTER = np.frombuffer((AMINO_ACIDS + "-").encode(), dtype=np.uint8)
#: Letters that an alignment may hold: ambiguous residues count as gaps.
ALLOWED = frozenset(AMINO_ACIDS + "UOBZJX-.")


def encode_residues(sequence: str) -> NDArray[np.uint8]:
    """Codes (L,) of upper-case letters; gaps and ambiguous residues are `GAP`."""
    return _CODE[np.frombuffer(sequence.encode("latin-1", "replace"), dtype=np.uint8)]


def decode_residues(codes: NDArray[np.integer]) -> str:
    """Letters of codes (L,), "-" for gaps."""
    return _LETTER[np.asarray(codes)].tobytes().decode("ascii")


@dataclass(frozen=True)
class Alignment:
    """Sequences of a family, residue by residue in columns.

    Attributes
    ----------
    names : list of str
    codes : ndarray, uint8, shape (S, L)
        Amino acids 0 to 19, gaps 20.
    """

    names: list[str]
    codes: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or len(self.names) != len(self.codes):
            raise DataError(f"an alignment of {len(self.names)} names needs codes (S, L), got {self.codes.shape}")

    def index_of(self, name: str) -> int:
        """Row of a sequence by its name, or by the first word of it.

        Raises
        ------
        DataError
            If no sequence is called so.
        """
        for i, known in enumerate(self.names):
            if name in (known, known.split()[0] if known.split() else known):
                return i
        some = ", ".join(self.names[:5])
        raise DataError(f"no sequence of the alignment is named '{name}'; the first of {len(self.names)} are {some}")

    def focused(self, row: int = 0) -> "Alignment":
        """The columns in which one sequence has a residue."""
        return Alignment(self.names, self.codes[:, self.codes[row] != GAP])

    def without_gappy(self, *, most_gaps: float) -> "Alignment":
        """The sequences that lack at most this share of the columns."""
        kept = np.flatnonzero((self.codes == GAP).mean(1) <= most_gaps)
        return Alignment([self.names[i] for i in kept], self.codes[kept])


def sequence_weights(codes: NDArray[np.uint8], *, identity: float = 0.8) -> NDArray[np.float64]:
    """Weight (S,) of each sequence: one over the number of sequences, itself included, that are so alike.

    Alike are two that agree in at least this share of all columns. The sum of the weights is the effective number
    of sequences.

    Raises
    ------
    DataError
        If there are fewer than two sequences: nothing varies together in one.

    Source: Morcos et al. 2011, eq. 3.
    """
    if len(codes) < 2:
        raise DataError(f"an alignment needs at least 2 sequences to see columns vary together, got {len(codes)}")
    one_hot = one_hot_residues(codes, n=N_AMINO_ACIDS + 1).reshape(len(codes), -1)
    least = identity * codes.shape[1] - 1e-6
    counts = [(part @ one_hot.T >= least).sum(1) for part in np.array_split(one_hot, max(1, len(codes) // 1000))]
    return 1.0 / np.concatenate(counts)


def one_hot_residues(codes: NDArray[np.uint8], *, n: int = N_AMINO_ACIDS) -> NDArray[np.float32]:
    """One-hot (S, L, n) of codes; what is not among the first n (a gap, for n = 20) is zero everywhere."""
    made: NDArray[np.float32] = (codes[..., None] == np.arange(n, dtype=np.uint8)).astype(np.float32)
    return made


def profile(codes: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted frequencies (L, 21) of residues and gaps in each column."""
    one_hot = one_hot_residues(codes, n=N_AMINO_ACIDS + 1)
    frequencies: NDArray[np.float64] = np.einsum("s,sla->la", weights, one_hot) / weights.sum()
    return frequencies


def shuffled_columns(codes: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    """The alignment with each column permuted by itself: conservation stays, what varies together is gone."""
    return np.stack([draw.permutation(column) for column in codes.T], axis=1)
