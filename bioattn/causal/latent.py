"""The latent scale: the monotone transform of the readout on which motifs add up best.

A global nonlinearity, such as a plateau, makes the effects of all motifs depend on each
other. What is left of an epistasis on the latent scale is special to its pair.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

#: Segments of the transform, which is linear in each; their ends are quantiles of the readouts.
_SEGMENTS = 12
#: Rounds in which pairs that do interact are left out, and the share of pairs that is kept.
_ROUNDS, _KEPT = 10, 0.75
#: Weight of smoothness, and of the constraint that fixes the scale, against the double differences.
_SMOOTH, _FIXED = 0.05, 1e3
#: Cells of a pair, in the order of their signs in the double difference.
_CELLS = ("y11", "y10", "y01", "y00")
_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class LatentScale:
    """A monotone, piecewise linear transform of readouts.

    Attributes
    ----------
    knots : ndarray, shape (K + 1,)
    rises : ndarray, shape (K,)
        How much the transform rises from knot to knot. The mean size of main effects is that of the readout.
    """

    knots: NDArray[np.float64]
    rises: NDArray[np.float64]

    def __call__(self, readouts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Readouts on the latent scale; beyond the outer knots the outer segments go on."""
        return _ramps(np.asarray(readouts, dtype=np.float64), self.knots) @ self.rises

    def straightens(self, cells: pd.DataFrame) -> bool:
        """Whether the transform halves the epistasis of most pairs: else what is bent is bent for few of them."""
        plain, latent = (_sizes(cells, scale) for scale in (None, self))
        return bool(np.median(latent) < 0.5 * np.median(plain))

    def correlation(self, readouts: NDArray[np.float64]) -> float:
        """Pearson correlation of readouts with themselves on the latent scale."""
        readouts = np.asarray(readouts, dtype=np.float64).ravel()
        latent = self(readouts)
        if readouts.std() == 0 or latent.std() == 0:
            return float("nan")
        return float(np.corrcoef(readouts, latent)[0, 1])


def latent_scale(cells: pd.DataFrame) -> LatentScale:
    """Transform that makes the double differences of pairs as small as may be, against their main effects.

    The double difference of a transform that is a sum of ramps is linear in their heights,
    so least squares with heights above zero finds it. The quarter of pairs whose double difference is
    largest is left out, in rounds (least trimmed squares): those that do interact must not bend the scale.

    Parameters
    ----------
    cells : DataFrame
        y11, y10, y01, y00 of each pair (motif_a, motif_b) in each background: of all pairs,
        not of chosen ones.
    """
    values = cells[list(_CELLS)].to_numpy(np.float64)
    knots = np.unique(np.quantile(values, np.linspace(0, 1, _SEGMENTS + 1)))
    if len(knots) < 3:
        knots = np.array([values.min(), values.max() + 1e-12])
        return LatentScale(knots, np.diff(knots))
    ramps = _ramps(values, knots)  # (rows, cells, segments)
    pair = cells.groupby(["motif_a", "motif_b"], sort=False).ngroup().to_numpy(np.int64)
    difference = _mean_by(pair, np.einsum("rck,c->rk", ramps, _SIGNS))
    main = _mean_by(pair, ramps[:, 1] - ramps[:, 3]), _mean_by(pair, ramps[:, 2] - ramps[:, 3])
    span = np.diff(knots)
    # The transform keeps the mean size of main effects, so it cannot shrink them together with the differences.
    size = [np.sign(effect @ span)[:, None] * effect for effect in main]
    scale = np.concatenate(size).mean(0)
    target = scale @ span
    bend = np.zeros((len(span) - 1, len(span)))
    place = np.arange(len(span) - 1)
    bend[place, place], bend[place, place + 1] = -1 / span[:-1], 1 / span[1:]
    bend *= _SMOOTH * abs(target) * np.sqrt(len(difference))
    kept = np.ones(len(difference), dtype=bool)
    rises = span
    for _ in range(_ROUNDS):
        rows = [difference[kept], bend, _FIXED * scale[None] * np.sqrt(len(difference))]
        right = np.zeros(sum(map(len, rows)))
        right[-1] = _FIXED * target * np.sqrt(len(difference))
        rises, _ = nnls(np.concatenate(rows), right)
        left = np.abs(difference @ rises)
        kept = left <= np.quantile(left, _KEPT)
    return LatentScale(knots, rises)


def _sizes(cells: pd.DataFrame, scale: LatentScale | None) -> NDArray[np.float64]:
    """Size of each pair's mean double difference, on a scale."""
    values = cells[list(_CELLS)].to_numpy(np.float64)
    difference = (values if scale is None else scale(values)) @ _SIGNS
    pair = cells.groupby(["motif_a", "motif_b"], sort=False).ngroup().to_numpy(np.int64)
    return np.abs(_mean_by(pair, difference[:, None])[:, 0])


def _ramps(values: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far (..., K) each value has come through each segment, 0 to 1; below 0 and above 1 in the outer ones."""
    through = (values[..., None] - knots[:-1]) / np.diff(knots)
    low, high = np.zeros(len(knots) - 1), np.ones(len(knots) - 1)
    low[0], high[-1] = -np.inf, np.inf
    result: NDArray[np.float64] = np.clip(through, low, high)
    return result


def _mean_by(group: NDArray[np.integer], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean (G, K) of rows of each group."""
    total = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(total, group, values)
    return total / np.bincount(group)[:, None]
