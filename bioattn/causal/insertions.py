"""Motifs put into the same places of the same backgrounds, alone and in twos, without computing anything twice.

Tokens of the backgrounds are computed once, and for each motif the few tokens that each
of its insertions changes. A background with two motifs is assembled from these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.causal.edge_knockout import (
    one_way,
    rows_with_scores,
    strand_interval,
    tail_with_cut,
    tail_with_messages,
)
from bioattn.causal.token_edits import Patch, assembled, edited_tokens, touched_tokens
from bioattn.data import alphabet
from bioattn.explain.predict import BATCH
from bioattn.models import SequenceModel

#: Motifs whose insertions are embedded at a time.
_MOTIFS = 16

#: From tokens (first_a, last_a, first_b, last_b), each (B,), and their number, edges to cut, bool (B, t, t).
Cut = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Slots:
    """Where motifs are put: `S` slots in each of `N` backgrounds.

    Attributes
    ----------
    centre : ndarray of int, shape (N, S)
        Base on which the middle of a site lies.
    reverse : ndarray of bool, shape (N, S)
        Whether the site lies on the other strand.
    """

    centre: NDArray[np.int64]
    reverse: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Slots in a background."""
        return int(self.centre.shape[1])


class Placed(NamedTuple):
    """Rows of motifs in slots: one element for each row."""

    motif: NDArray[np.int64]
    slot: NDArray[np.int64]


class _Strand(NamedTuple):
    """Tokens of backgrounds on one strand, and of each motif in each slot.

    Attributes
    ----------
    hidden : Tensor (N, t, D)
    keep : bool Tensor (N, t), or None
    first : Tensor (N, S), int64
    patch : Tensor (M, N, S, W, D)
    span : Tensor (M, N, S, 2), int64
        First and last token that a motif's insertion changes.
    """

    hidden: Tensor
    keep: Tensor | None
    first: Tensor
    patch: Tensor
    span: Tensor


class Insertions:
    """Readouts of backgrounds with motifs in slots.

    Parameters
    ----------
    backgrounds : ndarray, uint8, shape (N, L)
    sites : sequence of ndarray, uint8, shape (N, W)
        Letters of a site of each motif for each background, on the motif's own strand; W differs
        between motifs. All slots of a background get the same site.
    slots : Slots
        Far enough from the ends that every motif fits.
    readout : int
        On the pre-link scale; the mean over strands where the model averages them.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: SequenceModel,
        backgrounds: NDArray[np.uint8],
        sites: Sequence[NDArray[np.uint8]],
        slots: Slots,
        *,
        readout: int,
    ) -> None:
        self.model, self.slots, self.readout = model, slots, readout
        self._device = next(model.parameters()).device
        self._n_tokens = -(-backgrounds.shape[1] // model.token_bp)
        self._length = (backgrounds != alphabet.PAD).sum(1)
        widest = max((letters.shape[1] for letters in sites), default=1)
        n_strands = 2 if model.average_strands else 1
        self._strands = [self._embedded(backgrounds, sites, widest, bool(strand)) for strand in range(n_strands)]
        #: Readout (N,) of each background as it is, and (M, N, S) with one motif in one slot.
        self.plain = self._readouts(np.arange(len(backgrounds)), ())
        shape = (len(sites), len(backgrounds), slots.n)
        motif, row, slot = (index.ravel() for index in np.indices(shape))
        self.single = self._readouts(row, (Placed(motif, slot),)).reshape(shape)

    @torch.inference_mode()
    def both(self, row: NDArray[np.int64], a: Placed, b: Placed) -> NDArray[np.float64]:
        """Readouts of backgrounds `row` with two motifs, in two slots that share no token, all of shape (R,)."""
        return self._readouts(row, (a, b))

    @torch.inference_mode()
    def cells(
        self,
        row: NDArray[np.int64],
        a: Placed,
        b: Placed,
        cut: Cut,
        *,
        head: int | None = None,
        pair_layer: int | None = None,
    ) -> list[NDArray[np.float64]]:
        """Readouts with both motifs, the first, the second and neither, with edges between their places cut.

        In all heads, or in one: layer * n_heads + head; or in the pair track of one layer.
        """
        return [
            self._readouts(row, placed, (a, b), cut, head=head, pair_layer=pair_layer)
            for placed in ((a, b), (a,), (b,), ())
        ]

    @torch.inference_mode()
    def both_cut(
        self, row: NDArray[np.int64], a: Placed, b: Placed, cut: Cut, *, shift: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """As `both`, with edges cut: between the two places, or between those `shift` tokens (R,) to the right."""
        return self._readouts(row, (a, b), (a, b), cut, shift)

    @torch.inference_mode()
    def both_patched(self, row: NDArray[np.int64], a: Placed, b: Placed) -> NDArray[np.float64]:
        """Readouts (R,) with both motifs, but what either place tells the other is what it would without its own motif.

        Patterns stay those of both motifs; only messages between the two places are replaced (path
        patching of edges), in all layers and heads. Unlike a cut edge nothing is renormalised.
        """
        result = np.zeros(len(row))
        size = rows_with_scores(self.model, self._n_tokens)
        for start in range(0, len(row), size):
            some = slice(start, start + size)
            for strand in self._strands:
                with_a, with_b = (self._assembled(strand, row[some], [_rows(p, some)]) for p in (a, b))
                hidden, keep = self._assembled(strand, row[some], [_rows(p, some) for p in (a, b)])
                (first_a, last_a), (first_b, last_b) = (
                    strand.span[p.motif[some], row[some], p.slot[some]].unbind(-1) for p in (a, b)
                )
                from_a = one_way(first_b, last_b, first_a, last_a, self._n_tokens)
                from_b = one_way(first_a, last_a, first_b, last_b, self._n_tokens)
                # What b tells a is taken from the run without b, and the other way round.
                found = tail_with_messages(self.model, hidden, keep, [(with_a[0], from_b), (with_b[0], from_a)])
                result[some] += found[:, self.readout].double().cpu().numpy()
        return result / len(self._strands)

    def _assembled(
        self, strand: _Strand, row: NDArray[np.int64], placed: Sequence[Placed]
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (R, t, D) of backgrounds with motifs placed, and which are real."""
        at = self._tensor(row)
        index = [[self._tensor(part) for part in each] for each in placed]
        patches = [Patch(strand.first[at, s], strand.patch[m, at, s]) for m, s in index]
        return assembled(strand.hidden[at], *patches), None if strand.keep is None else strand.keep[at]

    @property
    def n_real_tokens(self) -> NDArray[np.int64]:
        """Tokens (N,) of each background without padding."""
        found: NDArray[np.int64] = -(-self._length // self.model.token_bp)
        return found

    def spans(self, row: NDArray[np.int64], placed: Placed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last token (R,) that insertions change, on the given strand."""
        span = self._strands[0].span[placed.motif, row, placed.slot].cpu().numpy()
        return span[:, 0], span[:, 1]

    def _embedded(
        self, backgrounds: NDArray[np.uint8], sites: Sequence[NDArray[np.uint8]], widest: int, reverse: bool
    ) -> _Strand:
        """Tokens of one strand."""
        strand = int(reverse)
        codes = self._tensor(backgrounds)
        hidden, keep = _in_batches(self.model, self.model.strands(codes)[strand])
        n, n_slots = self.slots.centre.shape
        # One window for all motifs, so that their patches have one shape.
        around = self._interval(widest, reverse)
        lowest, highest = touched_tokens(self.model, *around, self._n_tokens)
        width = int((highest - lowest).max()) + 1
        first, patches, spans = [], [], []
        for letters in sites:
            own = self._interval(letters.shape[1], reverse)
            spans.append(torch.stack(touched_tokens(self.model, *own, self._n_tokens), dim=-1))
        for slot in range(n_slots):
            start, end = (edge[:, slot] for edge in around)
            found = [
                self._patches(backgrounds, sites[m : m + _MOTIFS], slot, start, end, width, reverse)
                for m in range(0, len(sites), _MOTIFS)
            ]
            first.append(found[0].first)
            patches.append(torch.cat([patch.hidden for patch in found]))
        return _Strand(hidden, keep, torch.stack(first, 1), torch.stack(patches, 2), torch.stack(spans))

    def _patches(
        self,
        backgrounds: NDArray[np.uint8],
        sites: Sequence[NDArray[np.uint8]],
        slot: int,
        start: Tensor,
        end: Tensor,
        width: int,
        reverse: bool,
    ) -> Patch:
        """Tokens (M, N, W, D) of some motifs in one slot, and the first of them (N,)."""
        n, m = len(backgrounds), len(sites)
        edited = self._tensor(np.concatenate([self._placed(backgrounds, letters, slot) for letters in sites]))
        strand = self.model.strands(edited)[int(reverse)]
        patch = edited_tokens(self.model, strand, start.repeat(m), end.repeat(m), width=width)
        return Patch(patch.first[:n], patch.hidden.unflatten(0, (m, n)))

    def _interval(self, width: int, reverse: bool) -> tuple[Tensor, Tensor]:
        """Starts and ends (N, S) of sites of that width, on a strand."""
        start = self.slots.centre - width // 2
        both = strand_interval(np.stack([start, start + width]), self._length[:, None], reverse=reverse)
        start_NS, end_NS = map(self._tensor, both)
        return start_NS.clamp(min=0), end_NS.clamp(max=self._n_tokens * self.model.token_bp)

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self._device)

    def _placed(self, backgrounds: NDArray[np.uint8], letters: NDArray[np.uint8], slot: int) -> NDArray[np.uint8]:
        """Backgrounds with the sites (N, W) of a motif in one slot."""
        turned = np.where(self.slots.reverse[:, slot, None], 3 - letters[:, ::-1], letters).astype(np.uint8)
        width = letters.shape[1]
        edited = backgrounds.copy()
        at = (self.slots.centre[:, slot] - width // 2)[:, None] + np.arange(width)
        edited[np.arange(len(edited))[:, None], at] = turned
        return edited

    def _readouts(
        self,
        row: NDArray[np.int64],
        placed: tuple[Placed, ...],
        between: tuple[Placed, Placed] | None = None,
        cut: Cut | None = None,
        shift: NDArray[np.int64] | None = None,
        head: int | None = None,
        pair_layer: int | None = None,
    ) -> NDArray[np.float64]:
        """Readouts (R,) of backgrounds with motifs placed, and edges cut between the places of two."""
        size = BATCH if cut is None else rows_with_scores(self.model, self._n_tokens)
        result = np.zeros(len(row))
        for start in range(0, len(row), size):
            some = slice(start, start + size)
            for strand, sign in zip(self._strands, (1, -1), strict=False):
                hidden, keep = self._assembled(strand, row[some], [_rows(p, some) for p in placed])
                if cut is None or between is None:
                    found = self.model.tail(hidden, keep)
                else:
                    ends = [strand.span[p.motif[some], row[some], p.slot[some]] for p in between]
                    if shift is not None:
                        by = sign * self._tensor(shift[some])[:, None]
                        ends = [end + by for end in ends]
                    edges = cut(ends[0][:, 0], ends[0][:, 1], ends[1][:, 0], ends[1][:, 1], self._n_tokens)
                    found = tail_with_cut(self.model, hidden, keep, edges, head=head, pair_layer=pair_layer)
                result[some] += found[:, self.readout].double().cpu().numpy()
        return result / len(self._strands)


def _rows(placed: Placed, some: slice) -> Placed:
    return Placed(placed.motif[some], placed.slot[some])


def _in_batches(model: SequenceModel, codes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens of many sequences."""
    hidden = torch.cat([model.embed(batch)[0] for batch in codes.split(BATCH)])
    real = model.real_tokens(codes)
    return hidden, None if bool(real.all()) else real
