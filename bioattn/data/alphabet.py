"""The DNA alphabet as small integers, and the few operations on it everything else uses."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
_TABLE = _CODE.tobytes()
_LETTER = np.frombuffer(b"ACGTN.", dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN, PAD], dtype=np.uint8)
_PAIRED = "ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN"
_COMPLEMENT_TEXT = str.maketrans(*(letters + letters.lower() for letters in _PAIRED))
#: Bases encoded at a time: bounds what is held besides the result.
_CHUNK_BASES = 2**22


def encode(sequence: str) -> NDArray[np.uint8]:
    """Codes of a sequence, shape (L,): A C G T = 0 1 2 3, anything else 4."""
    return _CODE[np.frombuffer(sequence.encode("latin-1", "replace"), dtype=np.uint8)]


def encode_bytes(letters: bytes) -> NDArray[np.uint8]:
    """Codes of letters of one byte each, read-only."""
    return np.frombuffer(letters.translate(_TABLE), dtype=np.uint8)


def decode(codes: NDArray[np.integer]) -> str:
    """Sequence of codes of shape (L,); padding is dropped."""
    codes = np.asarray(codes)
    return _LETTER[codes[codes != PAD]].tobytes().decode("ascii")


def encode_batch(sequences: Sequence[str] | Any) -> NDArray[np.uint8]:
    """Codes of many sequences, shape (N, L of the longest), padded on the right with `PAD`.

    Parameters
    ----------
    sequences : list, Series or Arrow array of str
    """
    parts = list(encode_flat(sequences))
    longest = max((int(lengths.max()) for _, lengths in parts), default=0)
    codes = np.full((sum(len(lengths) for _, lengths in parts), longest), PAD, dtype=np.uint8)
    row = 0
    for flat, lengths in parts:
        rows = codes[row : row + len(lengths)]
        if (lengths == longest).all():
            rows[:] = flat.reshape(rows.shape)
        else:
            rows[np.arange(longest) < lengths[:, None]] = flat
        row += len(lengths)
    return codes


def encode_flat(sequences: Sequence[str] | Any) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Codes of sequences one after the other, and the length of each, for some million bases at a time.

    Without a step of Python for each sequence or base. Takes what `encode_batch` takes;
    Arrow text is read where it lies.
    """
    if not isinstance(sequences, pa.Array | pa.ChunkedArray):
        held = getattr(sequences, "array", sequences)  # of a Series
        # pandas keeps text in Arrow memory, which it gives away as it is, or as Python objects.
        sequences = pa.array(held) if hasattr(held, "__arrow_array__") else list(sequences)
    if isinstance(sequences, pa.Array | pa.ChunkedArray) and pa.types.is_dictionary(sequences.type):
        sequences = sequences.cast(sequences.type.value_type)
    pieces = sequences.chunks if isinstance(sequences, pa.ChunkedArray) else [sequences]
    for piece in pieces:
        for start, end in _chunks(piece):
            yield _flat(piece[start:end])


def _chunks(texts: list[str] | pa.Array) -> Iterator[tuple[int, int]]:
    """Intervals of sequences that hold about so many bases as are worked on at a time, or one longer sequence."""
    if isinstance(texts, pa.Array):
        lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
    else:
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    # A sequence counts as 64 bases more, so that there is a bound on their number too.
    filled = np.cumsum(lengths.astype(np.int64) + 64) // _CHUNK_BASES
    starts = np.flatnonzero(np.diff(filled, prepend=-1))
    yield from itertools.pairwise([*starts.tolist(), len(texts)])


def _flat(texts: list[str] | pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if isinstance(texts, pa.Array) and (found := _arrow_bytes(texts)) is not None:
        letters, lengths = found
    else:
        strings = texts.to_pylist() if isinstance(texts, pa.Array) else texts
        letters = "".join(strings).encode("latin-1", "replace")
        lengths = np.fromiter(map(len, strings), dtype=np.int64, count=len(strings))
    return encode_bytes(letters), lengths


def _arrow_bytes(texts: pa.Array) -> tuple[bytes, NDArray[np.int64]] | None:
    """Letters of an Arrow array and lengths, or None if letters are not one byte each, or not laid out in a row."""
    if texts.null_count or not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        return None
    _, offsets, letters = texts.buffers()
    wide = pa.types.is_large_string(texts.type)
    ends = np.frombuffer(offsets, dtype="i8" if wide else "i4")[texts.offset : texts.offset + len(texts) + 1]
    found = b"" if letters is None else letters[int(ends[0]) : int(ends[-1])].to_pybytes()
    return (found, np.diff(ends).astype(np.int64)) if found.isascii() else None


def reverse_complement(sequence: str) -> str:
    """The other strand, read 5' to 3', in upper case."""
    return other_strand(sequence.upper())


def other_strand(letters: str) -> str:
    """The other strand, read 5' to 3'; upper and lower case stay with their bases."""
    return letters.translate(_COMPLEMENT_TEXT)[::-1]


def reverse_complement_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The other strand of codes (..., L); padding comes out on the left."""
    return _COMPLEMENT[codes[..., ::-1]]


def one_hot(codes: NDArray[np.integer]) -> NDArray[np.float32]:
    """One-hot (N, A, L) float32 of codes (N, L); unknown bases and padding are zero columns."""
    # Compared rather than looked up: the result lies in memory as it is asked for, in one pass.
    letters = np.arange(N_LETTERS, dtype=np.uint8)[:, None]
    return (np.asarray(codes)[:, None, :] == letters).astype(np.float32)
