"""From where a head's seqlets are read: by which tokens, what stands there, and how far away."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.explain.seqlets import Peaks
from bioattn.explain.tracks import stacked
from bioattn.models import SequenceModel
from bioattn.nn.observe import BATCH, attention_columns


class Reading(NamedTuple):
    """How much every token reads the seqlets of one head.

    Attributes
    ----------
    share : ndarray, float32, shape (S, t)
        Of all that is read of the seqlet, the part that each token reads: rows sum to
        one; zero at padding.
    distance_bp : ndarray, int64, shape (S, t)
        Seqlet minus reader, from middle to middle: negative where the seqlet lies to
        the left of its reader.
    real : ndarray, bool, shape (S, t)
        False at padding.
    row, strongest : ndarray, int64, shape (S,)
        Sequence of the seqlet, and base in the middle of the token that reads it most.
    """

    share: NDArray[np.float32]
    distance_bp: NDArray[np.int64]
    real: NDArray[np.bool_]
    row: NDArray[np.int64]
    strongest: NDArray[np.int64]


def reading(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    centre: NDArray[np.int64],
    real: NDArray[np.bool_],
    peaks: Peaks,
    *,
    layer: int,
    head: int,
) -> Reading:
    """Who reads the seqlets of one head.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    centre, real : ndarray, shape (N, t)
        Base in the middle of each token, and whether there is one.
    """
    columns = []
    for first in range(0, len(peaks.row), BATCH):
        some = slice(first, first + BATCH)
        tokens = torch.from_numpy(codes[peaks.row[some]].astype(np.int64))
        key = torch.from_numpy(peaks.token[some])[:, None] + model.n_prefix
        columns.append(attention_columns(model, tokens, layer, head, key)[:, 0, model.n_prefix :])
    here, is_real = centre[peaks.row], real[peaks.row]
    given = np.zeros(here.shape, dtype=np.float32)
    read = stacked(columns, 0.0).numpy()  # of learned words, these may have fewer tokens than the most of all sequences
    given[:, : read.shape[1]] = read
    given[~is_real] = 0
    share = given / np.maximum(given.sum(1, keepdims=True), 1e-30)
    every = np.arange(len(share))
    own = here[every, peaks.token]
    return Reading(
        share.astype(np.float32), own[:, None] - here, is_real, peaks.row, here[every, share.argmax(1)]
    )  # fmt: skip


def distance_table(seen: Reading, *, bin_bp: int) -> pd.DataFrame:
    """Share of the reading at every distance, and what it were if all tokens read alike.

    Columns distance_bp (middle of a bin of `bin_bp`), share, expected; each sums to one.
    """
    bins = np.round(seen.distance_bp / bin_bp).astype(np.int64)
    even = seen.real / np.maximum(seen.real.sum(1, keepdims=True), 1)
    low, high = int(bins[seen.real].min()), int(bins[seen.real].max())
    index = np.clip(bins - low, 0, high - low)
    sums = [
        np.bincount(index.ravel(), weight.ravel(), minlength=high - low + 1) / len(seen.share)
        for weight in (seen.share, even)
    ]
    return pd.DataFrame({"distance_bp": np.arange(low, high + 1) * bin_bp, "share": sums[0], "expected": sums[1]})


def distance_quantiles(seen: Reading, quantiles: tuple[float, ...] = (0.25, 0.5, 0.75)) -> list[float]:
    """Distances below which so much of the reading is done."""
    order = np.argsort(seen.distance_bp[seen.real], kind="stable")
    weight = seen.share[seen.real][order].cumsum(dtype=np.float64)
    index = np.searchsorted(weight, np.array(quantiles) * weight[-1])
    return [float(value) for value in seen.distance_bp[seen.real][order][np.minimum(index, len(order) - 1)]]


def reader_middles(seen: Reading, codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Base around which the strongest reader of each seqlet sees, inside its sequence."""
    return np.minimum(seen.strongest, (codes[seen.row] != alphabet.PAD).sum(1) - 1)
