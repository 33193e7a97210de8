"""Decoy motifs: matrices with the columns of real ones in another order, which nothing binds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioattn import rng
from bioattn.data.motif import Motif
from bioattn.explain.similar_motifs import align

#: Orders of columns that are drawn; the one least like any motif of the library is taken.
_ORDERS = 20


def decoys(motifs: Sequence[Motif], *, seed: int) -> list[Motif]:
    """A decoy of each motif: the same columns, thus the same information and composition, in another order.

    Of several random orders the one is taken whose best correlation with any motif of the
    library is lowest: shuffled columns of a repetitive motif may well spell another one.
    """
    orders: list[NDArray[np.float64]] = []
    for motif in motifs:
        draw = rng.stream(seed, "decoys", motif.motif_id)
        orders += [motif.ppm[:, draw.permutation(motif.width)] for _ in range(_ORDERS)]
    likeness = align(orders, [motif.ppm for motif in motifs]).correlation.max(1, initial=-1).reshape(-1, _ORDERS)
    return [
        Motif(f"decoy of {motif.name}", f"decoy_{motif.motif_id}", orders[m * _ORDERS + int(best)])
        for m, (motif, best) in enumerate(zip(motifs, likeness.argmin(1), strict=True))
    ]
