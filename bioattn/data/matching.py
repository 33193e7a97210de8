"""Places of a genome that match given lengths, GC contents and soft-masked shares, none of them overlapping.

Places are drawn at random in bulk, and each wish takes the first one that fits
it: a uniform draw from all that fit. The few wishes that draws do not serve are
put to every place of the genome, so a wish is given up only when no free place
fits it.

The genome is one long line here: contigs follow each other, with at least one
blocked letter behind each.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Places drawn at a time.
_DRAWS = 1_000_000
#: Draws stop once a round of them serves fewer wishes: then looking at every place is as fast.
_LEAST_SERVED = 3
#: Letters scanned at a time, a multiple of 8.
_CHUNK = 2**22
#: Letters of a block of counts.
_BLOCK = 256
#: Allowance for rounding where shares are compared.
_ROUNDING = 1e-9

_SET_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
#: Mask of the first j bits of a byte.
_FIRST_BITS = np.array([0xFF ^ (0xFF >> j) for j in range(8)], dtype=np.uint8)

_CODES = alphabet.encode_bytes(bytes(range(256)))
#: Kinds of letters that are counted -> whether a byte is one.
_KINDS = {
    "gc": (_CODES == 1) | (_CODES == 2),
    "unknown": _CODES == alphabet.UNKNOWN,
    "masked": np.array([chr(byte).islower() and byte < 128 for byte in range(256)]),
}


class GenomeLike(Protocol):
    """What is needed of a genome; `bioattn.io.genome.Genome` has it."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Length of every contig."""

    def letters(self, contig: str) -> NDArray[np.uint8]:
        """Bytes of a contig as they are written."""

    def resolve(self, name: str, contig_names: Literal["exact", "chr_prefix"] = "exact") -> str:
        """The genome's name of a contig; raises `DataError` if it has none."""


class HardMasked:
    """A genome with unknown bases in place of its lower-case letters."""

    def __init__(self, genome: GenomeLike) -> None:
        self.genome = genome
        self.lengths = genome.lengths
        self.resolve = genome.resolve

    def letters(self, contig: str) -> NDArray[np.uint8]:
        """Bytes of a contig, N for lower case."""
        letters = self.genome.letters(contig)
        return np.where(_KINDS["masked"][letters], np.uint8(ord("N")), letters)


class Interval(NamedTuple):
    """A place of a genome, 0-based and half-open."""

    contig: str
    start: int
    end: int


class Wishes(NamedTuple):
    """What places must be like, one entry per wish; soft-masked shares only where they count."""

    lengths: Ints
    gc: Floats
    masked: Floats | None = None

    def take(self, rows: Ints) -> "Wishes":
        """The wishes in some rows."""
        return Wishes(self.lengths[rows], self.gc[rows], None if self.masked is None else self.masked[rows])


class Tolerance(NamedTuple):
    """Largest differences to a wish, and the largest share of unknown bases."""

    gc: float
    masked: float
    unknown: float


class Places(NamedTuple):
    """Places that were found: the wish of each, where it is, and its letters as the genome has them."""

    wish: Ints
    intervals: list[Interval]
    letters: list[str]


class Matcher:
    """A genome in which places are looked for. Takes about 1.2 bytes of memory per base.

    Parameters
    ----------
    blocked : iterable of Interval
        Where no place may lie, with the genome's contig names; parts outside of contigs are ignored.
    """

    def __init__(self, genome: GenomeLike, blocked: Iterable[Interval] = ()) -> None:
        self.genome = genome
        self.contigs = list(genome.lengths)
        sizes = np.array([genome.lengths[contig] for contig in self.contigs], dtype=np.int64)
        padded = (sizes // _BLOCK + 1) * _BLOCK  # room for at least one blocked letter
        self.offsets: Ints = np.cumsum(padded) - padded
        self.n_letters = int(padded.sum())
        taken: dict[str, list[Interval]] = {}
        for interval in blocked:
            taken.setdefault(interval.contig, []).append(interval)
        flags: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in ("blocked", *_KINDS)}
        for contig, width in zip(self.contigs, padded, strict=True):
            letters = genome.letters(contig)
            is_blocked = np.zeros(width, dtype=bool)
            is_blocked[len(letters) :] = True
            for _, start, end in taken.get(contig, []):
                is_blocked[max(start, 0) : max(end, 0)] = True
            flags["blocked"].append(np.packbits(is_blocked))
            for name, kind in _KINDS.items():
                is_kind = np.zeros(width, dtype=bool)
                is_kind[: len(letters)] = kind[letters]
                flags[name].append(np.packbits(is_kind))
        self._counts = {name: _Counts(np.concatenate(parts)) for name, parts in flags.items()}

    def find(self, wishes: Wishes, tolerance: Tolerance, *, unwanted: set[str], rng: np.random.Generator) -> Places:
        """Places that do not overlap, one for each wish for which there is one.

        Parameters
        ----------
        unwanted : set of str
            Sequences in upper case, ambiguity codes as N, that no place may equal.
        """
        found = np.full(len(wishes.lengths), -1, dtype=np.int64)
        letters: dict[int, str] = {}
        occupied = _Occupied()
        left = rng.permutation(len(found))
        while len(left):
            self._draw(wishes, tolerance, left, found, occupied, rng)
            self._scan(wishes, tolerance, left[found[left] < 0], found, occupied, rng)
            left = left[found[left] >= 0]
            letters.update(zip(left.tolist(), self._read(found[left], wishes.lengths[left]), strict=True))
            # A place that equals an unwanted sequence stays occupied, and its wish asks again.
            clean = [alphabet.decode(alphabet.encode(letters[row])) for row in left.tolist()]
            left = left[np.array([text in unwanted for text in clean], dtype=bool)]
            found[left] = -1
        served = np.flatnonzero(found >= 0)
        intervals = self._intervals(found[served], wishes.lengths[served])
        return Places(served, intervals, [letters[row] for row in served.tolist()])

    def sample(self, lengths: Ints, *, max_unknown: float, rng: np.random.Generator) -> Places:
        """Random free places of given lengths, whatever their composition; they may overlap."""
        wishes, tolerance = Wishes(lengths, np.zeros(len(lengths))), Tolerance(1.0, 1.0, max_unknown)
        rows, starts = self._first_fitting(wishes, tolerance, np.arange(len(lengths)), None, rng)
        return Places(rows, self._intervals(starts, lengths[rows]), self._read(starts, lengths[rows]))

    def _draw(
        self, wishes: Wishes, tolerance: Tolerance, left: Ints, found: Ints, occupied: "_Occupied",
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Serve wishes by random places, until a round serves few of them."""
        while len(left):
            rows, starts = self._first_fitting(wishes, tolerance, left, occupied, rng)
            kept = occupied.add(starts, starts + wishes.lengths[rows])
            found[rows[kept]] = starts[kept]
            left = left[found[left] < 0]
            if kept.sum() < _LEAST_SERVED:
                return

    def _first_fitting(
        self, wishes: Wishes, tolerance: Tolerance, rows: Ints, occupied: "_Occupied | None", rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Wishes for which some draw fits, and the first such start of each."""
        n_each = max(1, min(_DRAWS // max(len(rows), 1), self.n_letters))
        starts = rng.integers(0, self.n_letters, len(rows) * n_each)
        drawn = self._fitting(starts, wishes.take(np.repeat(rows, n_each)), tolerance, occupied)
        asked, first = np.unique(drawn // n_each, return_index=True)
        return rows[asked], starts[drawn[first]]

    def _fitting(self, starts: Ints, wishes: Wishes, tolerance: Tolerance, occupied: "_Occupied | None") -> Ints:
        """Indices of starts (N,) at which a free window fits its wish (N,)."""
        ends = np.minimum(starts + wishes.lengths, self.n_letters)  # the last letter is blocked
        index = np.flatnonzero(self._counts["blocked"].within(starts, ends) == 0)

        def count(kind: str) -> Ints:
            return self._counts[kind].within(starts[index], ends[index])

        def near(n: Ints, of: Ints, share: Floats, allowed: float) -> Flags:
            return np.abs(n / np.maximum(of, 1) - share[index]) <= allowed + _ROUNDING

        index = index[_known(count("unknown"), wishes.lengths[index], tolerance)]
        index = index[near(count("gc"), wishes.lengths[index] - count("unknown"), wishes.gc, tolerance.gc)]
        if wishes.masked is not None:
            index = index[near(count("masked"), wishes.lengths[index], wishes.masked, tolerance.masked)]
        return index if occupied is None else index[occupied.free(starts[index], ends[index])]

    def _scan(
        self, wishes: Wishes, tolerance: Tolerance, left: Ints, found: Ints, occupied: "_Occupied",
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Serve wishes by any place that is left, the longest first."""
        candidates = self._candidates(wishes.take(left), tolerance, occupied)
        for length, (starts, gc, masked) in sorted(candidates.items(), reverse=True):
            free = occupied.free(starts, starts + length)
            for row in left[wishes.lengths[left] == length]:
                fits = free & (np.abs(gc - wishes.gc[row]) <= tolerance.gc + _ROUNDING)
                if wishes.masked is not None:
                    fits &= np.abs(masked - wishes.masked[row]) <= tolerance.masked + _ROUNDING
                choices = np.flatnonzero(fits)
                if len(choices):
                    start = found[row] = starts[rng.choice(choices)]
                    occupied.add(np.array([start]), np.array([start + length]))
                    # Starts are sorted: windows that overlap the new place are neighbours.
                    near, beyond = np.searchsorted(starts, [start - length + 1, start + length])
                    free[near:beyond] = False

    def _candidates(
        self, wishes: Wishes, tolerance: Tolerance, occupied: "_Occupied"
    ) -> dict[int, tuple[Ints, Floats, Floats]]:
        """Starts, GC and soft-masked shares of all free windows, by length, whose GC some wish may accept."""
        ranges = {}
        for length in np.unique(wishes.lengths).tolist():
            gc = wishes.gc[wishes.lengths == length]
            ranges[length] = (gc.min() - tolerance.gc - _ROUNDING, gc.max() + tolerance.gc + _ROUNDING)
        parts: dict[int, list[tuple[Ints, Floats, Floats]]] = {length: [] for length in ranges}
        for begin in range(0, self.n_letters if ranges else 0, _CHUNK):
            end = min(begin + _CHUNK + max(ranges) - 1, self.n_letters)
            flags = {kind: plane.flags(begin, end) for kind, plane in self._counts.items()}
            flags["blocked"] |= occupied.flags(begin, end)
            longest = _longest_run(flags["blocked"] == 0)
            before = {kind: np.append(np.int32(0), np.cumsum(each, dtype=np.int32)) for kind, each in flags.items()}
            for length, (low, high) in ranges.items():
                if length > longest:
                    continue
                blocked = before["blocked"][: _CHUNK + length]
                index = np.flatnonzero(blocked[length:] == blocked[:-length])
                n = {kind: each[index + length] - each[index] for kind, each in before.items()}
                gc = n["gc"] / np.maximum(length - n["unknown"], 1)
                keep = _known(n["unknown"], np.full(len(index), length), tolerance) & (gc >= low) & (gc <= high)
                parts[length].append((begin + index[keep], gc[keep], n["masked"][keep] / length))
        return {
            length: (*(np.concatenate(columns) for columns in zip(*found, strict=True)),)  # type: ignore[misc]
            for length, found in parts.items()
            if found
        }

    def _intervals(self, starts: Ints, lengths: Ints) -> list[Interval]:
        contig = np.searchsorted(self.offsets, starts, side="right") - 1
        within = starts - self.offsets[contig]
        return [
            Interval(self.contigs[i], start, start + length)
            for i, start, length in zip(contig.tolist(), within.tolist(), lengths.tolist(), strict=True)
        ]

    def _read(self, starts: Ints, lengths: Ints) -> list[str]:
        """Letters of windows, contig by contig."""
        intervals = self._intervals(starts, lengths)
        texts = [""] * len(intervals)
        contig_now, letters = "", np.zeros(0, dtype=np.uint8)
        for i in np.argsort(starts, kind="stable"):
            contig, start, end = intervals[i]
            if contig != contig_now or not len(letters):
                contig_now, letters = contig, self.genome.letters(contig)
            texts[i] = letters[start:end].tobytes().decode("latin-1")
        return texts


class _Counts:
    """Counts of set flags between any two places, in 0.28 bytes per flag.

    Parameters
    ----------
    packed : ndarray, uint8
        Eight flags a byte, a multiple of `_BLOCK` flags.
    """

    def __init__(self, packed: NDArray[np.uint8]) -> None:
        per_byte = _SET_BITS[packed].reshape(-1, _BLOCK // 8)
        per_block = per_byte.sum(axis=1, dtype=np.int64)
        # Before each byte within its block (at most 248), and before each block.
        before = np.cumsum(per_byte, axis=1, dtype=np.uint8) - per_byte
        self._packed = np.append(packed, np.uint8(0))
        self._in_block = np.append(before.ravel(), np.uint8(0))
        self._blocks = np.append(0, np.cumsum(per_block))

    def within(self, starts: Ints, ends: Ints) -> Ints:
        """Set flags between starts (N,) and ends (N,), half-open."""
        return self._before(ends) - self._before(starts)

    def flags(self, begin: int, end: int) -> NDArray[np.uint8]:
        """Flags 0 and 1 between `begin`, a multiple of 8, and `end`."""
        return np.unpackbits(self._packed[begin // 8 : (end + 7) // 8])[: end - begin]

    def _before(self, places: Ints) -> Ints:
        byte = places >> 3
        part = _SET_BITS[self._packed[byte] & _FIRST_BITS[places & 7]]
        return self._blocks[places // _BLOCK] + self._in_block[byte] + part


class _Occupied:
    """Intervals that do not overlap, in order."""

    def __init__(self) -> None:
        self.starts: Ints = np.zeros(0, dtype=np.int64)
        self.ends: Ints = np.zeros(0, dtype=np.int64)

    def free(self, starts: Ints, ends: Ints) -> Flags:
        """Which intervals overlap none of these."""
        # All that end before or at the start are as many as all that start before the end.
        return np.searchsorted(self.ends, starts, side="right") == np.searchsorted(self.starts, ends, side="left")

    def flags(self, begin: int, end: int) -> NDArray[np.uint8]:
        """Flags between two places: 1 where an interval lies."""
        steps = np.zeros(end - begin + 1, dtype=np.int8)
        first, last = np.searchsorted(self.ends, begin, side="right"), np.searchsorted(self.starts, end, side="left")
        # An interval may begin where another ends.
        np.add.at(steps, np.maximum(self.starts[first:last] - begin, 0), 1)
        np.add.at(steps, np.minimum(self.ends[first:last], end) - begin, -1)
        return np.cumsum(steps[:-1], dtype=np.int8).view(np.uint8)

    def add(self, starts: Ints, ends: Ints) -> Flags:
        """Add free intervals, except those that overlap one further left among them; which were added."""
        order = np.argsort(starts, kind="stable")
        reach = np.maximum.accumulate(ends[order])
        apart = np.append(True, starts[order][1:] >= reach[:-1])[: len(order)]
        added = np.zeros(len(starts), dtype=bool)
        added[order[apart]] = True
        starts, ends = np.append(self.starts, starts[added]), np.append(self.ends, ends[added])
        order = np.argsort(starts, kind="stable")
        self.starts, self.ends = starts[order], ends[order]
        return added


def _longest_run(flags: Flags) -> int:
    """Length of the longest run of set flags."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _known(unknown: Ints, lengths: Ints, tolerance: Tolerance) -> Flags:
    """Whether windows have known letters, and no more unknown ones than allowed."""
    return (unknown <= tolerance.unknown * lengths + _ROUNDING) & (unknown < lengths)
