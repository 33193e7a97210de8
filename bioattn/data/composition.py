"""What a sequence is made of, whatever the order: k-mer counts and a few numbers that classes often differ in."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.data import alphabet

#: Column of `features` -> what it is.
FEATURES = {
    "gc": "GC content",
    "cpg_ratio": "CpG observed over expected",
    "length": "length",
    "soft_masked": "soft-masked share",
    "unknown": "share of unknown bases",
    "top_dinucleotide": "share of the most frequent dinucleotide",
}
_LOWER = re.compile("[a-z]+")


def kmer_counts(sequences: Sequence[str] | Any, k: int) -> NDArray[np.int64]:
    """How often each k-mer of the given strand occurs in each sequence, (N, 4^k), in order AA.., AA..C, ..., TT...

    A k-mer that holds an unknown base is not counted.
    """
    width = alphabet.N_LETTERS**k
    parts = [np.zeros((0, width), dtype=np.int64)]
    for codes, lengths in alphabet.encode_flat(sequences):
        row, kmer = words_of(codes, lengths, k)
        parts.append(np.bincount(row * width + kmer, minlength=len(lengths) * width).reshape(-1, width))
    return np.concatenate(parts)


def kmer_totals(sequences: Sequence[str] | Any, k: int) -> NDArray[np.int64]:
    """How often each k-mer of the given strand occurs in all sequences together, (4^k,)."""
    width = alphabet.N_LETTERS**k
    totals = np.zeros(width, dtype=np.int64)
    for codes, lengths in alphabet.encode_flat(sequences):
        totals += np.bincount(words_of(codes, lengths, k)[1], minlength=width)
    return totals


def words_of(
    codes: NDArray[np.uint8], lengths: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and number of every word of k known bases, of sequences that lie one after the other."""
    n_windows = max(len(codes) - k + 1, 0)
    row = np.repeat(np.arange(len(lengths)), lengths)
    keep = row[:n_windows] == row[len(row) - n_windows :]
    kmer = np.zeros(n_windows, dtype=np.int64)
    for offset in range(k):
        letter = codes[offset : offset + n_windows]
        keep &= letter < alphabet.N_LETTERS
        kmer = kmer * alphabet.N_LETTERS + letter
    return row[:n_windows][keep], kmer[keep]


def gc_share(letters: NDArray[np.integer]) -> NDArray[np.float64]:
    """GC share of the known letters, from counts (N, 4) of A, C, G, T."""
    return (letters[:, 1] + letters[:, 2]) / np.maximum(letters.sum(axis=1), 1)


def features(sequences: pd.Series, spans: pd.Series | None = None) -> pd.DataFrame:
    """Numbers that describe the composition of each sequence, one column of `FEATURES` each.

    Parameters
    ----------
    sequences : Series of str, shape (N,)
    spans : Series of str, optional
        Column `soft_masked` of the table of sequences; without it nothing is soft-masked.
    """
    letters, pairs = kmer_counts(sequences, 1), kmer_counts(sequences, 2)
    lengths = sequences.str.len().to_numpy(dtype=np.int64)
    known = np.maximum(letters.sum(axis=1), 1)
    expected = letters[:, 1] * letters[:, 2] / known
    return pd.DataFrame(
        {
            "gc": gc_share(letters),
            "cpg_ratio": np.divide(pairs[:, 6], expected, out=np.zeros(len(pairs)), where=expected > 0),
            "length": lengths.astype(np.float64),
            "soft_masked": np.zeros(len(lengths)) if spans is None else masked_letters(spans) / np.maximum(lengths, 1),
            "unknown": 1 - letters.sum(axis=1) / np.maximum(lengths, 1),
            "top_dinucleotide": pairs.max(axis=1, initial=0) / np.maximum(pairs.sum(axis=1), 1),
        }
    )


def masked_letters(spans: pd.Series) -> NDArray[np.int64]:
    """Letters that spans such as "0-12,55-80" cover, for each sequence; none where there is no text."""
    return np.array([_covered(text) if isinstance(text, str) and text else 0 for text in spans], dtype=np.int64)


def masked_spans(letters: str) -> str:
    """Half-open spans of the lower-case letters of a sequence, such as "0-12,55-80"; "" for none."""
    return ",".join(f"{found.start()}-{found.end()}" for found in _LOWER.finditer(letters))


def _covered(text: str) -> int:
    total = 0
    for span in text.split(","):
        start, _, end = span.partition("-")
        total += int(end) - int(start)
    return total
