"""The DNA alphabet as small integers, and the few operations on it everything else uses."""

import numpy as np
from numpy.typing import NDArray

#: Letters in the order of every one-hot axis.
LETTERS = "ACGT"
N_LETTERS = 4
#: Code of an unknown base: carries no letter, but is part of the sequence.
UNKNOWN = 4
#: Code of padding: not part of the sequence.
PAD = 5

_CODE = np.full(256, UNKNOWN, dtype=np.uint8)
for _i, _letter in enumerate(LETTERS):
    _CODE[ord(_letter)] = _CODE[ord(_letter.lower())] = _i
_LETTER = np.frombuffer(b"ACGTN.", dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN, PAD], dtype=np.uint8)
_COMPLEMENT_TEXT = str.maketrans("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN")


def encode(sequence: str) -> NDArray[np.uint8]:
    """Codes of a sequence, shape (L,): A C G T = 0 1 2 3, anything else 4."""
    return _CODE[np.frombuffer(sequence.encode("latin-1", "replace"), dtype=np.uint8)]


def decode(codes: NDArray[np.integer]) -> str:
    """Sequence of codes of shape (L,); padding is dropped."""
    codes = np.asarray(codes)
    return _LETTER[codes[codes != PAD]].tobytes().decode("ascii")


def encode_batch(sequences: list[str]) -> NDArray[np.uint8]:
    """Codes of many sequences, shape (N, L of the longest), padded on the right with `PAD`."""
    longest = max(map(len, sequences), default=0)
    codes = np.full((len(sequences), longest), PAD, dtype=np.uint8)
    for row, sequence in zip(codes, sequences, strict=True):
        row[: len(sequence)] = encode(sequence)
    return codes


def reverse_complement(sequence: str) -> str:
    """The other strand, read 5' to 3'."""
    return sequence.upper().translate(_COMPLEMENT_TEXT)[::-1]


def reverse_complement_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The other strand of codes (..., L) without padding."""
    return _COMPLEMENT[codes[..., ::-1]]


def one_hot(codes: NDArray[np.integer]) -> NDArray[np.float32]:
    """One-hot (N, A, L) float32 of codes (N, L); unknown bases and padding are zero columns."""
    table = np.zeros((PAD + 1, N_LETTERS), dtype=np.float32)
    table[:N_LETTERS] = np.eye(N_LETTERS, dtype=np.float32)
    return np.ascontiguousarray(table[np.asarray(codes)].transpose(0, 2, 1))
