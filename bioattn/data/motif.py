"""Motifs as matrices, and the conversions between counts, probabilities and log odds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bioattn.data import alphabet
from bioattn.errors import DataError

#: Two motifs are compared on at least so many columns.
_SHARED_COLUMNS = 6


@dataclass(frozen=True)
class Motif:
    """A motif with its name and position probability matrix (PPM).

    Attributes
    ----------
    name, motif_id : str
        What people call it, and its accession.
    ppm : ndarray, float64, shape (A, W)
        Columns sum to one.
    family : str
        Structural family of the factor, "" if unknown.
    """

    name: str
    motif_id: str
    ppm: NDArray[np.float64]
    family: str = ""

    def __post_init__(self) -> None:
        if self.ppm.ndim != 2 or self.ppm.shape[0] != alphabet.N_LETTERS or self.ppm.shape[1] == 0:
            raise DataError(f"motif '{self.name}': expected a matrix of shape (4, width > 0), found {self.ppm.shape}")
        if not np.allclose(self.ppm.sum(0), 1, atol=1e-3) or (self.ppm < 0).any():
            raise DataError(f"motif '{self.name}': columns must be probabilities that sum to one")

    @property
    def width(self) -> int:
        """Number of positions."""
        return int(self.ppm.shape[1])

    @property
    def consensus(self) -> str:
        """Most probable letter of each position."""
        return "".join(alphabet.LETTERS[i] for i in self.ppm.argmax(0))

    def reverse_complement(self) -> "Motif":
        """The same motif on the other strand."""
        return Motif(self.name, self.motif_id, self.ppm[::-1, ::-1].copy(), self.family)


def ppm_from_counts(counts: ArrayLike, *, pseudocount: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (A, W) of counts (A, W), with `pseudocount` spread over the four letters of a column."""
    counts = np.asarray(counts, dtype=np.float64) + pseudocount / alphabet.N_LETTERS
    return counts / counts.sum(0, keepdims=True)


def log_odds(ppm: NDArray[np.float64], *, background: ArrayLike = (0.25, 0.25, 0.25, 0.25)) -> NDArray[np.float64]:
    """PWM: log2 odds (A, W) of probabilities against a background of letter frequencies (A,)."""
    return np.log2(np.maximum(ppm, 1e-4)) - np.log2(np.asarray(background, dtype=np.float64))[:, None]


def information(ppm: NDArray[np.float64], *, background: ArrayLike = (0.25, 0.25, 0.25, 0.25)) -> NDArray[np.float64]:
    """Information of each position in bits, (W,): relative entropy to the background."""
    safe = np.maximum(ppm, 1e-12)
    return (ppm * np.log2(safe / np.asarray(background, dtype=np.float64)[:, None])).sum(0)


def sharpen(ppm: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Probabilities raised to `exponent` and renormalised per column: above 1, sites become more typical."""
    powered = ppm**exponent
    return powered / powered.sum(0, keepdims=True)


def trim(ppm: NDArray[np.float64], *, threshold_bits: float = 0.15) -> slice:
    """Columns between the first and the last one that carry at least `threshold_bits`; all if none does."""
    strong = np.flatnonzero(information(ppm) >= threshold_bits)
    return slice(int(strong[0]), int(strong[-1]) + 1) if len(strong) else slice(0, ppm.shape[1])


def scan(codes: NDArray[np.integer], pwm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of a PWM at every start on the given strand, shape (N, L - W + 1).

    Unknown bases score zero, as if drawn from the background; windows that
    reach into padding score minus infinity.
    """
    codes = np.asarray(codes)
    width = pwm.shape[1]
    n_starts = codes.shape[1] - width + 1
    if n_starts < 1:
        return np.empty((len(codes), 0))
    table = np.vstack([pwm, np.zeros(width), np.full(width, -np.inf)])
    scores = np.zeros((len(codes), n_starts))
    for offset in range(width):
        scores += table[codes[:, offset : offset + n_starts], offset]
    return scores


def scan_both_strands(codes: NDArray[np.integer], pwm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Larger score of the two strands at every start, shape (N, L - W + 1)."""
    return np.maximum(scan(codes, pwm), scan(codes, pwm[::-1, ::-1]))


def score_threshold(pwm: NDArray[np.float64], p_value: float, *, step_bits: float = 0.02) -> float:
    """Smallest PWM score that a uniform random window reaches with at most `p_value`.

    The exact distribution of the score rounded to `step_bits`, by convolving the
    positions (Staden 1989).
    """
    rounded = np.round(pwm / step_bits).astype(int)
    low = rounded.min(0)
    distribution = np.ones(1)
    for column, least in zip(rounded.T, low, strict=True):
        wider = np.zeros(len(distribution) + column.max() - least)
        for value in column:
            wider[value - least : value - least + len(distribution)] += distribution / alphabet.N_LETTERS
        distribution = wider
    tail = np.cumsum(distribution[::-1])[::-1]
    reached = np.flatnonzero(tail <= p_value)
    total_low = int(low.sum())
    if len(reached) == 0:  # even the best site is more likely than that: only the best site is a hit
        return float((len(distribution) - 1 + total_low) * step_bits - step_bits / 2)
    return float((reached[0] + total_low) * step_bits - step_bits / 2)


def best_correlation(found: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """Largest Pearson correlation of two PPMs (A, W) over all offsets and both strands.

    At least six columns must overlap, or all of the narrower one if it
    has fewer; -1 if no overlap has any variance.
    """
    least = min(_SHARED_COLUMNS, found.shape[1], known.shape[1])
    best = -1.0
    for other in (known, known[::-1, ::-1]):
        for offset in range(least - found.shape[1], other.shape[1] - least + 1):
            low, high = max(0, offset), min(other.shape[1], offset + found.shape[1])
            a, b = found[:, low - offset : high - offset].ravel(), other[:, low:high].ravel()
            if a.std() > 0 and b.std() > 0:
                best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best
