"""Who resembles whom: identities, strands and groups against exhaustive alignment, at every size and composition."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from toy_alignment import exact_alignment, exact_identity

from bioattn.data import homology, seeds
from bioattn.data.alphabet import reverse_complement
from bioattn.data.homology import LOWEST_IDENTITY, nearest, relatives
from bioattn.data.seeds import Bases, choose_seeds, chunks, sensitivity
from bioattn.errors import DataError

LETTERS = np.array(list("ACGT"))


def dna(rng: np.random.Generator, length: int, p: Sequence[float] | None = None) -> str:
    return "".join(rng.choice(LETTERS, length, p=p))


def substituted(rng: np.random.Generator, sequence: str, n: int) -> str:
    """The sequence with exactly n other bases."""
    letters = list(sequence)
    for at in rng.choice(len(letters), n, replace=False):
        letters[at] = rng.choice([letter for letter in "ACGT" if letter != letters[at]])
    return "".join(letters)


def gapped(rng: np.random.Generator, sequence: str, n: int) -> str:
    """The sequence with n bases inserted or deleted, never near the ends."""
    letters = list(sequence)
    for at in sorted(rng.choice(np.arange(8, len(letters) - 8), n, replace=False))[::-1]:
        if rng.random() < 0.5:
            del letters[at]
        else:
            letters.insert(at, rng.choice(LETTERS))
    return "".join(letters)


def found_identity(one: str, other: str) -> tuple[float, bool]:
    """Identity of two sequences and whether it is on the other strand, as the search finds them."""
    query = np.array([[True], [False]])
    result = nearest([one, other], query, ~query, identity=0.6)
    return float(result.identity[0, 0]), bool(result.reverse[0, 0])


def groups_of(edges: tuple[np.ndarray, np.ndarray], n: int) -> np.ndarray:
    return connected_components(coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(n, n)), directed=False)[1]


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return len({*zip(one.tolist(), other.tolist(), strict=True)}) == len(set(one.tolist())) == len(set(other.tolist()))


def family_set(rng: np.random.Generator, n: int, length: int) -> list[str]:
    """Unrelated sequences, and relatives of each kind to some of them, in random order."""
    base = [dna(rng, length) for _ in range(n)]
    made = []
    for kind, parent in enumerate(base[: n // 2]):
        overlap = int(length * rng.uniform(0.5, 0.95))
        relative = [
            lambda s: s,
            reverse_complement,
            lambda s, o=overlap: s[len(s) - o :] + dna(rng, len(s) - o),
            lambda s, o=overlap: reverse_complement(dna(rng, len(s) - o) + s[:o]),
            lambda s: substituted(rng, s, int(rng.integers(1, len(s) // 5))),
            lambda s: gapped(rng, s, int(rng.integers(1, max(2, len(s) // 12)))),
        ][kind % 6]
        made.append(relative(parent))
    return [([*base, *made])[row] for row in rng.permutation(n + len(made))]


# --------------------------------------------------------------------------- identity


@pytest.mark.parametrize("length", [57, 81, 200, 2000])
def test_identity_of_planted_relatives(length: int) -> None:
    """A copy has identity 1, an overlap its share, substitutions one minus theirs, on the strand they were planted."""
    rng = np.random.default_rng(length)
    one = dna(rng, length)
    overlap = round(0.7 * length)
    hanging_over = dna(rng, length - overlap)
    five_percent = round(0.05 * length)
    inner = list(one)
    for at in rng.choice(np.arange(length // 8, length - length // 8), five_percent, replace=False):
        inner[at] = {"A": "C", "C": "A", "G": "T", "T": "G"}[inner[at]]
    for other, identity in [
        (one, 1.0),
        (dna(rng, 30) + one + dna(rng, 11), 1.0),  # contained: the shorter one counts
        (one[length - overlap :] + hanging_over, overlap / length),
        (hanging_over + one[:overlap], overlap / length),
        ("".join(inner), 1 - five_percent / length),
    ]:
        assert found_identity(one, other) == (pytest.approx(identity, abs=2.5 / length), False)
        assert found_identity(one, reverse_complement(other)) == (pytest.approx(identity, abs=2.5 / length), True)


def test_an_inserted_base_costs_little() -> None:
    """A base inserted in the middle lowers the identity by nothing, where an ungapped comparison would find half."""
    rng = np.random.default_rng(3)
    one = dna(rng, 120)
    assert found_identity(one, one[:60] + "A" + one[60:])[0] == pytest.approx(1.0, abs=0.01)
    assert found_identity(one, one[:60] + one[67:])[0] == pytest.approx(1.0, abs=0.02)  # of 113 bases


def test_unknown_bases_equal_nothing() -> None:
    """Unknown bases neither match each other nor count as length; copies are found however many they have."""
    rng = np.random.default_rng(4)
    one, other = dna(rng, 60), dna(rng, 60)
    assert found_identity("N" * 100 + one, "N" * 100 + other)[0] == 0
    assert found_identity(one + "N" * 100, "N" * 100 + one)[0] == 1
    unknown = "N" * 50
    beside = unknown + one[:40] + dna(rng, 40), unknown + one[:40] + other[:40]
    assert found_identity(*beside)[0] == pytest.approx(exact_identity(*beside), abs=0.013)
    sparse = "".join("N" if at % 4 == 3 else letter for at, letter in enumerate(one))
    assert found_identity(sparse, sparse) == (1.0, False)
    assert found_identity(sparse, reverse_complement(sparse)) == (1.0, True)


def test_unrelated_sequences_have_no_neighbour() -> None:
    """Chance resemblance is no neighbour: of random sequences of promoter length next to none has one."""
    for length in (57, 200):
        rng = np.random.default_rng(length)
        sequences = [dna(rng, length) for _ in range(400)]
        query = np.arange(400)[:, None] < 150
        result = nearest(sequences, query, ~query, identity=0.6)
        assert (result.row[query] >= 0).mean() <= 0.02
        assert (result.decoys >= LOWEST_IDENTITY).mean() <= 0.02


@pytest.mark.parametrize("length", [57, 83, 211])
def test_nearest_agrees_with_exhaustive_alignment(length: int) -> None:
    """Each query's nearest target is as near as any that beats chance, to one base, and what is found is there."""
    rng = np.random.default_rng(length)
    sequences = family_set(rng, 44, length)
    query = (rng.random(len(sequences)) < 0.4)[:, None]
    result = nearest(sequences, query, ~query, identity=0.6)
    lowest = homology.chance_score(Bases(sequences), sum(map(len, sequences)))
    for row in np.flatnonzero(query):
        pairs = {int(other): exact_alignment(sequences[row], sequences[other]) for other in np.flatnonzero(~query)}
        exact = {other: identity for other, (_, identity) in pairs.items()}
        best = max((identity for score, identity in pairs.values() if score >= lowest), default=0)
        if best >= 0.6:
            assert result.identity[row, 0] == pytest.approx(best, abs=1.1 / length)
        if result.row[row, 0] >= 0:
            assert result.identity[row, 0] == pytest.approx(exact[int(result.row[row, 0])], abs=1.1 / length)
            assert result.identity[row, 0] >= LOWEST_IDENTITY
        else:
            assert result.identity[row, 0] == 0


def test_ties_go_to_the_given_strand_and_the_first_row() -> None:
    """Of equally near targets the one on the given strand wins, then the first."""
    rng = np.random.default_rng(5)
    one = dna(rng, 70)
    sequences = [reverse_complement(one), dna(rng, 70), one, one, one]
    query = np.array([0, 0, 0, 0, 1], dtype=bool)[:, None]
    result = nearest(sequences, query, ~query, identity=0.6)
    assert (result.row[4, 0], result.reverse[4, 0]) == (2, False)
    near = substituted(rng, one, 4)
    result = nearest([reverse_complement(one), dna(rng, 70), one, one, near], query, ~query, identity=0.6)
    assert (result.row[4, 0], result.reverse[4, 0]) == (2, False)


def test_folds_do_not_mix() -> None:
    """Two folds searched together give what each gives alone."""
    rng = np.random.default_rng(6)
    sequences = family_set(rng, 60, 80)
    query = rng.random((len(sequences), 2)) < 0.4
    both = nearest(sequences, query, ~query, identity=0.7)
    for fold in (0, 1):
        alone = nearest(sequences, query[:, [fold]], ~query[:, [fold]], identity=0.7)
        assert np.array_equal(both.row[:, fold], alone.row[:, 0])
        assert np.array_equal(both.identity[:, fold], alone.identity[:, 0])
        assert (both.row[~query[:, fold], fold] == -1).all()


# --------------------------------------------------------------------------- grouping


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(50, 100), identity=st.sampled_from([0.7, 0.8, 0.9]))
def test_groups_are_those_of_exhaustive_alignment(seed: int, length: int, identity: float) -> None:
    """Rows joined are those that aligning every pair joins, but for chance and pairs within a base of the limit."""
    rng = np.random.default_rng(seed)
    sequences = family_set(rng, 16, length)
    n = len(sequences)
    groups = groups_of(relatives(sequences, identity).edges, n)
    lowest = homology.chance_score(Bases(sequences), sum(map(len, sequences)))
    surely, perhaps = [], []
    for one in range(n):
        for other in range(one):
            score, exact = exact_alignment(sequences[one], sequences[other])
            surely += [(one, other)] if exact >= identity + 1.1 / length and score > lowest + 1 else []
            perhaps += [(one, other)] if exact >= identity - 1.1 / length else []
    assert all(groups[one] == groups[other] for one, other in surely)
    loosest = groups_of(tuple(np.array(perhaps, dtype=int).reshape(-1, 2).T), n)
    assert all(len(set(loosest[groups == group])) == 1 for group in set(groups))


@pytest.mark.parametrize("identity", [0.55, 0.57, 0.7, 0.8])
def test_the_identity_itself_is_enough(identity: float) -> None:
    """Two sequences that overlap by exactly the asked share are related, by one base less they are not."""
    rng = np.random.default_rng(17)
    one, other = dna(rng, 100), dna(rng, 100)
    n = round(100 * identity)
    for overlap, n_groups in ((n, 1), (n - 1, 2)):
        at = 100 - overlap
        beside = one[at:] + ("A" if other[0] == "C" else "C") * 3 + other[: at - 3]
        sequences = [one, beside, *(dna(rng, 100) for _ in range(3))]
        assert exact_identity(one, beside) == overlap / 100
        assert len(set(groups_of(relatives(sequences, identity).edges, 5)[:2])) == n_groups


def test_given_groups_are_kept_and_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs within a given group are not looked at again; the edges join groups that are related."""
    rng = np.random.default_rng(7)
    one, other = dna(rng, 90), dna(rng, 90)
    sequences = [one, substituted(rng, one, 5), other, substituted(rng, other, 6), substituted(rng, one, 7)]
    looked = []
    scored = homology._scored
    monkeypatch.setattr(homology, "_scored", lambda bases, at: looked.append(at) or scored(bases, at))
    edges = relatives(sequences, 0.8, groups=np.array([0, 0, 1, 1, 2])).edges
    real = [(q, t) for at in looked for q, t in zip(at.query.tolist(), at.target.tolist(), strict=True) if q < 5]
    assert real and not {(1, 0), (3, 2)} & set(real)
    together = groups_of((np.append(edges[0], [0, 2]), np.append(edges[1], [1, 3])), 5)
    assert together.tolist() == [0, 0, 1, 1, 0]


def test_low_complexity_does_not_chain() -> None:
    """Unrelated sequences that share a poly-A tract or a repeat of a quarter of their length stay apart."""
    rng = np.random.default_rng(8)
    sequences = []
    for row in range(160):
        tract = "A" * 25 if row % 2 else "TG" * 12
        at = int(rng.integers(0, 75))
        unique = dna(rng, 75)
        sequences.append(unique[:at] + tract + unique[at:])
    sizes = np.bincount(groups_of(relatives(sequences, 0.7).edges, len(sequences)))
    assert sizes.max() <= 2 and (sizes == 1).sum() >= 156


def test_a_large_family_is_one_group_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants of one sequence, every word of which is in all of them, are joined though few pairs are looked at."""
    monkeypatch.setattr(seeds, "MOST_HITS", 10_000)
    rng = np.random.default_rng(9)
    one = dna(rng, 75)
    sequences = [substituted(rng, one, int(rng.integers(1, 8))) for _ in range(500)] + [dna(rng, 75) for _ in range(9)]
    yielded: list[int] = []
    pairs = seeds._word_pairs

    def counted(*arguments, **options):
        for left, right in pairs(*arguments, **options):
            yielded.append(len(left))
            yield left, right

    monkeypatch.setattr(seeds, "_word_pairs", counted)
    found = relatives(sequences, 0.75)
    groups = groups_of(found.edges, len(sequences))
    assert len(set(groups[:500])) == 1 and len(set(groups)) == 10
    n_words = sum(map(len, sequences)) * len(found.seeds.patterns)
    assert sum(yielded) <= 16 * n_words, "a word has at most 16 partners, not 500"


def test_identity_that_shuffled_sequences_reach_is_refused() -> None:
    """Where composition alone makes sequences alike, the error says how many shuffled ones are, and what to do."""
    rng = np.random.default_rng(10)
    poor = [0.8, 0.08, 0.06, 0.06]
    sequences = [dna(rng, 90, p=poor[row % 4 :] + poor[: row % 4]) for row in range(60)]
    with pytest.raises(DataError, match=r"split.identity 0.6: \d+% of 60 shuffled sequences .*90 bp.*raise it"):
        relatives(sequences, 0.6)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (20, r"sequences of 20 bp are so alike by chance: set it to 0\.[78]\d or more"),
        (12, "they are too short for it"),
    ],
)
def test_identity_no_better_than_chance_is_refused(length: int, message: str) -> None:
    """Of short sequences an identity that chance reaches is refused, with the lowest that is of use, if any is."""
    rng = np.random.default_rng(length)
    with pytest.raises(DataError, match=f"split.identity 0.6: .*{message}"):
        relatives([dna(rng, length) for _ in range(400)], 0.6)


# ------------------------------------------------------------------------------ seeds


def test_results_do_not_hang_on_chunk_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks and several parts of the words give the same neighbours and groups as one."""
    rng = np.random.default_rng(12)
    sequences = family_set(rng, 60, 90) + [dna(rng, int(length)) for length in rng.integers(12, 400, 20)]
    query = (rng.random(len(sequences)) < 0.4)[:, None]
    whole, edges = nearest(sequences, query, ~query, identity=0.7), relatives(sequences, 0.8).edges
    monkeypatch.setattr(seeds, "_CHUNK_BASES", 997)
    monkeypatch.setattr(seeds, "_CHUNK_HITS", 101)
    monkeypatch.setattr(seeds, "_PART_WORDS", 4001)
    monkeypatch.setattr(homology, "_CHUNK_CELLS", 499)
    monkeypatch.setattr(homology, "_MOST_PENDING", 7)
    monkeypatch.setattr(homology, "_BATCH", 3)
    parts = nearest(sequences, query, ~query, identity=0.7)
    assert np.array_equal(whole.row, parts.row) and np.array_equal(whole.identity, parts.identity)
    n = len(sequences)
    assert same_partition(groups_of(edges, n), groups_of(relatives(sequences, 0.8).edges, n))


def test_packed_words_are_the_bases() -> None:
    """32 bases from any position of either strand, unpacked again, are the letters there."""
    rng = np.random.default_rng(13)
    sequences = [dna(rng, 71), dna(rng, 13), dna(rng, 200)]
    bases = Bases(sequences)
    rows = np.array([0, 0, 2, 2])
    reverse = np.array([False, True, False, True])
    offset = np.array([5, 33, 0, 151])
    words = bases.words(bases.start_of(rows, reverse) + offset)
    for word, row, other, at in zip(words.tolist(), rows, reverse, offset, strict=True):
        letters = "".join("ACGT"[(word >> (62 - 2 * place)) & 3] for place in range(32))
        sequence = reverse_complement(sequences[row]) if other else sequences[row]
        assert letters == sequence[at : at + 32]


def test_agreeing_bases_are_counted() -> None:
    """The number of equal bases of two packed words is that of a slow count."""
    rng = np.random.default_rng(14)
    one = rng.integers(0, 4, (50, 32))
    other = np.where(rng.random((50, 32)) < 0.5, one, rng.integers(0, 4, (50, 32)))
    packed = [
        (codes.astype(np.uint64) << (62 - 2 * np.arange(32, dtype=np.uint64))).sum(axis=1) for codes in (one, other)
    ]
    assert seeds._agreeing(*packed).tolist() == (one == other).sum(axis=1).tolist()


@pytest.mark.parametrize("weight", list(seeds.PATTERNS))
def test_a_word_and_its_reverse_complement_have_one_code(weight: int) -> None:
    """Patterns are symmetric and of their weight, and the canonical words of both strands are the same."""
    rng = np.random.default_rng(weight)
    sequence = dna(rng, 90)
    for pattern in seeds.PATTERNS[weight]:
        assert pattern == pattern[::-1] and pattern.count("1") == weight and pattern[0] == "1"
        codes = []
        for strand in (sequence, reverse_complement(sequence)):
            bases = Bases([strand])
            code, _, whole = bases.spaced_words(pattern, seeds._PAD, seeds._PAD + 90 - len(pattern) + 1)
            assert whole.all()
            codes.append(code)
        assert np.array_equal(codes[0], codes[1][::-1])


def test_words_do_not_reach_over_unknown_bases_or_ends() -> None:
    """A word with an unknown base where it counts, or of two sequences, is no word."""
    pattern = seeds.PATTERNS[6][0]
    bases = Bases(["A" * 30, "C" * 15 + "N" + "C" * 14])
    code, _, whole = bases.spaced_words(pattern, seeds._PAD, bases.n - seeds._PAD - len(pattern) + 1)
    starts = np.flatnonzero(whole)
    assert starts[starts < 31].tolist() == list(range(30 - len(pattern) + 1))
    second = [
        start
        for start in range(30 - len(pattern) + 1)
        if all(start + offset != 15 for offset, letter in enumerate(pattern) if letter == "1")
    ]
    assert (starts[starts >= 31] - 31).tolist() == second


@pytest.mark.parametrize(("length", "identity"), [(57, 0.8), (81, 0.7), (200, 0.6)])
def test_relatives_are_found_as_often_as_stated(length: int, identity: float) -> None:
    """Seeds under a small budget find the stated share of relatives that differ by substitutions all over, or more."""
    rng = np.random.default_rng(length)
    n = 250
    parents = [dna(rng, length) for _ in range(n)]
    children = [substituted(rng, parent, round((1 - identity) * length)) for parent in parents]
    query = np.arange(2 * n)[:, None] >= n
    bases = Bases([*parents, *children])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "MOST_HITS", 30_000)
        chosen = choose_seeds(bases, query, ~query, identity, itself=False)
        hit = set()
        for at in seeds.diagonals(bases, chosen, query, ~query, itself=False):
            hit |= {q - n for q, t in zip(at.query.tolist(), at.target.tolist(), strict=True) if t == q - n}
    assert 0.02 < chosen.sensitivity <= 1
    spread = 3 * np.sqrt(chosen.sensitivity * (1 - chosen.sensitivity) / n) + 0.02
    assert len(hit) / n >= chosen.sensitivity - spread


def test_sensitivity_grows_with_identity() -> None:
    """Nearer relatives are found more often, copies always; what is budgeted for is what is stated."""
    rng = np.random.default_rng(15)
    bases = Bases([dna(rng, 100) for _ in range(50)])
    every = np.ones((50, 1), dtype=bool)
    chosen = choose_seeds(bases, every, every, 0.7, itself=True)
    shares = [sensitivity(chosen, identity) for identity in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert shares == sorted(shares) and shares[-1] == 1.0 and shares[2] == chosen.sensitivity


@given(sizes=st.lists(st.integers(0, 50), max_size=30), most=st.integers(1, 60))
def test_chunks_cover_everything_once(sizes: list[int], most: int) -> None:
    """Chunks follow each other, hold every element with a size once, and exceed the limit only by a single element."""
    parts = list(chunks(np.array(sizes, dtype=np.int64), most))
    covered = [row for part in parts for row in range(part.start, part.stop)]
    assert covered == list(range(len(covered)))
    assert sum(sizes[len(covered) :]) == 0
    assert all(sum(sizes[part]) <= most or part.stop - part.start == 1 for part in parts)


@pytest.mark.slow
def test_planted_relatives_among_many() -> None:
    """Among 20,000 sequences of 200 bp, 30 % of them relatives, at least 99 % are found and nothing else is joined."""
    rng = np.random.default_rng(16)
    parents = [dna(rng, 200) for _ in range(14_000)]
    made: list[tuple[int, str]] = []
    for row in range(6_000):
        parent = int(rng.integers(14_000))
        overlap = int(rng.integers(100, 190))
        sequence = [
            lambda s: s,
            reverse_complement,
            lambda s, o=overlap: reverse_complement(s[200 - o :] + dna(rng, 200 - o)),
            lambda s: substituted(rng, s, int(rng.integers(4, 31))),
            lambda s: gapped(rng, s, int(rng.integers(4, 31))),
        ][row % 5](parents[parent])
        made.append((parent, sequence))
    sequences = parents + [sequence for _, sequence in made]
    found = relatives(sequences, 0.8)
    groups = groups_of(found.edges, len(sequences))
    exact = np.array([exact_identity(parents[parent], sequence) for parent, sequence in made])
    joined = np.array([groups[parent] == groups[14_000 + row] for row, (parent, _) in enumerate(made)])
    assert joined[exact >= 0.81].mean() >= 0.99
    assert joined[exact < 0.78].mean() <= 0.01
    assert np.bincount(groups).max() <= 12
