"""Syntax of a pair: what its epistasis depends on, distance, strands or order.

Two motifs lie around the middle of a background, at every distance of a grid, in either
order and each on either strand: all arrangements in the same backgrounds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.insertions import Insertions, Placed, Slots
from bioattn.causal.marginalize import clear_bp
from bioattn.causal.nulls import benjamini_hochberg, two_sided_sign_flip_p
from bioattn.data import alphabet
from bioattn.explain.tracks import shuffled
from bioattn.models import SequenceModel

#: Distances that are compared, and the memory that what is kept of all motifs at these may take.
_MOST_DISTANCES = 20
_MOST_BYTES = 2**31
_ARRANGEMENT = ["motif_a", "motif_b", "instance", "distance_bp", "same_strand"]
_BOOTSTRAP = 1000


class Syntax:
    """Motifs at distances of each other, in backgrounds of one model.

    Parameters
    ----------
    codes : ndarray, uint8, shape (M, L)
        Sequences whose shuffles are the backgrounds; of different lengths the longer half.
    sites : sequence of ndarray, uint8, shape (N, W)
        Letters of a site of each motif for each of N backgrounds.
    step_bp : int
        Step of the grid of distances, which goes up to half of the shortest background; of more than twenty,
        twenty are taken, evenly spread, or as many as 2 GiB hold.
    readout : int
    """

    def __init__(
        self,
        model: SequenceModel,
        codes: NDArray[np.uint8],
        sites: Sequence[NDArray[np.uint8]],
        *,
        step_bp: int,
        readout: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        n, length = len(sites[0]), (codes != alphabet.PAD).sum(1)
        long = np.flatnonzero(length >= np.median(length))
        draw = rng.stream(seed, "syntax", "backgrounds")
        chosen = np.sort(draw.choice(long, n, replace=n > len(long)))
        backgrounds = shuffled(codes[chosen], seed, "syntax", "shuffle") if shuffle else codes[chosen]
        widest = max(letters.shape[1] for letters in sites)
        shortest = int(length[chosen].min())
        farthest = min(shortest // 2, shortest - widest)
        grid = np.arange(widest + clear_bp(model), farthest + 1, step_bp)
        spread = np.linspace(0, len(grid) - 1, min(len(grid), _MOST_DISTANCES, _affordable(model, sites)))
        self.distances = grid[np.round(spread).astype(np.int64)]
        # Four slots for each distance: left and right, each on both strands.
        place = np.stack([-(self.distances // 2), self.distances - self.distances // 2], 1).ravel()
        centre = (length[chosen] // 2)[:, None] + np.repeat(place, 2)
        slots = Slots(centre, np.tile([False, True], (n, len(place))))
        #: None where sequences are too short for two motifs in tokens of their own.
        self.inserted: Insertions | None = None
        if not len(self.distances):
            return
        self.inserted = Insertions(model, backgrounds, sites, slots, readout=readout)

    def pairs(self, pairs: Sequence[tuple[int, int]]) -> pd.DataFrame:
        """Epistasis of pairs in every arrangement.

        Returns
        -------
        DataFrame
            motif_a, motif_b, instance (background), distance_bp (centre of b less that of a),
            same_strand, epistasis: the mean over both ways to be on the same strand or not.
            Empty if the sequences are too short for two motifs in tokens of their own.
        """
        if self.inserted is None or not pairs:
            return pd.DataFrame(columns=[*_ARRANGEMENT, "epistasis"])
        return pd.concat([self._pair(self.inserted, a, b) for a, b in pairs], ignore_index=True)

    def _pair(self, made: Insertions, a: int, b: int) -> pd.DataFrame:
        shape = (len(made.slots.centre), len(self.distances), 2, 2, 2)
        row, distance, a_right, reverse_a, reverse_b = (index.ravel() for index in np.indices(shape))
        slot_a, slot_b = 4 * distance + 2 * a_right + reverse_a, 4 * distance + 2 * (1 - a_right) + reverse_b
        first, second = Placed(np.full(len(row), a), slot_a), Placed(np.full(len(row), b), slot_b)
        epistasis = made.both(row, first, second) - made.single[a, row, slot_a] - made.single[b, row, slot_b]
        table = pd.DataFrame(
            {
                "motif_a": a,
                "motif_b": b,
                "instance": row,
                "distance_bp": np.where(a_right, -1, 1) * self.distances[distance],
                "same_strand": reverse_a == reverse_b,
                "epistasis": epistasis + made.plain[row],
            }
        )
        return table.groupby(_ARRANGEMENT, as_index=False).mean()


def _affordable(model: SequenceModel, sites: Sequence[NDArray[np.uint8]]) -> int:
    """Distances for which the tokens of all motifs fit into memory; four at least."""
    widest = max(letters.shape[1] for letters in sites)
    touched = (widest + 2 * (model.receptive_field_bp // 2)) // model.token_bp + 2
    width = next(model.parameters()).element_size() * model.readout.in_features * touched
    strands = 2 if model.average_strands else 1
    return max(4, _MOST_BYTES // (4 * strands * sum(map(len, sites)) * width))


def syntax_statistics(replicates: Sequence[pd.DataFrame], *, permutations: int, seed: int) -> pd.DataFrame:
    """What the epistasis of each pair depends on, over replicates.

    Parameters
    ----------
    replicates : sequence of DataFrame
        `Syntax.pairs` of each model, on the same backgrounds.

    Returns
    -------
    DataFrame
        One row per pair: spacing_peak (distance in bp of the largest epistasis),
        spacing_contrast (its size less the median over distances), spacing_p (distances
        permuted within backgrounds); orientation_effect (same strand less opposite),
        orientation_p, order_effect (b right of a less left of a), order_p (sign flips of
        backgrounds, two-sided); and q-values over pairs (Benjamini-Hochberg).
    """
    table = _mean_over(replicates)
    rows = []
    for (a, b), part in table.groupby(["motif_a", "motif_b"]):
        draw = rng.stream(seed, "nulls", "syntax", a, b)
        rows.append({"motif_a": a, "motif_b": b} | _one_pair(part, permutations, draw))
    names = ["motif_a", "motif_b", "spacing_peak", "spacing_contrast", "spacing_p", "orientation_effect"]
    names += ["orientation_p", "order_effect", "order_p"]
    result = pd.DataFrame(rows, columns=names)
    for name in ("spacing", "orientation", "order"):
        result[f"{name}_q"] = benjamini_hochberg(result.pop(f"{name}_p").to_numpy(np.float64))
    return result


def spacing_curves(replicates: Sequence[pd.DataFrame], *, seed: int) -> pd.DataFrame:
    """Epistasis of each pair at each distance, on the same strand and on opposite ones, over replicates.

    Returns
    -------
    DataFrame
        motif_a, motif_b, distance_bp, same_strand, epistasis, ci_low, ci_high (bootstrap over backgrounds), n.
    """
    table = _mean_over(replicates)
    rows = []
    keys = ["motif_a", "motif_b", "distance_bp", "same_strand"]
    for key, part in table.groupby(keys):
        values = part["epistasis"].to_numpy()
        draw = rng.stream(seed, "nulls", "spacing", *key)
        low, high = np.quantile(draw.choice(values, (_BOOTSTRAP, len(values))).mean(1), [0.025, 0.975])
        rows.append([*key, values.mean(), low, high, len(values)])
    return pd.DataFrame(rows, columns=[*keys, "epistasis", "ci_low", "ci_high", "n"])


def _mean_over(replicates: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not replicates:
        return pd.DataFrame(columns=[*_ARRANGEMENT, "epistasis"])
    return pd.concat(list(replicates)).groupby(_ARRANGEMENT, as_index=False)[["epistasis"]].mean()


def _one_pair(part: pd.DataFrame, permutations: int, draw: np.random.Generator) -> dict[str, Any]:
    """Statistics of one pair from its arrangements."""
    by_distance = part.assign(distance_bp=part["distance_bp"].abs()).pivot_table(
        index="instance", columns="distance_bp", values="epistasis"
    )
    values = by_distance.to_numpy()
    profile = values.mean(0)
    order = draw.random((permutations, *values.shape)).argsort(-1)
    null = np.take_along_axis(np.broadcast_to(values, order.shape), order, -1).mean(1)
    contrast, contrasts = _contrast(profile), _contrast(null)
    tolerance = 1e-12 * np.abs(values).max()
    same = part.pivot_table(index="instance", columns="same_strand", values="epistasis")
    right = part.assign(right=part["distance_bp"] > 0).pivot_table(
        index="instance", columns="right", values="epistasis"
    )
    orientation, side = ((t[True] - t[False]).to_numpy() for t in (same, right))
    return {
        "spacing_peak": float(by_distance.columns[np.abs(profile).argmax()]),
        "spacing_contrast": float(contrast),
        "spacing_p": (1 + (contrasts >= contrast - tolerance).sum()) / (1 + permutations),
        "orientation_effect": orientation.mean(),
        "orientation_p": two_sided_sign_flip_p(orientation, permutations=permutations, rng=draw),
        "order_effect": side.mean(),
        "order_p": two_sided_sign_flip_p(side, permutations=permutations, rng=draw),
    }


def _contrast(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest size of a profile (..., D) less the median size."""
    size = np.abs(profile)
    result: NDArray[np.float64] = size.max(-1) - np.median(size, -1)
    return result
