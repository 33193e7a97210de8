"""Words that sequences share on either strand: where to look for resemblance.

A spaced seed is a word of which some positions must agree and the ones between may
differ, which finds more of what has mutated than a word without gaps (Ma, Tromp, Li
2002). Seeds are chosen for the data: light ones (few positions) find more, heavy
ones leave fewer chance hits to look at.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.rng import stream

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

#: Pairs of words in common that are looked at, in all: bounds time, and by that how light seeds may be.
MOST_HITS = 30_000_000
#: Share of relatives that is good enough to stop looking for better seeds.
ENOUGH = 0.998
#: Of the differences of the relatives that seeds are chosen for, from none to this share are inserted or deleted bases.
GAP_SHARE = 0.5
#: Symmetric seeds of each weight, in the order in which they add sensitivity: from a random search for those that
#: hit most of 4,000 drawn relatives of 60 to 200 bases and identity 0.5 (light) to 0.75 (heavy). Symmetric, because
#: then a word and its reverse complement have one code.
PATTERNS = {
    6: ("11010001011", "1100010100011", "1100110011", "100101101001"),
    8: ("111010010111", "110101000101011", "11000111100011", "1110010000100111"),
    10: ("101110010010011101", "110100101000101001011", "11100100011000100111", "10100011011011000101"),
    12: ("111010010001100010010111", "110110101000101011011", "111001101101100111", "1111000101000001010001111"),
    14: (
        "11100111010001011100111", "10011110001001010010001111001", "10111100100011000100111101",
        "110010110110000011011010011",
    ),
    16: (
        "111101001100101001100101111", "1111101001000010100001001011111", "11010111010100101011101011",
        "1101011010011001100101101011",
    ),
}  # fmt: skip
#: Shares of all words, chosen by their letters, that may be used where sequences are long.
_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
#: Bases of the drawn relatives at most; longer ones are hit more often still.
_MOST_DRAWN = 400
#: Words, bases and pairs of words that are handled at a time: bound memory.
_PART_WORDS = 40_000_000
_CHUNK_BASES = 2_000_000
_CHUNK_HITS = 1_000_000
#: Padding at both ends, so that bases around a word can be looked up everywhere.
_PAD = 64
#: Odd multipliers that spread bits.
_SPREAD_32 = np.uint32(2654435761)
_SPREAD_64 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class Seeds(NamedTuple):
    """Spaced seeds, the share of their words in use, and what share of relatives they hit.

    The sensitivity is for relatives of `length` bases and this `identity` whose
    differences lie all over them, up to `GAP_SHARE` of them gaps; an overlap of
    the same identity is hit nearly always.
    """

    patterns: tuple[str, ...]
    share: float
    identity: float
    length: int
    sensitivity: float

    @property
    def weight(self) -> int:
        """Bases that must agree."""
        return self.patterns[0].count("1")


class Bases:
    """Sequences in one array of codes, then the reverse complement of that array.

    Attributes
    ----------
    codes : ndarray, uint8
        Both strands, with unknown bases between sequences and around them.
    n : int
        Length of one strand.
    text : bytes
        The same as letters.
    start, length, known : ndarray, int64, shape (N,)
        First position on the given strand, bases, and known bases of each sequence.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self.length = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        text = "N" * _PAD + "N".join(sequences) + "N" * _PAD
        self.n = len(text)
        if self.n >= 2**31:
            raise DataError(f"found {self.n:,} bases; relatives can be looked for among up to 2 billion: use fewer")
        forward = alphabet.encode(text)
        both = np.concatenate([forward, alphabet.reverse_complement_codes(forward)])
        self.start = _PAD + np.concatenate([[0], np.cumsum(self.length[:-1] + 1)])
        self._row = np.repeat(np.arange(len(sequences), dtype=np.int32), self.length + 1)
        known = np.concatenate([[0], np.cumsum(forward < alphabet.UNKNOWN)])
        self.known = known[self.start + self.length] - known[self.start]
        # An unknown base is packed as some base: always the same one would make unknown stretches alike.
        some = (np.arange(len(both), dtype=np.uint32) * _SPREAD_32) >> np.uint32(30)
        self._packed = _pack(np.where(both < alphabet.UNKNOWN, both, some.astype(np.uint8)))
        self.text = np.frombuffer(b"ACGTN", dtype=np.uint8)[both].tobytes()
        # Windows along diagonals may reach beyond the last base.
        self.codes = np.pad(both, (0, int(self.length.max(initial=0))), constant_values=alphabet.UNKNOWN)

    def row(self, positions: Ints) -> Ints:
        """Sequence of positions on the given strand."""
        return self._row[positions - _PAD].astype(np.int64)

    def start_of(self, rows: Ints, reverse: Bools) -> Ints:
        """Position of the first base of sequences, read on the given or the other strand."""
        return np.where(reverse, 2 * self.n - self.start[rows] - self.length[rows], self.start[rows])

    def words(self, positions: Ints) -> Words:
        """The 32 bases from each position on, two bits each."""
        at, shift = positions >> 5, ((positions & 31) << 1).astype(np.uint64)
        rest = self._packed[at + 1] >> ((np.uint64(64) - shift) & np.uint64(63))
        return (self._packed[at] << shift) | np.where(shift > 0, rest, np.uint64(0))

    def spaced_words(self, pattern: str, begin: int, end: int) -> tuple[NDArray[np.uint32], Bools, Bools]:
        """Canonical codes of the words from begin to end, whether they are of the other strand, and whether whole."""
        forward = np.zeros(end - begin, dtype=np.uint32)
        reverse = np.zeros(end - begin, dtype=np.uint32)
        unknown = np.zeros(end - begin, dtype=np.uint8)
        for place, offset in enumerate(_offsets(pattern)):
            window = self.codes[begin + offset : end + offset]
            unknown |= window
            two_bits = (window & 3).astype(np.uint32)
            forward = (forward << np.uint32(2)) | two_bits
            reverse |= (np.uint32(3) - two_bits) << np.uint32(2 * place)
        beyond = len(pattern) - 1 - _PAD
        one_sequence = self._row[begin - _PAD : end - _PAD] == self._row[begin + beyond : end + beyond]
        return np.minimum(forward, reverse), reverse < forward, (unknown < alphabet.UNKNOWN) & one_sequence

    def chance_match(self) -> float:
        """Probability that two bases of these sequences, on either strand, are the same."""
        counts = np.bincount(self.codes, minlength=alphabet.UNKNOWN + 1)[: alphabet.N_LETTERS]
        return float(((counts / max(counts.sum(), 1)) ** 2).sum())


def _pack(codes: NDArray[np.uint8]) -> Words:
    """Two bits a base, 32 bases a number, the first in the highest bits; one number more than needed."""
    padded = np.zeros(32 * (len(codes) // 32 + 2), dtype=np.uint8)
    padded[: len(codes)] = codes
    four = padded.reshape(-1, 4)
    packed = (four[:, 0] << 6) | (four[:, 1] << 4) | (four[:, 2] << 2) | four[:, 3]
    return packed.view(">u8").astype(np.uint64)


# -------------------------------------------------------------------- choice of seeds


def choose_seeds(bases: Bases, queries: Bools, targets: Bools, identity: float, *, itself: bool) -> Seeds:
    """Cheapest seeds that hit nearly all relatives of this identity, or the best that `MOST_HITS` allows.

    Parameters
    ----------
    queries, targets : ndarray, bool, shape (N, F)
        What will be compared with what; `itself` as for `diagonals`.
    """
    known = bases.known.astype(np.float64)
    n_pairs = float(((known @ queries) * (known @ targets)).sum()) * (1 if itself else 2)
    length = max(1, int(np.quantile(bases.known, 0.1)))
    same = bases.chance_match()
    best: tuple[tuple[float, float], Seeds] | None = None
    for weight, patterns in PATTERNS.items():
        counts = _drawn_hits(patterns, min(length, _MOST_DRAWN), identity)
        for n_used, share in itertools.product((1, 2, 4), _SHARES):
            hits = n_used * share * n_pairs * same**weight
            last_resort = (weight, n_used, share) == (max(PATTERNS), 1, _SHARES[-1])
            if hits > MOST_HITS and not last_resort:
                continue
            seeds = Seeds(patterns[:n_used], share, identity, length, _found(counts[:n_used], share))
            # Measured costs of a word, of a word in use, and of a hit, relative to each other.
            cost = n_used * known.sum() * (1 + 2 * share) + 2 * hits
            rank = (-min(seeds.sensitivity, ENOUGH), float(cost))
            if best is None or rank < best[0]:
                best = rank, seeds
    assert best is not None
    return best[1]


def sensitivity(seeds: Seeds, identity: float) -> float:
    """Estimated share of relatives of another identity that the seeds hit."""
    return _found(_drawn_hits(seeds.patterns, min(seeds.length, _MOST_DRAWN), identity), seeds.share)


def _found(counts: Ints, share: float) -> float:
    return round(1 - float(((1 - share) ** counts.sum(axis=0)).mean()), 4)


def _drawn_hits(patterns: Sequence[str], length: int, identity: float, *, draws: int = 1000) -> Ints:
    """Hits of each pattern in drawn relatives, (patterns, draws)."""
    rng = stream(0, "homology", "sensitivity")
    agree = rng.random((draws, length)) < identity
    gap = ~agree & (rng.random((draws, length)) < np.linspace(0, GAP_SHARE, draws)[:, None])
    n_gaps = np.cumsum(np.pad(gap, ((0, 0), (1, 0))), axis=1)
    counts = np.zeros((len(patterns), draws), dtype=np.int64)
    for count, pattern in zip(counts, patterns, strict=True):
        n_windows = length - len(pattern) + 1
        if n_windows > 0:
            hit = n_gaps[:, len(pattern) :] == n_gaps[:, : -len(pattern)]
            for offset in _offsets(pattern):
                hit &= agree[:, offset : offset + n_windows]
            count += hit.sum(axis=1)
    return counts


def _offsets(pattern: str) -> list[int]:
    return [offset for offset, letter in enumerate(pattern) if letter == "1"]


# ------------------------------------------------------------------------------- hits


class Diagonals(NamedTuple):
    """Pairs of sequences laid against each other without gaps, each array of shape (C,).

    Rows of the query and the target, the fold, whether the target is read on its
    other strand, the first position of the overlap in each, and its length.
    """

    query: Ints
    target: Ints
    fold: Ints
    reverse: Bools
    left: Ints
    right: Ints
    overlap: Ints

    def take(self, which: NDArray | slice) -> "Diagonals":
        """Some of them."""
        return Diagonals(
            self.query[which],
            self.target[which],
            self.fold[which],
            self.reverse[which],
            self.left[which],
            self.right[which],
            self.overlap[which],
        )


def diagonals(bases: Bases, seeds: Seeds, queries: Bools, targets: Bools, *, itself: bool) -> Iterator[Diagonals]:
    """Diagonals of pairs that share a word and agree around it, in chunks; each once per chunk.

    With `itself` everything is compared with everything, each pair once, the
    later row as the query.
    """
    n_used = max(1, -(-int(seeds.share * bases.n) // _PART_WORDS))
    n_parts = n_used * round(1 / seeds.share)
    limit = MOST_HITS // (len(seeds.patterns) * n_used * queries.shape[1])
    for pattern, part in itertools.product(seeds.patterns, range(n_used)):
        keys = _sorted_words(bases, pattern, part, n_parts)
        for fold in range(queries.shape[1]):
            asking, asked = queries[:, fold], targets[:, fold]
            for left, right in _word_pairs(bases, keys, len(pattern), asking, asked, limit=limit, itself=itself):
                found = _promising(bases, left, right, pattern, fold, itself=itself)
                if len(found.query):
                    yield found


def _sorted_words(bases: Bases, pattern: str, part: int, n_parts: int) -> Words:
    """Words of one part of all, sorted: code in the upper half, position and strand in the lower."""
    found = []
    last = bases.n - _PAD - len(pattern) + 1
    for begin in range(_PAD, max(last, _PAD), _CHUNK_BASES):
        code, reverse, keep = bases.spaced_words(pattern, begin, min(begin + _CHUNK_BASES, last))
        if n_parts > 1:
            keep &= ((code * _SPREAD_32) >> np.uint32(8)) % np.uint32(n_parts) == part
        at = np.flatnonzero(keep)
        place = ((at + begin).astype(np.uint64) << np.uint64(1)) | reverse[at]
        found.append((code[at].astype(np.uint64) << np.uint64(32)) | place)
    keys = np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)
    keys.sort()
    return keys


def _word_pairs(
    bases: Bases, keys: Words, span: int, asking: Bools, asked: Bools, *, limit: int, itself: bool
) -> Iterator[tuple[Words, Words]]:
    """Places (position and strand) of a word in a query and in a target, in chunks.

    Of a word that is in very many targets (poly-A, or one family) each query
    gets only so many that all pairs stay below the limit: those that go on most
    alike after the word.
    """
    places = keys & np.uint64(0xFFFFFFFF)
    new = np.diff(keys >> np.uint64(32), prepend=np.uint64(2**32)) != 0
    begins = np.flatnonzero(new)
    n_in_run = np.diff(np.append(begins, len(keys)))
    run = np.cumsum(new) - 1
    most = _most_per_word(n_in_run[run[asking[_rows(bases, places)]]], limit)
    long = n_in_run > most
    if long.any():
        _sort_by_context(bases, places, begins[long], n_in_run[long], span)
    rows = _rows(bases, places)
    queries, targets = np.flatnonzero(asking[rows]), np.flatnonzero(asked[rows])
    # Numbers of the targets in the run of each query: from low up to high.
    before = np.concatenate([[0], np.cumsum(asked[rows])])
    begin, end = begins[run[queries]], begins[run[queries]] + n_in_run[run[queries]]
    if itself:
        low = before[queries + 1]
        high = np.minimum(before[end], low + most // 2)
    else:
        low = np.maximum(before[begin], np.minimum(before[queries] - most // 2, before[end] - most))
        high = np.minimum(before[end], low + most)
    for some in chunks(high - low, _CHUNK_HITS):
        n_each = high[some] - low[some]
        ends = np.cumsum(n_each)
        within = np.arange(ends[-1]) - np.repeat(ends - n_each, n_each)
        yield places[np.repeat(queries[some], n_each)], places[targets[np.repeat(low[some], n_each) + within]]


def _rows(bases: Bases, places: Words) -> Ints:
    return bases.row((places >> np.uint64(1)).astype(np.int64))


def _most_per_word(n_in_run: Ints, limit: int) -> int:
    """Largest power of two of targets per word of a query that keeps all pairs below a limit; at least 32."""
    most = 1 << 30
    while most > 32 and np.minimum(n_in_run, most).sum() > limit:
        most //= 2
    return most


def _sort_by_context(bases: Bases, places: Words, begins: Ints, n_in_run: Ints, span: int) -> None:
    """Sort the places of long runs, in place, by the bases that follow the word on its own strand."""
    ends = np.cumsum(n_in_run)
    at = np.repeat(begins - (ends - n_in_run), n_in_run) + np.arange(ends[-1])
    run = np.repeat(np.arange(len(begins)), n_in_run)
    there = places[at]
    position, reverse = (there >> np.uint64(1)).astype(np.int64), (there & np.uint64(1)).astype(bool)
    after = np.where(reverse, 2 * bases.n - position, position + span)
    places[at] = there[np.lexsort((bases.words(after), run))]


def _promising(bases: Bases, left: Words, right: Words, pattern: str, fold: int, *, itself: bool) -> Diagonals:
    """Diagonals of pairs of words, without repeats, where the bases around the words agree more than by chance."""
    left_at, right_at = ((places >> np.uint64(1)).astype(np.int64) for places in (left, right))
    query, target = bases.row(left_at), bases.row(right_at)
    reverse = ((left ^ right) & np.uint64(1)).astype(bool)
    if itself:
        swap = query < target
        query, target = np.where(swap, target, query), np.where(swap, query, target)
        left_at, right_at = np.where(swap, right_at, left_at), np.where(swap, left_at, right_at)
    right_at = np.where(reverse, 2 * bases.n - right_at - len(pattern), right_at)
    middle = len(pattern) // 2
    agree = _agreeing(bases.words(left_at + middle), bases.words(right_at + middle))
    agree += _agreeing(bases.words(left_at + middle - 32), bases.words(right_at + middle - 32))
    # Of the 64 bases around a chance word of that weight so many agree in some 5 %.
    keep = np.flatnonzero((agree >= 21 + 0.75 * pattern.count("1")) & (query != target))
    query, target, reverse = query[keep], target[keep], reverse[keep]
    diagonal = (left_at[keep] - bases.start[query]) - (right_at[keep] - bases.start_of(target, reverse))
    once = _first_of_equal(query, 2 * target + reverse, diagonal)
    query, target, reverse, diagonal = query[once], target[once], reverse[once], diagonal[once]
    first, second = np.maximum(diagonal, 0), np.maximum(-diagonal, 0)
    return Diagonals(
        query,
        target,
        np.full(len(query), fold),
        reverse,
        bases.start[query] + first,
        bases.start_of(target, reverse) + second,
        np.minimum(bases.length[query] - first, bases.length[target] - second),
    )


def _first_of_equal(one: Ints, two: Ints, three: Ints) -> Ints:
    """Where each combination of three numbers stands first. By a hash of 64 bits: one in 10^7 chunks loses one."""
    key = (one.astype(np.uint64) * _SPREAD_64[0]) ^ two.astype(np.uint64)
    key = (key * _SPREAD_64[1]) ^ three.astype(np.uint64)
    return np.unique(key, return_index=True)[1]


def _agreeing(left: Words, right: Words) -> Ints:
    """Of 32 bases each, how many agree."""
    differ = left ^ right
    differ = (differ | (differ >> np.uint64(1))) & np.uint64(0x5555555555555555)
    # Sums of neighbouring bits, then of neighbouring pairs of bits, ...: bitwise_count is new in NumPy 2.
    differ = (differ & np.uint64(0x3333333333333333)) + ((differ >> np.uint64(2)) & np.uint64(0x3333333333333333))
    differ = (differ + (differ >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return 32 - ((differ * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def chunks(sizes: Ints, most: int) -> Iterator[slice]:
    """Slices of consecutive elements whose sizes sum to at most `most`, or that hold one element; none for no size."""
    ends = np.cumsum(sizes)
    begin = done = 0
    while begin < len(sizes) and done < ends[-1]:
        end = max(begin + 1, int(np.searchsorted(ends, done + most, side="right")))
        yield slice(begin, end)
        begin, done = end, int(ends[end - 1])
