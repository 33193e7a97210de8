"""Places of a genome: they fit, do not overlap, are drawn uniformly, and are found wherever there are any."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from toy_genome import ToyGenome

from bioattn.data import matching
from bioattn.data.matching import HardMasked, Interval, Matcher, Places, Tolerance, Wishes, _Counts, _Occupied

LOOSE = Tolerance(1.0, 1.0, 1.0)
contigs = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.text(alphabet="ACGTNacgtn", min_size=1, max_size=90), min_size=1
)


def wishes(rows: list[tuple[int, float, float]], *, masked: bool = True) -> Wishes:
    lengths, gc, share = (np.array(column) for column in zip(*rows, strict=True))
    return Wishes(lengths.astype(np.int64), gc.astype(float), share.astype(float) if masked else None)


def fits(letters: str, length: int, gc: float, masked: float | None, tolerance: Tolerance) -> bool:
    """Whether letters are what a wish asks for, counted one by one."""
    known = [letter for letter in letters.upper() if letter in "ACGT"]
    if len(letters) != length or not known or length - len(known) > tolerance.unknown * length + 1e-9:
        return False
    if abs(sum(letter in "GC" for letter in known) / len(known) - gc) > tolerance.gc + 1e-9:
        return False
    return masked is None or abs(sum(letter.islower() for letter in letters) / length - masked) <= tolerance.masked


def overlap(a: Interval, b: Interval) -> bool:
    return a.contig == b.contig and a.start < b.end and b.start < a.end


def open_places(
    genome: ToyGenome, wish: tuple[int, float, float | None], tolerance: Tolerance, taken: list[Interval]
) -> list[Interval]:
    """Every place that fits a wish and overlaps nothing taken."""
    length, gc, masked = wish
    every = [Interval(c, s, s + length) for c, text in genome.texts.items() for s in range(len(text) - length + 1)]
    return [
        place
        for place in every
        if not any(overlap(place, other) for other in taken)
        and fits(genome.texts[place.contig][place.start : place.end], length, gc, masked, tolerance)
    ]


def find(genome: ToyGenome, asked: Wishes, tolerance: Tolerance, blocked: list[Interval], **more: object) -> Places:
    unwanted: set[str] = more.get("unwanted", set())  # type: ignore[assignment]
    return Matcher(genome, blocked).find(asked, tolerance, unwanted=unwanted, rng=np.random.default_rng(5))


@pytest.mark.parametrize("scan_only", [False, True])
@given(
    texts=contigs,
    rows=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9),
    blocked=st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 90), st.integers(0, 20)), max_size=4),
    tolerance=st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 1), st.floats(0, 1)),
    masked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_places_fit_and_none_is_overlooked(
    scan_only: bool,
    texts: dict[str, str],
    rows: list[tuple[int, float, float]],
    blocked: list[tuple[str, int, int]],
    tolerance: tuple[float, float, float],
    masked: bool,
) -> None:
    """Places fit their wish, overlap nothing, and a wish without one has none left in the whole genome."""
    genome, allowed = ToyGenome(texts), Tolerance(*tolerance)
    avoid = [Interval(contig, start, start + size) for contig, start, size in blocked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_DRAWS", 300)
        patch.setattr(matching, "_CHUNK", 16)
        if scan_only:
            patch.setattr(Matcher, "_draw", lambda *_: None)
        found = find(genome, wishes(rows, masked=masked), allowed, avoid)
    for wish, place, letters in zip(found.wish, found.intervals, found.letters, strict=True):
        length, gc, share = rows[wish]
        assert letters == genome.texts[place.contig][place.start : place.end]
        assert fits(letters, length, gc, share if masked else None, allowed)
    real = [place for place in avoid if place.start < place.end]
    for i, place in enumerate(found.intervals):
        assert not any(overlap(place, other) for other in [*found.intervals[:i], *real])
    for row in set(range(len(rows))) - set(found.wish.tolist()):
        length, gc, share = rows[row]
        assert not open_places(genome, (length, gc, share if masked else None), allowed, [*found.intervals, *real])


@pytest.mark.parametrize("scan_only", [False, True])
def test_every_place_that_fits_is_as_likely(scan_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many seeds a wish gets each of its places equally often."""
    if scan_only:
        monkeypatch.setattr(Matcher, "_draw", lambda *_: None)
    monkeypatch.setattr(matching, "_DRAWS", 2_000)
    rng = np.random.default_rng(3)
    genome = ToyGenome({"a": "".join(rng.choice(list("ACGT"), 59)), "b": "".join(rng.choice(list("ACGT"), 31))})
    tolerance = Tolerance(0.05, 1.0, 0.0)
    expected = open_places(genome, (10, 0.5, None), tolerance, [])
    matcher, asked = Matcher(genome), wishes([(10, 0.5, 0.0)], masked=False)
    counts = Counter(
        matcher.find(asked, tolerance, unwanted=set(), rng=np.random.default_rng(seed)).intervals[0]
        for seed in range(100 * len(expected))
    )
    assert len(expected) > 7 and set(counts) == set(expected)
    assert chisquare([counts[place] for place in expected]).pvalue > 1e-3


def test_unwanted_sequences_are_not_taken() -> None:
    """A place that equals an unwanted sequence is left, and its wish gets another one."""
    genome = ToyGenome({"a": "ACGACGACGAC", "b": "AGCAGCAGCAG"})
    asked = wishes([(11, 7 / 11, 0.0)], masked=False)
    for unwanted, expected in (("ACGACGACGAC", "AGCAGCAGCAG"), ("AGCAGCAGCAG", "ACGACGACGAC")):
        found = find(genome, asked, Tolerance(0.01, 1.0, 0.0), [], unwanted={unwanted})
        assert found.letters == [expected]
    both = {"ACGACGACGAC", "AGCAGCAGCAG"}
    assert not find(genome, asked, Tolerance(0.01, 1.0, 0.0), [], unwanted=both).letters


def test_a_full_genome_serves_as_many_as_fit() -> None:
    """Contigs that are as long as the wishes are taken whole, and the wish too many is left."""
    genome = ToyGenome({name: "ACGTACG" for name in "abcde"})
    found = find(genome, wishes([(7, 4 / 7, 0.0)] * 6, masked=False), Tolerance(0.01, 1.0, 0.0), [])
    assert sorted(found.intervals) == [Interval(name, 0, 7) for name in "abcde"]


@pytest.mark.parametrize("size", [255, 256, 257])
def test_contigs_end_where_they_end(size: int) -> None:
    """No place lies across two contigs, nor beyond the last, whatever their size."""
    genome = ToyGenome({"a": "A" * size, "b": "C" * size})
    assert not find(genome, wishes([(10, 0.5, 0.0)], masked=False), Tolerance(0.45, 1.0, 0.0), []).letters
    found = find(genome, wishes([(size, gc, 0.0) for gc in (0.0, 1.0)], masked=False), Tolerance(0.1, 1.0, 0.0), [])
    assert found.intervals == [Interval("a", 0, size), Interval("b", 0, size)]


def test_random_places_have_their_lengths_and_avoid_what_is_blocked() -> None:
    """A sample has a place for each length, within a contig, outside of blocked parts, whatever its GC."""
    rng = np.random.default_rng(1)
    genome = ToyGenome({"a": "".join(rng.choice(list("ACGT"), 997)), "b": "G" * 499 + "N" * 101})
    blocked = [Interval("a", 100, 900)]
    lengths = np.array([11, 13, 17] * 30)
    places = Matcher(genome, blocked).sample(lengths, max_unknown=0.0, rng=rng)
    assert [place.end - place.start for place in places.intervals] == lengths.tolist()
    assert not any(overlap(place, other) for place in places.intervals for other in blocked)
    assert {place.contig for place in places.intervals} == {"a", "b"}
    assert not any("N" in letters for letters in places.letters)


@given(flags=st.lists(st.booleans(), min_size=1, max_size=1100), data=st.data())
@settings(max_examples=50, deadline=None)
def test_counts_are_sums(flags: list[bool], data: st.DataObject) -> None:
    """Counts between two places are sums of the flags there."""
    padded = np.zeros((len(flags) // 256 + 1) * 256, dtype=bool)
    padded[: len(flags)] = flags
    places = st.integers(0, len(padded))
    a, b = sorted((data.draw(places), data.draw(places)))
    counts = _Counts(np.packbits(padded))
    assert counts.within(np.array([a]), np.array([b])).tolist() == [padded[a:b].sum()]
    begin = a // 8 * 8
    assert counts.flags(begin, b).tolist() == padded[begin:b].astype(int).tolist()


@given(pairs=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12))
@settings(max_examples=50, deadline=None)
def test_occupied_places_never_overlap(pairs: list[tuple[int, int]]) -> None:
    """What is added is apart from what was there; `free` and `flags` say the same as a list of letters."""
    occupied, letters = _Occupied(), np.zeros(80, dtype=int)
    for start, size in pairs:
        if occupied.free(np.array([start]), np.array([start + size]))[0]:
            assert not letters[start : start + size].any()
            assert occupied.add(np.array([start]), np.array([start + size])).all()
            letters[start : start + size] = 1
        else:
            assert letters[start : start + size].any()
    assert occupied.flags(8, 80).tolist() == letters[8:].tolist()
    starts, ends = (np.array(column) for column in zip(*[(s, s + n) for s, n in pairs] or [(0, 1)], strict=True))
    several = _Occupied()
    added = several.add(starts, ends)
    assert (several.ends[:-1] <= several.starts[1:]).all() and added.sum() == len(several.starts) >= 1


def test_hard_masked_genome() -> None:
    """Lower-case letters read as unknown; the rest of the genome is as it is."""
    genome = HardMasked(ToyGenome({"a": "ACgtNA"}))
    assert genome.letters("a").tobytes() == b"ACNNNA"
    assert dict(genome.lengths) == {"a": 6} and genome.resolve("a") == "a"
