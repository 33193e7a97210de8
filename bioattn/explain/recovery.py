"""Which motifs that are known to be there the heads of a model show."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioattn.config import ExplainConfig
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.explain.head_motifs import head_motifs
from bioattn.models import SequenceModel

#: A known motif is found if a head's motif correlates with it at least so much, on at least so many shared columns.
FOUND_CORRELATION, SHARED_COLUMNS = 0.8, 6
#: Motifs of heads that are enriched in held-out sequences at this false discovery rate count.
_ENRICHED_Q = 0.05


def motif_recovery(
    model: SequenceModel,
    discovery: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    known: Sequence[Motif],
    config: ExplainConfig,
    *,
    readout: int = 0,
    seed: int = 0,
) -> float:
    """Share of the known motifs that some head's motif matches; NaN for a model without attention.

    Only motifs count that are enriched in held-out sequences. A match is a
    correlation of at least `FOUND_CORRELATION` (see `best_correlation`): the p-values
    of a name would need a library much larger than the few motifs of a run.

    Raises
    ------
    DataError
        If no motif is known.
    """
    if not known:
        raise DataError("no motif is known, so there is no share of them to recover")
    if model.n_heads == 0:
        return float("nan")
    result = head_motifs(model, discovery, held_out, config, readout=readout, seed=seed)
    rows = result.table[result.table["motif"] >= 0]
    shown = [m.ppm for m, q in zip(result.motifs, rows["q_value"], strict=True) if q < _ENRICHED_Q]
    return float(np.mean([any(best_correlation(ppm, m.ppm) >= FOUND_CORRELATION for ppm in shown) for m in known]))


def best_correlation(found: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """Largest Pearson correlation of two PPMs (A, W) over all offsets and both strands.

    At least `SHARED_COLUMNS` columns must overlap, or all of the narrower one if it
    has fewer; -1 if no overlap has any variance.
    """
    least = min(SHARED_COLUMNS, found.shape[1], known.shape[1])
    best = -1.0
    for other in (known, known[::-1, ::-1]):
        for offset in range(least - found.shape[1], other.shape[1] - least + 1):
            low, high = max(0, offset), min(other.shape[1], offset + found.shape[1])
            a, b = found[:, low - offset : high - offset].ravel(), other[:, low:high].ravel()
            if a.std() > 0 and b.std() > 0:
                best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best
