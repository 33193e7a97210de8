"""Knock-in: the effect of two motifs, put into the same backgrounds alone and together.

Every background has two places at a distance of its own, and orders and strands that
take turns, so that what is measured holds over them. All pairs see the same
backgrounds, places and sites (common random numbers). A decoy with the columns of the
second motif in another order takes its part as a control.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bioattn import rng
from bioattn.causal.decoys import decoy_orders
from bioattn.causal.edge_knockout import inside
from bioattn.causal.insertions import Insertions, Placed, Slots
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.explain.tracks import shuffled
from bioattn.models import SequenceModel

#: Orders and strands of two motifs: a before b or not, each on either strand.
_ARRANGEMENTS = 8
#: Pairs of a motif and another one's decoy, whose epistasis is that of nothing.
_DECOY_PAIRS = 120
#: Backgrounds in which edges are cut in one head at a time.
_HEAD_BACKGROUNDS = 16


@dataclass(frozen=True)
class Backgrounds:
    """Sequences into which pairs are put, and where.

    Attributes
    ----------
    codes : ndarray, uint8, shape (N, L)
    slots : Slots
        Two in each: the left and the right one.
    a_left : ndarray, bool, shape (N,)
        Whether the first motif of a pair lies in the left one.
    """

    codes: NDArray[np.uint8]
    slots: Slots
    a_left: NDArray[np.bool_]


def backgrounds_of(
    codes: NDArray[np.uint8], *, n: int, widest: int, model: SequenceModel, seed: int, shuffle: bool = True
) -> Backgrounds:
    """Backgrounds with two places each, drawn from sequences.

    Parameters
    ----------
    codes : ndarray, uint8, shape (M, L)
        Sequences that are drawn from, with repetition if there are fewer than `n`.
    n : int
        Backgrounds.
    widest : int
        Width of the widest motif.
    shuffle : bool
        Shuffle them, so that dinucleotides stay and motifs go.

    Raises
    ------
    DataError
        If no sequence is long enough for two motifs in tokens of their own.
    """
    clear = clear_bp(model)
    length = (codes != alphabet.PAD).sum(1)
    least = 2 * widest + clear
    usable = np.flatnonzero(length >= least)
    if not len(usable):
        raise DataError(
            f"no sequence is long enough for two motifs of {widest} bp in tokens of their own: the longest of "
            f"{len(codes)} has {int(length.max(initial=0))} bp, and {least} are needed"
        )
    draw = rng.stream(seed, "knock-in", "backgrounds")
    chosen = np.sort(draw.choice(usable, n, replace=n > len(usable)))
    length = length[chosen]
    # The distance of the centres, then where the left one is.
    distance = widest + clear + np.floor(draw.random(n) * (length - least + 1)).astype(np.int64)
    left = np.floor(draw.random(n) * (length - widest - distance + 1)).astype(np.int64) + widest // 2
    arrangement = draw.permutation(n) % _ARRANGEMENTS
    reverse = np.stack([arrangement & 1, arrangement >> 1 & 1], 1).astype(bool)
    sequences = shuffled(codes[chosen], seed, "knock-in", "shuffle") if shuffle else codes[chosen]
    return Backgrounds(sequences, Slots(np.stack([left, left + distance], 1), reverse), arrangement < _ARRANGEMENTS / 2)


def lowest(codes: NDArray[np.uint8], target: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The quarter of sequences (N, L) whose target (N,) is lowest; those without one are left out."""
    order = np.argsort(target, kind="stable")
    known = int(np.isfinite(target).sum())
    return codes[np.sort(order[: max(known // 4, 1)])]


def clear_bp(model: SequenceModel) -> int:
    """Bases between two edits that touch no token in common."""
    return 2 * (model.receptive_field_bp // 2) + model.token_bp


class KnockIn:
    """Motifs and their decoys in backgrounds of one model.

    Parameters
    ----------
    motifs : sequence of Motif
    sites : sequence of ndarray, uint8, shape (N, W)
        Letters of a site of each motif for each background: see `bioattn.causal.sites.drawn_sites`.
    readout : int
        On the pre-link scale.
    """

    def __init__(
        self,
        model: SequenceModel,
        backgrounds: Backgrounds,
        motifs: Sequence[Motif],
        sites: Sequence[NDArray[np.uint8]],
        *,
        readout: int,
        seed: int,
    ) -> None:
        self.backgrounds, self.seed, self.n_motifs = backgrounds, seed, len(motifs)
        decoys = [letters[:, order] for letters, order in zip(sites, decoy_orders(motifs, seed=seed), strict=True)]
        self.inserted = Insertions(model, backgrounds.codes, [*sites, *decoys], backgrounds.slots, readout=readout)

    def pairs(
        self,
        pairs: Sequence[tuple[int, int]],
        *,
        edges: bool = False,
    ) -> pd.DataFrame:
        """Readouts of all cells of pairs of motifs in every background.

        Parameters
        ----------
        pairs : sequence of (int, int)
            Motifs; a decoy has the number of its motif plus `n_motifs`.
        edges : bool
            Also cut edges: between the tokens that the two insertions change ("_cut"), from
            all other tokens to these as well ("_isolated"), and between two other places at the
            same distance ("y11_moved"; NaN without room); patch the messages between the two
            places ("y11_patched"); and cut them in one head at a time ("epistasis_cut_LAYER.HEAD": the
            epistasis then; in the first sixteen backgrounds, NaN elsewhere), and in the pair track of
            each layer, if there is one ("epistasis_cut_LAYER.pair").

        Returns
        -------
        DataFrame
            One row per pair and background (column instance): motif_a, motif_b, instance,
            distance_bp (centre of b less that of a), same_strand, y11, y10, y01, y00; y1c and
            y0c, with b's decoy in its place (NaN if b is one).
        """
        if not pairs:
            return pd.DataFrame()
        inserted, slots, n = self.inserted, self.backgrounds.slots, len(self.backgrounds.codes)
        row = np.tile(np.arange(n), len(pairs))
        a, b = (np.repeat(motifs, n) for motifs in np.array(pairs).T)
        slot_a = np.where(self.backgrounds.a_left, 0, 1)[row]
        first, second = Placed(a, slot_a), Placed(b, 1 - slot_a)
        cells = {
            "y11": inserted.both(row, first, second),
            "y10": inserted.single[a, row, slot_a],
            "y01": inserted.single[b, row, 1 - slot_a],
            "y00": inserted.plain[row],
        }
        cells |= self._control(row, first, second)
        if edges:
            names = ("y11", "y10", "y01", "y00")
            for ending, cut in (("cut", between), ("isolated", isolating)):
                values = inserted.cells(row, first, second, cut)
                cells |= {f"{name}_{ending}": each for name, each in zip(names, values, strict=True)}
            shift, room = self._shift(row, first, second)
            cells |= self._by_head(row, first, second)
            cells["y11_patched"] = inserted.both_patched(row, first, second)
            cells["y11_moved"] = np.where(room, inserted.both_cut(row, first, second, between, shift=shift), np.nan)
        distance = slots.centre[row, 1 - slot_a] - slots.centre[row, slot_a]
        same = (slots.reverse[:, 0] == slots.reverse[:, 1])[row]
        return pd.DataFrame(
            {"motif_a": a, "motif_b": b, "instance": row, "distance_bp": distance, "same_strand": same, **cells}
        )

    def decoy_pairs(self) -> list[tuple[int, int]]:
        """Random pairs of a motif and the decoy of another one."""
        m = self.n_motifs
        every = [(a, b + m) for a in range(m) for b in range(m) if a != b]
        draw = rng.stream(self.seed, "knock-in", "decoys")
        return [every[i] for i in np.sort(draw.permutation(len(every))[:_DECOY_PAIRS])]

    def _control(self, row: NDArray[np.int64], a: Placed, b: Placed) -> dict[str, NDArray[np.float64]]:
        """Cells with the decoy of the second motif in its place; NaN where that is a decoy itself."""
        real = b.motif < self.n_motifs
        cells = {name: np.full(len(row), np.nan) for name in ("y1c", "y0c")}
        some, slot = row[real], b.slot[real]
        decoy = b.motif[real] + self.n_motifs
        cells["y1c"][real] = self.inserted.both(some, Placed(a.motif[real], a.slot[real]), Placed(decoy, slot))
        cells["y0c"][real] = self.inserted.single[decoy, some, slot]
        return cells

    def _by_head(self, row: NDArray[np.int64], a: Placed, b: Placed) -> dict[str, NDArray[np.float64]]:
        """Epistasis with the edges between the places cut in each head alone, and in the pair track of each layer."""
        model, some = self.inserted.model, row < _HEAD_BACKGROUNDS
        first, second = (Placed(each.motif[some], each.slot[some]) for each in (a, b))
        parts: dict[str, dict[str, int]] = {
            f"{head // model.n_heads}.{head % model.n_heads}": {"head": head}
            for head in range(model.n_layers * model.n_heads)
        }
        if model.has_pairs:
            parts |= {f"{layer}.pair": {"pair_layer": layer} for layer in range(model.n_layers)}
        found = {}
        for name, where in parts.items():
            y11, y10, y01, y00 = self.inserted.cells(row[some], first, second, between, **where)
            values = np.full(len(row), np.nan)
            values[some] = y11 - y10 - y01 + y00
            found[f"epistasis_cut_{name}"] = values
        return found

    def _shift(self, row: NDArray[np.int64], a: Placed, b: Placed) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Random shift (R,), in tokens, of both places to others at the same distance, and whether there is room."""
        (first_a, last_a), (first_b, last_b) = self.inserted.spans(row, a), self.inserted.spans(row, b)
        least = np.maximum(last_a - first_a, last_b - first_b) + 1
        low = -np.minimum(first_a, first_b)
        high = self.inserted.n_real_tokens[row] - 1 - np.maximum(last_a, last_b)
        below, above = np.maximum(-least - low + 1, 0), np.maximum(high - least + 1, 0)
        draw = rng.stream(self.seed, "knock-in", "moved").random(len(self.backgrounds.codes))[row]
        pick = np.floor(draw * (below + above)).astype(np.int64)
        return np.where(pick < below, low + pick, least + pick - below), below + above > 0


def between(first_a: Tensor, last_a: Tensor, first_b: Tensor, last_b: Tensor, n_tokens: int) -> Tensor:
    """Edges between the tokens of two places in both directions, bool (B, t, t)."""
    a, b = inside(first_a, last_a, n_tokens), inside(first_b, last_b, n_tokens)
    return (a[:, :, None] & b[:, None]) | (b[:, :, None] & a[:, None])


def isolating(first_a: Tensor, last_a: Tensor, first_b: Tensor, last_b: Tensor, n_tokens: int) -> Tensor:
    """Edges by which any token outside a place reads it, bool (B, t, t): what is left meets in the readout alone."""
    a, b = inside(first_a, last_a, n_tokens), inside(first_b, last_b, n_tokens)
    return (~a[:, :, None] & a[:, None]) | (~b[:, :, None] & b[:, None])
