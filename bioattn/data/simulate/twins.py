"""Twins: a sequence again and again, with two of its motifs set to each of the four combinations."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bioattn import rng
from bioattn.config import SimulateConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate.causes import Bools
from bioattn.data.simulate.classes import Pair
from bioattn.data.simulate.layout import Ints, Layout, add_sites
from bioattn.data.simulate.readout import Twinned

#: The four cells in the order of their records: is the first motif there, is the second.
CELLS = ("x00", "x01", "x10", "x11")
_PRESENT = np.array([[False, False], [False, True], [True, False], [True, True]])


class Twins(NamedTuple):
    """Which sequences have twins, and what was set in each.

    Attributes
    ----------
    units : ndarray, (T,)
        Rows of the sequences with twins; each has four records.
    first, second : ndarray, (T,)
        The two motifs that were set, `first` the one that comes first in the run.
    presence : ndarray, bool, (4 T, M)
        Motifs of the records, the four cells of a unit in a row.
    layout : Layout
        The given one, and a site of each motif that a cell adds.
    """

    units: Ints
    first: Ints
    second: Ints
    presence: Bools
    layout: Layout


def draw_twins(
    config: SimulateConfig, motifs: Sequence[Motif], pairs: list[Pair], presence: Bools, layout: Layout, *, seed: int
) -> Twins:
    """The four cells of one random pair for each sequence that has slots for both motifs.

    All other motifs stay as they are, also the one that an intervened motif makes
    likely (CHAIN): that one does nothing, so the readout is the same either way.
    """
    draw = rng.stream(seed, "simulate", "twins")
    candidates, chance = candidate_pairs(config, pairs)
    chosen = np.array(candidates)[draw.choice(len(candidates), len(presence), p=chance)]
    rows = np.arange(len(presence))
    own = presence[rows[:, None], chosen]
    units = np.flatnonzero(presence.sum(1) - own.sum(1) + 2 <= layout.slots.shape[1])
    chosen, own = chosen[units], own[units]

    # A motif that is not there takes the next slot that is free.
    free = presence[units].sum(1)
    place = np.stack([free, free + ~own[:, 0]], axis=1)
    additions = []
    for m in range(len(motifs)):
        unit, which = np.nonzero((chosen == m) & ~own)
        additions.append((units[unit], place[unit, which]))
    extended = add_sites(layout, config, motifs, additions, rng.stream(seed, "simulate", "twin letters"))

    cells = np.repeat(presence[units], 4, axis=0)
    cells[np.arange(len(cells))[:, None], np.repeat(chosen, 4, axis=0)] = np.tile(_PRESENT, (len(units), 1))
    return Twins(units, chosen[:, 0], chosen[:, 1], cells, extended)


def candidate_pairs(config: SimulateConfig, pairs: list[Pair]) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs a < b that twins may be made of, and their probabilities. Motifs that are never placed are left out."""
    placed = [m for p in pairs for m in ((p.first,) if p.kind == "PARALOG" else (p.first, p.second))]
    designed = {(min(p.first, p.second), max(p.first, p.second)) for p in pairs}
    candidates = list(itertools.combinations(sorted(placed), 2))
    is_designed = np.array([pair in designed for pair in candidates])
    null_fraction = config.twin_null_fraction
    if not is_designed.any() or is_designed.all():
        null_fraction = float(not is_designed.any())
    chance = np.where(is_designed, 1 - null_fraction, null_fraction)
    return candidates, list(chance / np.where(is_designed, is_designed.sum(), (~is_designed).sum()))


def twinned_shares(config: SimulateConfig, pairs: list[Pair], n_sequences: int, n_twins: int) -> list[Twinned]:
    """Share of all records in which each pair of motifs was set."""
    candidates, chance = candidate_pairs(config, pairs)
    share = 4 * n_twins / (n_sequences + 4 * n_twins)
    return [Twinned(a, b, share * p) for (a, b), p in zip(candidates, chance, strict=True) if p > 0]
