"""Identity of two sequences by a full alignment: the slow way that fast searches are compared with."""

import numpy as np
from Bio.Align import PairwiseAligner

from bioattn.data.alphabet import reverse_complement

#: A little more for each match, so that of equal scores the one with more identical bases wins and can be read off.
_ALIGNER = PairwiseAligner(mode="local", match_score=1.0001, mismatch_score=-1, open_gap_score=-2, extend_gap_score=-2)


def exact_alignment(one: str, other: str) -> tuple[float, float]:
    """Score and identity of the best local alignment on either strand (match 1, mismatch -1, gap -2 a base)."""
    best = 0.0, 0.0
    for strand in (other, reverse_complement(other)):
        # N would match N; nothing equals an unknown base.
        score = _ALIGNER.score(one.replace("N", "Y"), strand)
        whole = float(np.floor(score + 1e-6))
        best = max(best, (whole, round(1e4 * (score - whole))))
    return best[0], best[1] / max(1, min(len(each) - each.count("N") for each in (one, other)))


def exact_identity(one: str, other: str) -> float:
    """Identical bases of the best alignment per known base of the sequence that has fewer."""
    return exact_alignment(one, other)[1]
