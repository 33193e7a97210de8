"""Letters: background, and a site of each present motif in a slot of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bioattn.config import SimulateConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, sharpen
from bioattn.data.simulate.causes import Bools, Floats

Codes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sites:
    """Sites of one motif, at most one a sequence.

    Attributes
    ----------
    rows : ndarray, (S,)
        Sequence of each site.
    start : ndarray, (S,)
        0-based.
    reverse : ndarray, bool, (S,)
        Whether the motif reads on the "-" strand.
    letters : ndarray, uint8, (S, W)
        Codes as they stand in the sequence.
    """

    rows: Ints
    start: Ints
    reverse: Bools
    letters: Codes


@dataclass(frozen=True)
class Layout:
    """Background (N, L), the slots of each sequence in the order of their use (N, n_slots), and sites by motif."""

    background: Codes
    slots: Ints
    sites: list[Sites]


def draw_layout(
    config: SimulateConfig, motifs: Sequence[Motif], presence: Bools, gc: Floats, draw: np.random.Generator
) -> Layout:
    """Background, and a sampled site of each present motif on a random strand."""
    n = len(presence)
    is_gc = draw.random((n, config.length)) < gc[:, None]
    second = draw.random((n, config.length)) < 0.5
    background = np.where(is_gc, np.where(second, 1, 2), np.where(second, 0, 3)).astype(np.uint8)
    slots = np.argsort(draw.random((n, config.length // config.slot_bp)), axis=1)
    place = np.cumsum(presence, axis=1) - 1
    sites = []
    for m, motif in enumerate(motifs):
        rows = np.flatnonzero(presence[:, m])
        sites.append(_draw_sites(config, motif, rows, slots[rows, place[rows, m]], draw))
    return Layout(background, slots, sites)


def add_sites(
    layout: Layout,
    config: SimulateConfig,
    motifs: Sequence[Motif],
    additions: Sequence[tuple[Ints, Ints]],
    draw: np.random.Generator,
) -> Layout:
    """Layout with further sites: of each motif in the given rows, in the slots of the given places."""
    sites = []
    for motif, old, (rows, place) in zip(motifs, layout.sites, additions, strict=True):
        new = _draw_sites(config, motif, rows, layout.slots[rows, place], draw)
        parts = [(getattr(old, name), getattr(new, name)) for name in ("rows", "start", "reverse", "letters")]
        sites.append(Sites(*(np.concatenate(pair) for pair in parts)))
    return replace(layout, sites=sites)


def _draw_sites(config: SimulateConfig, motif: Motif, rows: Ints, slot: Ints, draw: np.random.Generator) -> Sites:
    cumulative = sharpen(motif.ppm, config.motif_sharpening).cumsum(0)
    letters = (draw.random((len(rows), 1, motif.width)) > cumulative[None, :-1]).sum(1).astype(np.uint8)
    reverse = draw.random(len(rows)) < 0.5
    letters[reverse] = alphabet.reverse_complement_codes(letters[reverse])
    slack = draw.integers(0, config.slot_bp - motif.width + 1, len(rows))
    return Sites(rows, slot * config.slot_bp + slack, reverse, letters)


def geometry(layout: Layout, motifs: Sequence[Motif]) -> tuple[Floats, Bools]:
    """Centre (N, M) in bp and reverse strand (N, M) of every site; centres are NaN where there is none."""
    shape = (len(layout.background), len(motifs))
    centre, reverse = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for m, (motif, sites) in enumerate(zip(motifs, layout.sites, strict=True)):
        centre[sites.rows, m] = sites.start + motif.width / 2
        reverse[sites.rows, m] = sites.reverse
    return centre, reverse


def write_sequences(layout: Layout, presence: Bools, source: Ints) -> tuple[list[str], list[Sites]]:
    """Sequences of records, and their sites by motif, whose rows are records.

    Parameters
    ----------
    presence : ndarray, bool, shape (R, M)
        Motifs of each record; the layout must hold their sites.
    source : ndarray, shape (R,)
        Row of the layout that each record is made from.
    """
    codes = layout.background[source]
    placed = []
    for m, sites in enumerate(layout.sites):
        index = np.full(len(layout.background), -1)
        index[sites.rows] = np.arange(len(sites.rows))
        records = np.flatnonzero(presence[:, m])
        chosen = index[source[records]]
        assert (chosen >= 0).all()
        here = Sites(records, sites.start[chosen], sites.reverse[chosen], sites.letters[chosen])
        codes[records[:, None], here.start[:, None] + np.arange(here.letters.shape[1])] = here.letters
        placed.append(here)
    return [alphabet.decode(row) for row in codes], placed
