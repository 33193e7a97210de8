"""Saturation mutagenesis: the effect of every single substitution on the readout."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.explain.predict import predict
from bioattn.models import SequenceModel


def ism(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    *,
    readout: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Change of the readout for every letter at every position.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)

    Returns
    -------
    ndarray, float32, shape (N, A, L)
        f(substituted) - f(original) on the pre-link scale: zero at the original
        letter, NaN at padding.
    """
    n, length = codes.shape
    original = predict(model, codes)[:, readout]
    effect = np.zeros((n, alphabet.N_LETTERS, length), dtype=np.float32)
    for position in range(length):
        for letter in range(alphabet.N_LETTERS):
            rows = np.flatnonzero((codes[:, position] != letter) & (codes[:, position] != alphabet.PAD))
            if len(rows):
                changed = codes[rows].copy()
                changed[:, position] = letter
                effect[rows, letter, position] = predict(model, changed)[:, readout] - original[rows]
        if progress is not None:
            progress(position + 1, length)
    effect[np.broadcast_to((codes == alphabet.PAD)[:, None], effect.shape)] = np.nan
    return effect


def importance(effect: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance (N, L) of each position: root mean square effect of its three substitutions."""
    return np.sqrt((effect**2).sum(1) / (alphabet.N_LETTERS - 1))


def contribution(effect: NDArray[np.float32]) -> NDArray[np.float32]:
    """Contribution (N, A, L) of each letter at each position: its effect less the mean over letters."""
    return effect - effect.mean(1, keepdims=True)


def ism_table(effect: NDArray[np.float32], codes: NDArray[np.uint8], names: Sequence[str]) -> pd.DataFrame:
    """Effects (N, A, L) as a table: name, position, reference letter, and the effect of each letter."""
    real = codes != alphabet.PAD
    sequence, position = np.nonzero(real)
    table = pd.DataFrame({"name": np.asarray(names)[sequence], "position": position})
    table["reference"] = np.array(list(alphabet.LETTERS + "N"))[codes[real]]
    for letter, column in zip(alphabet.LETTERS, effect.transpose(1, 0, 2), strict=True):
        table[letter] = column[real]
    return table
