"""Decoys: sites of real motifs with their letters in another order, which nothing binds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioattn import rng
from bioattn.data.motif import Motif
from bioattn.explain.similar_motifs import align

#: Orders of columns that are drawn; the one least like any motif of the library is taken.
_ORDERS = 20


def decoy_orders(motifs: Sequence[Motif], *, seed: int) -> list[NDArray[np.int64]]:
    """An order of the columns of each motif, (W,), that makes a decoy of it.

    Information and composition stay. Of several random orders the one is taken whose best
    correlation with any motif of the library is lowest: shuffled columns of a repetitive
    motif may well spell another one.
    """
    orders: list[NDArray[np.int64]] = []
    for motif in motifs:
        draw = rng.stream(seed, "decoys", motif.motif_id)
        orders += [draw.permutation(motif.width) for _ in range(_ORDERS)]
    ppms = [motifs[i // _ORDERS].ppm[:, order] for i, order in enumerate(orders)]
    likeness = align(ppms, [motif.ppm for motif in motifs]).correlation.max(1, initial=-1).reshape(-1, _ORDERS)
    return [orders[m * _ORDERS + int(best)] for m, best in enumerate(likeness.argmin(1))]
