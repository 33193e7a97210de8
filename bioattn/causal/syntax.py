"""Syntax of a pair: what its epistasis depends on, distance, strands or order.

Two motifs lie around the middle of a background, at every distance of a grid, in either
order and each on either strand: all arrangements in the same backgrounds.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.insertions import Insertions, Placed, Slots
from bioattn.causal.marginalize import clear_bp
from bioattn.causal.nulls import benjamini_hochberg, crossed_interval, minimum_effect_p
from bioattn.data import alphabet
from bioattn.explain.tracks import shuffled
from bioattn.models import SequenceModel

#: Distances that are compared, and the memory that what is kept of all motifs at these may take.
_MOST_DISTANCES = 20
_MOST_BYTES = 2**31
_PAIR = ["motif_a", "motif_b"]
_ARRANGEMENT = ["distance_bp", "same_strand"]
_KEYS = [*_PAIR, "instance", *_ARRANGEMENT]


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
            return pd.DataFrame(columns=[*_KEYS, "epistasis"])
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
        return table.groupby(_KEYS, as_index=False).mean()


def _affordable(model: SequenceModel, sites: Sequence[NDArray[np.uint8]]) -> int:
    """Distances for which the tokens of all motifs fit into memory; four at least."""
    widest = max(letters.shape[1] for letters in sites)
    touched = (widest + 2 * (model.receptive_field_bp // 2)) // model.token_bp + 2
    width = next(model.parameters()).element_size() * model.readout.in_features * touched
    strands = 2 if model.average_strands else 1
    return max(4, _MOST_BYTES // (4 * strands * sum(map(len, sites)) * width))


def syntax_statistics(replicates: Sequence[pd.DataFrame], *, minimum: float) -> pd.DataFrame:
    """What the epistasis of each pair depends on, tested over replicates.

    Parameters
    ----------
    replicates : sequence of DataFrame
        `Syntax.pairs` of each model, on the same backgrounds.
    minimum : float
        Smallest difference that counts, as of the epistasis itself: a network is seldom quite
        indifferent to where motifs lie, and replicates share some of what made it so.

    Returns
    -------
    DataFrame
        One row per pair: spacing_peak (distance in bp of the largest epistasis), spacing_contrast
        (its size there less the median size over distances, of each replicate at the peak of
        the others, so that picking the largest adds nothing), orientation_effect (same strand
        less opposite), order_effect (b right of a less left of a), means over replicates; and
        spacing_q, orientation_q, order_q: minimum-effect tests over replicates, after
        Benjamini-Hochberg over pairs; NaN with fewer than two replicates.
    """
    rows = [_one_pair(a, b, part, minimum) for a, b, part in _pairs(replicates)]
    names = [*_PAIR, "spacing_peak", "spacing_contrast", "spacing_p", "orientation_effect", "orientation_p"]
    result = pd.DataFrame(rows, columns=[*names, "order_effect", "order_p"])
    for name in ("spacing", "orientation", "order"):
        result[f"{name}_q"] = benjamini_hochberg(result.pop(f"{name}_p").to_numpy(np.float64))
    return result


def spacing_curves(replicates: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Epistasis of each pair at each distance, on the same strand and on opposite ones, over replicates.

    Returns
    -------
    DataFrame
        motif_a, motif_b, distance_bp, same_strand, epistasis, ci_low, ci_high (`crossed_interval` of replicates
        and backgrounds; NaN with fewer than two of either), n (backgrounds).
    """
    rows = []
    for a, b, part in _pairs(replicates):
        for arrangement, here in part.groupby(_ARRANGEMENT):
            values = here.pivot(index="replicate", columns="instance", values="epistasis").to_numpy()
            rows.append([a, b, *arrangement, values.mean(), *crossed_interval(values), values.shape[1]])
    return pd.DataFrame(rows, columns=[*_PAIR, *_ARRANGEMENT, "epistasis", "ci_low", "ci_high", "n"])


def _pairs(replicates: Sequence[pd.DataFrame]) -> Iterator[tuple[int, int, pd.DataFrame]]:
    """Each pair with its rows of all replicates, which a column numbers."""
    grouped = [table.groupby(_PAIR) for table in replicates]
    known = replicates[0][_PAIR].drop_duplicates().sort_values(_PAIR) if replicates else pd.DataFrame(columns=_PAIR)
    for a, b in known.to_numpy(np.int64):
        parts = [each.get_group((a, b)).assign(replicate=r) for r, each in enumerate(grouped)]
        yield int(a), int(b), pd.concat(parts, ignore_index=True)


def _one_pair(a: int, b: int, part: pd.DataFrame, minimum: float) -> dict[str, float]:
    """Statistics of one pair from its arrangements."""
    part = part.assign(size_bp=part["distance_bp"].abs(), right=part["distance_bp"] > 0)
    by_distance, same, right = (
        part.pivot_table(index="replicate", columns=name, values="epistasis")
        for name in ("size_bp", "same_strand", "right")
    )
    profiles = by_distance.to_numpy(np.float64)
    contrasts = _contrasts(profiles)
    orientation, side = ((table[True] - table[False]).to_numpy(np.float64) for table in (same, right))
    return {
        "motif_a": a,
        "motif_b": b,
        "spacing_peak": float(by_distance.columns[np.abs(profiles.mean(0)).argmax()]),
        "spacing_contrast": contrasts.mean(),
        # Only more than elsewhere is a peak.
        "spacing_p": minimum_effect_p(contrasts, minimum, positive=True),
        "orientation_effect": orientation.mean(),
        "orientation_p": minimum_effect_p(orientation, minimum),
        "order_effect": side.mean(),
        "order_p": minimum_effect_p(side, minimum),
    }


def _contrasts(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the epistasis (R, D) at the peak lies above the median size, for each replicate at the others' peak."""
    n = len(profiles)
    others = (profiles.sum(0) - profiles) / (n - 1) if n > 1 else profiles
    peak = np.abs(others).argmax(1)
    there, sign = profiles[np.arange(n), peak], np.sign(others[np.arange(n), peak])
    found: NDArray[np.float64] = sign * there - np.median(np.abs(profiles), axis=1)
    return found
