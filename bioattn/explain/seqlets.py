"""Seqlets: short intervals to which a head gives more weight than it does in shuffled sequences."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet


class Peaks(NamedTuple):
    """Local maxima of a track, one row each.

    Attributes
    ----------
    row : ndarray, int64, shape (S,)
        Sequence.
    token : ndarray, int64, shape (S,)
    score : ndarray, float32, shape (S,)
        Value of the track there.
    """

    row: NDArray[np.int64]
    token: NDArray[np.int64]
    score: NDArray[np.float32]

    def take(self, index: NDArray | slice) -> "Peaks":
        """The peaks at an index."""
        return Peaks(self.row[index], self.token[index], self.score[index])


def find_peaks(track: NDArray[np.float32], centre: NDArray[np.int64], *, apart_bp: int, per_sequence: int = 3) -> Peaks:
    """Highest tokens of each sequence that lie at least `apart_bp` from each other, highest first.

    Parameters
    ----------
    track : ndarray, shape (N, t)
        NaN where there is no token.
    centre : ndarray, int64, shape (N, t)
        Base in the middle of each token.
    per_sequence : int
        Most peaks of one sequence.
    """
    left = np.where(np.isnan(track), -np.inf, track)
    every = np.arange(len(track))
    found = []
    for _ in range(per_sequence):
        token = left.argmax(1) if left.shape[1] else np.zeros(0, dtype=np.int64)
        if not len(token):
            break
        score = left[every, token]
        known = np.isfinite(score)
        found.append(Peaks(every[known], token[known], score[known].astype(np.float32)))
        near = np.abs(centre - centre[every, token][:, None]) < apart_bp
        left[near] = -np.inf
    if not found:
        return Peaks(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    joined = Peaks(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return joined.take(np.argsort(-joined.score, kind="stable"))


class Threshold(NamedTuple):
    """Least score of a seqlet, how many peaks reach it, and the share of these that shuffled sequences explain."""

    score: float
    n: int
    fdr: float


def threshold(
    peaks: NDArray[np.float32], null: NDArray[np.float32], *, share: float, fdr: float, fewest: int, most: int
) -> Threshold:
    """Lowest score from which on at most a share `fdr` of the peaks is expected from shuffled sequences.

    Expected from a score on: (1 + peaks of the null from there on) times `share`, how
    many sequences there are for each one of the null. Words of a short motif occur in shuffled
    sequences too and are read there, so such a score need not exist although the
    head reads a motif. If it leaves fewer than `fewest` peaks, the `most` highest are
    taken, with the rate that they have; whether a motif in them is more than chance
    is for held-out sequences to say.

    Source: target-decoy competition, Elias & Gygi 2007.
    """
    scores = np.sort(peaks)[::-1]
    if not len(scores):
        return Threshold(float("inf"), 0, float("nan"))
    above = len(null) - np.searchsorted(np.sort(null), scores, side="left")
    rate = (1 + above) * share / np.arange(1, len(scores) + 1)
    kept = np.flatnonzero(rate <= fdr)
    last = int(kept[-1]) if len(kept) else -1
    if last + 1 < fewest:
        last = min(most, len(scores)) - 1
    return Threshold(float(scores[last]), last + 1, float(min(rate[last], 1.0)))


class Windows(NamedTuple):
    """Windows of one width cut out of sequences.

    Attributes
    ----------
    codes : ndarray, uint8, shape (S, width)
    row, start : ndarray, int64, shape (S,)
        Sequence and first base of each.
    """

    codes: NDArray[np.uint8]
    row: NDArray[np.int64]
    start: NDArray[np.int64]

    def take(self, index: NDArray | slice) -> "Windows":
        """The windows at an index."""
        return Windows(self.codes[index], self.row[index], self.start[index])


def windows_at(codes: NDArray[np.uint8], row: NDArray[np.int64], middle: NDArray[np.int64], width: int) -> Windows:
    """Windows around bases, moved inwards at the ends; sequences shorter than a window have none."""
    length = (codes != alphabet.PAD).sum(1)
    fits = length[row] >= width
    row, middle = row[fits], middle[fits]
    start = np.clip(middle - width // 2, 0, length[row] - width)
    return Windows(codes[row[:, None], start[:, None] + np.arange(width)], row, start)


def windows_elsewhere(codes: NDArray[np.uint8], windows: Windows, draw: np.random.Generator) -> Windows:
    """A random window of the same sequence for each, at least half a window away where there is room for that."""
    width = windows.codes.shape[1]
    last = (codes != alphabet.PAD).sum(1)[windows.row] - width
    half = width // 2
    shift = draw.integers(half, np.maximum(last + 2 - half, half + 1))
    start = (windows.start + shift) % (last + 1)
    return Windows(codes[windows.row[:, None], start[:, None] + np.arange(width)], windows.row, start)
