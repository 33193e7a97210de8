"""Motif-free replacement of sites: what a knock-out puts in the place of a motif.

A dinucleotide shuffle of a footprint often returns the very site it should
remove (a fifth of the draws on average), so sites are replaced by shuffles of
their letters, which keeps the composition exactly, and a draw is refused while
a scan of both strands still finds the motif or a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.data.motif import scan_both_strands
from bioattn.errors import DataError

#: A window that scores above this share of a motif's best score still looks like the motif.
RESIDUE = 0.6
#: Bases on either side of a scanned site that are shuffled with it.
FLANK_BP = 2
#: Shuffles tried before the least motif-like one is taken.
MOST_TRIES = 30


@dataclass(frozen=True)
class Replacement:
    """Sequences with one interval each replaced.

    Attributes
    ----------
    codes : ndarray, uint8, shape (N, L)
    residue : ndarray, float64, shape (N,)
        Largest share of a motif's best score that the knock-out left or made
        in the interval; above `RESIDUE` where no draw was free of motifs.
    """

    codes: NDArray[np.uint8]
    residue: NDArray[np.float64]

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Rows (N,) whose replacement is free of motifs."""
        return self.residue <= RESIDUE


def replace_sites(
    codes: NDArray[np.uint8],
    starts: NDArray[np.integer],
    ends: NDArray[np.integer],
    own: NDArray[np.integer],
    pwms: Sequence[NDArray[np.float64]],
    *,
    flank_bp: int = FLANK_BP,
    rng: np.random.Generator,
) -> Replacement:
    """Copies of sequences in which one interval each is replaced by a motif-free shuffle of itself.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    starts, ends : ndarray, int, shape (N,)
        Interval of each sequence, 0-based half-open; `flank_bp` more on either
        side are shuffled with it.
    own : ndarray, int, shape (N,)
        Index into `pwms` of the motif that is knocked out, -1 for a control
        interval that holds none.
    pwms : sequence of ndarray (A, W)
        Log-odds matrices of the library. The own motif must be gone, and no
        other may score higher than before.

    Raises
    ------
    DataError
        If an interval is empty or leaves its sequence.
    """
    length = (codes != alphabet.PAD).sum(1)
    if (starts < 0).any() or (ends > length).any() or (ends <= starts).any():
        bad = int(np.flatnonzero((starts < 0) | (ends > length) | (ends <= starts))[0])
        raise DataError(f"interval {starts[bad]}-{ends[bad]} of sequence {bad} is empty or leaves its {length[bad]} bp")
    starts = np.maximum(starts - flank_bp, 0)
    ends = np.minimum(ends + flank_bp, length)
    best = codes.copy()
    residue = np.full(len(codes), np.inf)
    before = [scan_both_strands(codes, pwm) for pwm in pwms]
    todo = np.arange(len(codes))
    for _ in range(MOST_TRIES):
        if len(todo) == 0:
            break
        draw = _shuffle_intervals(codes[todo], starts[todo], ends[todo], rng)
        left = _residue(draw, starts[todo], ends[todo], own[todo], pwms, [b[todo] for b in before])
        better = left < residue[todo]
        best[todo[better]] = draw[better]
        residue[todo[better]] = left[better]
        todo = todo[residue[todo] > RESIDUE]
    return Replacement(best, residue)


def _shuffle_intervals(
    codes: NDArray[np.uint8], starts: NDArray[np.integer], ends: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Letters inside each interval in random order."""
    position = np.arange(codes.shape[1])
    inside = (position >= starts[:, None]) & (position < ends[:, None])
    key = np.where(inside, starts[:, None] + rng.random(codes.shape) * (ends - starts)[:, None], position + 0.5)
    key = np.where(position >= ends[:, None], position + 0.5, key)
    return np.take_along_axis(codes, np.argsort(key, axis=1), axis=1)


def _residue(
    codes: NDArray[np.uint8],
    starts: NDArray[np.integer],
    ends: NDArray[np.integer],
    own: NDArray[np.integer],
    pwms: Sequence[NDArray[np.float64]],
    before: Sequence[NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Largest relative score (N,) that windows touching the interval have gained, or kept for the own motif."""
    worst = np.zeros(len(codes))
    for m, pwm in enumerate(pwms):
        score = scan_both_strands(codes, pwm)
        if score.shape[1] == 0:
            continue
        window = np.arange(score.shape[1])
        touches = (window + pwm.shape[1] > starts[:, None]) & (window < ends[:, None])
        counts = touches & ((own == m)[:, None] | (score > before[m]))
        relative = np.where(counts, score / pwm.max(0).sum(), 0.0)
        worst = np.maximum(worst, relative.max(1))
    return worst
