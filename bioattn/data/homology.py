"""Related sequences: who resembles whom on either strand, and how much.

Identity is the number of identical bases in the best alignment of two sequences,
divided by the known bases of the one that has fewer: a copy has 1, a copy with 5 %
substitutions 0.95, two sequences that overlap by 70 % of their bases 0.7. Best is
the highest score of any part of the one against any part of the other (match 1,
mismatch -1, inserted or deleted base -2; ties go to more identical bases), so that
what lies outside of the resemblance adds no chance matches. An unknown base equals
nothing.

Pairs that share a word (`bioattn.data.seeds`) are laid against each other on the
diagonal of that word, and where gaps may help they are aligned: as defined, or,
where both are long, by fewest edits (edlib), of which the best part counts, which
is the same but for some bases. Nothing counts that scores no more than unrelated
sequences do (`chance_score`), nor identities below `LOWEST_IDENTITY`.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import edlib
import numpy as np
import pandas as pd
from Bio.Align import PairwiseAligner
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.data.partition import components
from bioattn.data.seeds import Bases, Bools, Diagonals, Ints, Seeds, choose_seeds, chunks, diagonals
from bioattn.errors import DataError
from bioattn.rng import stream

Floats = NDArray[np.floating]

LOWEST_IDENTITY = 0.5
#: Share of unrelated sequences that may have a relative by chance: sets the lowest score of an alignment.
CHANCE_SHARE = 0.01
#: Shuffled sequences that are searched with the others: what they reach is chance.
N_DECOYS = 300
#: If more of the decoys are related to a sequence, the identity cannot tell relatives from chance.
MOST_DECOYS_RELATED = 0.05
#: Unequal bases in an overlap from which on gaps are tried: one gap costs as much as two of them.
_WORTH_GAPS = 3
#: Most pairs that are aligned with gaps for one query.
_MOST_ALIGNED = 32
#: Pairs that wait to be aligned, and pairs that are aligned before it is asked again which are worth it.
_MOST_PENDING = 4_000_000
_BATCH = 1000
#: Bases of diagonals that are looked at at a time: bounds memory.
_CHUNK_CELLS = 1_000_000
# Score and identical bases in one number, so that the largest has the highest score, then most identical bases.
_MATCH, _MISMATCH = (1 << 32) + 1, -(1 << 32)
#: Of an inserted or deleted base. If it cost less, unrelated sequences would align without end.
_GAP = 2 * _MISMATCH
#: Cells of an alignment up to which it is made as defined; of more, edlib takes a fraction of the time.
_EXACT_CELLS = 45_000
_PER_MATCH = 2.0**-20
_CIGAR = re.compile(r"(\d+)([=XID])")


class Relatives(NamedTuple):
    """Pairs of rows that connect all related ones, the share of decoys that are related, and the seeds."""

    edges: tuple[Ints, Ints]
    decoys_related: float
    seeds: Seeds


class Neighbours(NamedTuple):
    """Nearest target of each query in each fold, (N, F): its row (-1: none), the identity (0: none), other strand.

    `decoys` has the identity of each shuffled sequence to its nearest target, (decoys, F).
    """

    row: Ints
    identity: NDArray[np.float64]
    reverse: Bools
    decoys: NDArray[np.float64]
    seeds: Seeds


def relatives(sequences: Sequence[str], identity: float, *, groups: Ints | None = None, seed: int = 0) -> Relatives:
    """Edges between sequences of at least this identity: not all, but enough to connect all that are related.

    Parameters
    ----------
    identity : float
        At least `LOWEST_IDENTITY`.
    groups : ndarray, int64, shape (N,), optional
        Rows that are joined anyway: pairs within a group are not compared.
    seed : int
        Of the decoys.

    Raises
    ------
    DataError
        If nothing of that identity is better than chance, or shuffled sequences reach it too.
    """
    copy, rows = _distinct(sequences)
    chosen = [sequences[row] for row in rows]
    decoys = _shuffled(chosen, seed)
    bases = Bases([*chosen, *decoys])
    everyone = np.ones((len(bases.length), 1), dtype=bool)
    _check_above_chance(bases, identity)
    seeds = choose_seeds(bases, everyone, everyone, identity, itself=True)
    labels = np.arange(len(rows)) if groups is None else pd.factorize(groups[rows])[0].astype(np.int64)
    joined = _Joined(bases, len(decoys), identity, labels)
    for found in diagonals(bases, seeds, everyone, everyone, itself=True):
        joined.add(found)
    joined.align()
    share = float(joined.decoy_related.mean())
    if share > MOST_DECOYS_RELATED:
        raise DataError(
            f"split.identity {identity:g}: {share:.0%} of {len(decoys)} shuffled sequences reach it by chance (median "
            f"length {int(np.median(bases.length))} bp), so it cannot tell which sequences are related: raise it, or "
            f"group by other means (split.group_by)"
        )
    left = np.concatenate([rows[copy], *(rows[edge[0]] for edge in joined.edges)])
    right = np.concatenate([np.arange(len(sequences)), *(rows[edge[1]] for edge in joined.edges)])
    return Relatives((left, right), share, seeds)


def nearest(sequences: Sequence[str], queries: Bools, targets: Bools, *, identity: float, seed: int = 0) -> Neighbours:
    """Target with the highest identity for each query in each fold; the given strand, then the first row, win ties.

    Parameters
    ----------
    queries, targets : ndarray, bool, shape (N, F)
        Who looks for whom in each fold; no sequence is both in one fold.
    identity : float
        Seeds are chosen to find this one; results go down to `LOWEST_IDENTITY`.
    seed : int
        Of the decoys.
    """
    n, n_folds = queries.shape
    decoys = _shuffled(sequences, seed)
    bases = Bases([*sequences, *decoys])
    queries = np.concatenate([queries, np.ones((len(decoys), n_folds), dtype=bool)])
    targets = np.concatenate([targets, np.zeros((len(decoys), n_folds), dtype=bool)])
    seeds = choose_seeds(bases, queries, targets, identity, itself=False)
    best = _Best(bases, sequences, queries, targets)
    for found in diagonals(bases, seeds, queries, targets, itself=False):
        best.add(found)
    best.align()
    low = best.identity < LOWEST_IDENTITY
    best.row[low], best.identity[low], best.reverse[low] = -1, 0.0, False
    return Neighbours(best.row[:n], best.identity[:n], best.reverse[:n], best.identity[n:], seeds)


def _distinct(sequences: Sequence[str]) -> tuple[Ints, Ints]:
    """Number of each sequence's kind, where reverse complements are one kind, and the first row of each kind."""
    either = np.array([min(each, alphabet.reverse_complement(each)) for each in sequences], dtype=object)
    copy, kinds = pd.factorize(either)
    rows = np.full(len(kinds), len(sequences))
    np.minimum.at(rows, copy, np.arange(len(sequences)))
    return copy.astype(np.int64), rows


def _shuffled(sequences: Sequence[str], seed: int) -> list[str]:
    """Up to `N_DECOYS` sequences, evenly from all, with their letters in another order."""
    rng = stream(seed, "homology", "decoys")
    rows = np.unique(np.linspace(0, len(sequences) - 1, min(N_DECOYS, len(sequences))).astype(int))
    return ["".join(rng.permutation(list(sequences[row]))) for row in rows]


def chance_score(bases: Bases, n_bases: int) -> float:
    """Score that one in a hundred sequences of median length reaches against so many unrelated bases.

    For alignments without gaps (Karlin and Altschul 1990); what chance does with
    gaps is measured by decoys.
    """
    same = bases.chance_match()
    pairs = 2.0 * max(n_bases, 1) * max(float(np.median(bases.known)), 1.0)
    # With match 1 and mismatch -1, lambda is the log odds of a mismatch, and K is 1/3 where a quarter agrees.
    return float(np.log(pairs / 3 / CHANCE_SHARE) / np.log((1 - same) / same)) if same < 0.5 else float("inf")


def _check_above_chance(bases: Bases, identity: float) -> None:
    """Raise `DataError` if of sequences of median length not even an unbroken part of that identity is above chance."""
    lowest, length = chance_score(bases, bases.known.sum()), float(np.median(bases.known))
    if lowest > identity * length:
        share = np.ceil(100 * lowest / length) / 100 if np.isfinite(lowest) and length else 2.0
        what_helps = f"set it to {share:.2f} or more, or group" if share <= 1 else "they are too short for it, group"
        raise DataError(
            f"split.identity {identity:g}: among {bases.known.sum():,} bases, sequences of {length:g} bp are so alike "
            f"by chance: {what_helps} by other means (split.group_by)"
        )


# ------------------------------------------------------------------------- alignments


class _Scored(NamedTuple):
    """Diagonals with the score and the identical bases of their best part."""

    at: Diagonals
    score: Ints
    identical: Ints

    def take(self, which: NDArray | slice) -> "_Scored":
        """Some of them."""
        return _Scored(self.at.take(which), self.score[which], self.identical[which])


def _scored(bases: Bases, at: Diagonals) -> _Scored:
    """Best part of each diagonal without gaps; only of those that score more than most by chance."""
    kind = np.int16 if at.overlap.max(initial=0) < 1 << 15 else np.int32
    lowest = np.clip(np.minimum(bases.known[at.query], bases.known[at.target]) // 6, 10, 16)
    at = at.take(_best_parts(bases, at, kind, 1, -1) >= lowest)
    both = _best_parts(bases, at, np.int64, _MATCH, _MISMATCH)
    return _Scored(at, both >> 32, both & 0xFFFFFFFF)


def _best_parts(bases: Bases, at: Diagonals, kind: type[np.signedinteger], match: int, mismatch: int) -> Ints:
    """Highest sum of matches and mismatches over consecutive bases of each diagonal."""
    best = np.zeros(len(at.query), dtype=np.int64)
    order = np.argsort(at.overlap, kind="stable")
    for some in chunks(at.overlap[order], _CHUNK_CELLS):
        rows = order[some]
        width = int(at.overlap[rows[-1]])
        windows = np.lib.stride_tricks.sliding_window_view(bases.codes, width)
        left, right = windows[at.left[rows]], windows[at.right[rows]]
        steps = np.where((left == right) & (left < alphabet.UNKNOWN), kind(match), kind(mismatch))
        if at.overlap[rows[0]] < width:
            steps *= np.arange(width) < at.overlap[rows, None]
        sums = np.zeros((len(rows), width + 1), dtype=kind)
        np.cumsum(steps, axis=1, dtype=kind, out=sums[:, 1:])
        best[rows] = (sums - np.minimum.accumulate(sums, axis=1)).max(axis=1)
    return best


def _shorter(bases: Bases, at: Diagonals) -> Ints:
    """Known bases of the sequence that has fewer."""
    return np.maximum(np.minimum(bases.known[at.query], bases.known[at.target]), 1)


def _slack(overlap: Ints) -> Ints:
    """Bases by which gaps may move one end of an overlap against the other."""
    return np.maximum(16, overlap // 10)


def _hopeful(bases: Bases, scored: _Scored, identity: float | Floats) -> Bools:
    """Whether gaps could bring a pair to an identity."""
    overlap = scored.at.overlap
    enough = overlap + _slack(overlap) >= identity * _shorter(bases, scored.at)
    return enough & (overlap - scored.identical >= _WORTH_GAPS)


def _best_of_pairs(scored: Sequence[_Scored]) -> _Scored:
    """One diagonal for each pair, strand and fold, with the highest score; those of a query from high to low."""
    whole = _Scored(
        Diagonals(*(np.concatenate(columns) for columns in zip(*(each.at for each in scored), strict=True))),
        np.concatenate([each.score for each in scored]),
        np.concatenate([each.identical for each in scored]),
    )
    at = whole.at
    order = np.lexsort((-whole.score, at.reverse, at.target, at.query, at.fold))
    keys = np.stack([at.fold, at.query, at.target, at.reverse])[:, order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    whole = whole.take(order[first])
    return whole.take(np.lexsort((-whole.score, whole.at.query, whole.at.fold)))


def _with_gaps(bases: Bases, scored: _Scored, needed: Floats) -> _Scored:
    """Pairs that score more when aligned with gaps, but for some that have far fewer identical bases than needed."""
    at = scored.at
    short = bases.length[at.query] * bases.length[at.target] <= _EXACT_CELLS
    both = np.zeros(len(short), dtype=np.int64)
    both[short] = _exact(bases, at.take(short))
    both[~short] = _by_fewest_edits(bases, at.take(~short), needed[~short])
    more = both >> 32 > scored.score
    return _Scored(at.take(more), both[more] >> 32, both[more] & 0xFFFFFFFF)


def _exact(bases: Bases, at: Diagonals) -> Ints:
    """Score and identical bases of the best alignment of each pair, whatever its diagonal."""
    starts = bases.start[at.query], bases.start_of(at.target, at.reverse)
    ends = starts[0] + bases.length[at.query], starts[1] + bases.length[at.target]
    rows = zip(*(column.tolist() for column in (starts[0], ends[0], starts[1], ends[1])), strict=True)
    aligner = _aligner()
    # An unknown base must not equal another.
    sums = [aligner.score(bases.text[a:b].replace(b"N", b"n"), bases.text[c:d]) for a, b, c, d in rows]
    scores = np.array(sums, dtype=np.float64)
    whole = np.floor(scores)
    return (whole.astype(np.int64) << 32) + np.round((scores - whole) / _PER_MATCH).astype(np.int64)


@functools.cache
def _aligner() -> PairwiseAligner:
    """Local alignment whose score has the identical bases in its fraction, so that they decide ties."""
    return PairwiseAligner(
        mode="local", match_score=1 + _PER_MATCH, mismatch_score=-1, open_gap_score=-2, extend_gap_score=-2
    )


def _by_fewest_edits(bases: Bases, at: Diagonals, needed: Floats) -> Ints:
    """Score and identical bases of the best part of the alignment of each overlap with fewest edits; 0 if too many.

    Either side of the overlap may begin and end `_slack` bases earlier or later.
    """
    slack = _slack(at.overlap)
    columns = [np.floor(at.overlap - needed).astype(np.int64) + 2 * slack]
    for first, rows, reverse in ((at.left, at.query, np.zeros_like(at.reverse)), (at.right, at.target, at.reverse)):
        start = bases.start_of(rows, reverse)
        columns.append(np.maximum(start, first - slack))
        columns.append(np.minimum(start + bases.length[rows], first + at.overlap + slack))
    rows_of = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([_best_part(bases.text, *row) for row in rows_of], dtype=np.int64)


def _best_part(text: bytes, most_edits: int, left: int, left_end: int, right: int, right_end: int) -> int:
    if most_edits < 0:
        return 0
    # The shorter one within the longer one. An unknown base must not equal another.
    short, long = sorted((text[left:left_end].replace(b"N", b"n"), text[right:right_end]), key=len)
    cigar = edlib.align(short, long, mode="HW", task="path", k=most_edits)["cigar"]
    total = best = 0
    for length, kind in _CIGAR.findall(cigar or ""):
        if kind == "=":
            total += int(length) * _MATCH
            if total > best:
                best = total
        else:
            total += int(length) * (_MISMATCH if kind == "X" else _GAP)
            if total < 0:
                total = 0
    return best


# --------------------------------------------------------------------------- grouping


class _Joined:
    """Which rows are joined so far, and pairs that gaps may bring to the identity. Rows after the labels are decoys."""

    def __init__(self, bases: Bases, n_decoys: int, identity: float, labels: Ints) -> None:
        self.bases, self.identity, self.labels = bases, identity, labels
        self.lowest_score = chance_score(bases, bases.known.sum())
        self.decoy_related = np.zeros(n_decoys, dtype=bool)
        self.edges: list[tuple[Ints, Ints]] = []
        self.pending: list[_Scored] = []

    def add(self, at: Diagonals) -> None:
        """Join what is related without gaps."""
        scored = _scored(self.bases, at.take(self._open(at)))
        related = self._related(scored)
        self._join(scored.at.take(related))
        scored = scored.take(~related)
        self.pending.append(scored.take(_hopeful(self.bases, scored, self.identity)))
        if sum(len(each.score) for each in self.pending) > _MOST_PENDING:
            self.align()

    def align(self) -> None:
        """Align pending pairs with gaps, as far as that may still join something."""
        scored = _best_of_pairs(self.pending) if self.pending else None
        self.pending = []
        for begin in range(0, len(scored.score) if scored else 0, _BATCH):
            assert scored
            some = scored.take(slice(begin, begin + _BATCH))
            some = some.take(self._open(some.at))
            some = _with_gaps(self.bases, some, self.identity * _shorter(self.bases, some.at))
            self._join(some.at.take(self._related(some)))

    def _related(self, scored: _Scored) -> Bools:
        enough = scored.identical / _shorter(self.bases, scored.at) >= self.identity
        return enough & (scored.score >= self.lowest_score)

    def _open(self, at: Diagonals) -> Bools:
        """Whether a pair may join something: not two decoys, nor a decoy that is known, nor two of one group."""
        n = len(self.labels)
        decoy = at.query >= n
        done = np.zeros(len(decoy), dtype=bool)
        done[decoy] = self.decoy_related[at.query[decoy] - n]
        done[~decoy] = self.labels[at.query[~decoy]] == self.labels[at.target[~decoy]]
        return ~done & (at.target < n)

    def _join(self, at: Diagonals) -> None:
        """Join pairs; a decoy joins nothing, but is noted."""
        n = len(self.labels)
        self.decoy_related[at.query[at.query >= n] - n] = True
        real = at.query < n
        left, right = at.query[real], at.target[real]
        if len(left):
            self.edges.append((left, right))
            linked = components(int(self.labels.max()) + 1, self.labels[left], self.labels[right])
            self.labels = linked[self.labels]


# ---------------------------------------------------------------------------- nearest


class _Best:
    """Nearest target of each query so far, and pairs that gaps may bring nearer."""

    def __init__(self, bases: Bases, sequences: Sequence[str], queries: Bools, targets: Bools) -> None:
        assert not (queries & targets).any()
        self.bases = bases
        self.lowest_score = chance_score(bases, (bases.known @ targets).max(initial=0))
        self.row = np.full(queries.shape, -1, dtype=np.int64)
        self.identity = np.zeros(queries.shape)
        self.reverse = np.zeros(queries.shape, dtype=bool)
        self.pending: list[_Scored] = []
        for fold in range(queries.shape[1]):
            self._find_copies(sequences, queries[: len(sequences), fold], targets[: len(sequences), fold], fold)

    def _find_copies(self, sequences: Sequence[str], query: Bools, target: Bools, fold: int) -> None:
        """Copies and reverse complements, which may be too short for words, or full of unknown bases."""
        first = {sequences[row]: row for row in np.flatnonzero(target)[::-1].tolist()}
        for row in np.flatnonzero(query).tolist():
            for sequence, reverse in ((sequences[row], False), (alphabet.reverse_complement(sequences[row]), True)):
                if self.row[row, fold] < 0 and sequence in first:
                    self.row[row, fold], self.identity[row, fold] = first[sequence], 1.0
                    self.reverse[row, fold] = reverse

    def add(self, at: Diagonals) -> None:
        """Take over what is nearer without gaps."""
        scored = _scored(self.bases, at.take(self.identity[at.query, at.fold] < 1))
        self._take_over(scored)
        self.pending.append(scored.take(self._hopeful(scored)))
        if sum(len(each.score) for each in self.pending) > _MOST_PENDING:
            self.pending = [self._best_pending()]

    def align(self) -> None:
        """Align pending pairs with gaps, as far as that may still find something nearer."""
        scored = self._best_pending() if self.pending else None
        self.pending = []
        for begin in range(0, len(scored.score) if scored else 0, _BATCH):
            assert scored
            some = scored.take(slice(begin, begin + _BATCH))
            some = some.take(self._hopeful(some))
            needed = self._to_beat(some.at) * _shorter(self.bases, some.at)
            self._take_over(_with_gaps(self.bases, some, needed))

    def _to_beat(self, at: Diagonals) -> Floats:
        return np.maximum(self.identity[at.query, at.fold], LOWEST_IDENTITY)

    def _hopeful(self, scored: _Scored) -> Bools:
        return _hopeful(self.bases, scored, self._to_beat(scored.at))

    def _best_pending(self) -> _Scored:
        """Pending pairs with the highest scores of each query, the highest of all queries first."""
        scored = _best_of_pairs(self.pending)
        scored = scored.take(self._hopeful(scored))
        place = scored.at.fold * len(self.row) + scored.at.query
        begins = np.flatnonzero(np.diff(place, prepend=-1))
        rank = np.arange(len(place)) - np.repeat(begins, np.diff(np.append(begins, len(place))))
        order = np.argsort(rank, kind="stable")
        return scored.take(order[: np.searchsorted(rank[order], _MOST_ALIGNED)])

    def _take_over(self, scored: _Scored) -> None:
        """Take over targets that are nearer; the given strand, then the first row, win ties."""
        scored = scored.take(scored.score >= self.lowest_score)
        at, identity = scored.at, scored.identical / _shorter(self.bases, scored.at)
        place = at.fold * len(self.row) + at.query
        order = np.lexsort((at.target, at.reverse, -identity, place))
        order = order[np.diff(place[order], prepend=-1) > 0]
        at, identity = at.take(order), identity[order]
        known, row, reverse = (each[at.query, at.fold] for each in (self.identity, self.row, self.reverse))
        before = (at.reverse < reverse) | ((at.reverse == reverse) & (at.target < row))
        better = (identity > known) | ((identity == known) & before)
        at = at.take(better)
        self.row[at.query, at.fold], self.identity[at.query, at.fold] = at.target, identity[better]
        self.reverse[at.query, at.fold] = at.reverse
